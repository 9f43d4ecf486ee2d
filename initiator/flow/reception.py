"""A delivery becomes a request to work on, or a refusal: the first look, before anything is claimed.

A refusal is only for a request that nobody claimed: its sender must not be told `rejected` while the nodes may have
it. So whoever may have been overtaken looks at the record before it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from initiator.config.schema import Settings
from initiator.core import codec, identity
from initiator.core.events import is_id
from initiator.core.lifecycle import REOPEN, Claimant
from initiator.core.model import ContentType, Request
from initiator.core.policy.rules import Grant, PolicyError
from initiator.core.requester import RequesterSignature
from initiator.errors import Code, RejectError
from initiator.flow.clock import Clock
from initiator.flow.held import Held
from initiator.flow.intake import Intake
from initiator.flow.work import Work
from initiator.record import Entry, Record, Seen


@dataclass(frozen=True, slots=True)
class Refusal:
    """What its sender is told, and in which encoding; only if the record is still as it was `seen`.

    Attributes:
        operation_id: the id that it names, if that could be one.
    """

    error: RejectError
    encoding: ContentType
    operation_id: str | None
    seen: Seen | None = None


class Reception:
    """Reads deliveries for the handler."""

    def __init__(self, settings: Settings, intake: Intake, record: Record, clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._intake = intake
        self._ack_wait_s = settings.worker.ack_wait_s
        self._clock_skew_s = settings.limits.clock_skew_s

    def may_be_overtaken(self, held: Held) -> bool:
        """Whether another holder may have claimed this request: one before us, or one while we were frozen.

        Also before it came into our hands: a first delivery may have lain in our socket while we were.
        """
        lain_s = self._clock.now() + self._clock_skew_s - held.delivery.stored_at
        held_s = self._clock.loop_time() - held.taken_at
        return held.redelivered or max(lain_s, held_s) >= self._ack_wait_s

    async def refused_before(self, held: Held) -> bool:
        """Whether another holder has refused this very request. Raises RetryError."""
        if not self.may_be_overtaken(held):
            return False
        return await self._record.refusal(held.client, held.operation, held.sequence) is not None

    async def permit(self, work: Work) -> Grant:
        """The rule, of those in force now, that lets its sender have this.

        Raises:
            RejectError: none does.
            RetryError: who made the wallet cannot be read now.
        """
        held = work.held
        if work.signature is None:
            work.signature = self._intake.signature_of(held.client, work.request, held.delivery.message.headers)
        grant = await self._grant(held, work.request, work.signature)
        if work.signature is not None:
            self._intake.check_known(held.client, work.signature)  # it verified; its key may have been revoked since
        return grant

    def still(self, grant: Grant) -> None:
        """See `Intake.still`."""
        self._intake.still(grant)

    async def _grant(self, held: Held, request: Request, signature: RequesterSignature | None) -> Grant:
        arrived_at, now = held.delivery.stored_at, self._clock.now()
        return await self._intake.grant(held.client, request, arrived_at, now, signed=signature is not None)

    def requester_of(self, work: Work) -> dict[str, Any]:
        """The client's own word for a request, with all that an auditor needs to verify it; empty without one."""
        if work.signature is None:
            return {}
        return {"requester": self._intake.evidence(work.request, work.signature, work.claimant.reopens)}

    def deadline(self, work: Work) -> float:
        """See `Intake.deadline`."""
        return self._intake.deadline(work.request, work.held.delivery.stored_at)

    async def receive(self, held: Held) -> Work | Refusal | None:
        """The request in a delivery, or why it is refused; None if its refusal is stored already.

        Raises:
            RetryError: the record could not be read; nothing was done.
        """
        if await self.refused_before(held):
            return None
        encoding = ContentType.MSGPACK
        try:
            encoding = codec.content_type(held.delivery.message.headers.get("Content-Type"))
            request = self._intake.read(held.client, held.operation, encoding, held.data, self._clock.now())
            signature = self._intake.signature_of(held.client, request, held.delivery.message.headers)
            await self._grant(held, request, signature)
        except RejectError as error:
            named = identity.named(held.operation, encoding, held.data)
            refusal = Refusal(error, encoding, named if named and is_id(named) else None)
            return await self._take_up(held, refusal)
        return _work(held, request, encoding, signature)

    async def _take_up(self, held: Held, refusal: Refusal) -> Work | Refusal:
        """A request that is refused now; but if somebody has claimed it, it goes on to its end.

        However fresh the delivery looks: a server that lost its power forgets how often it has delivered a request.
        """
        request = self._intake.reread(held.operation, refusal.encoding, held.data)
        if request is None:
            return refusal
        work = _work(held, request, refusal.encoding)
        if refusal.error.code is Code.EXPIRED:
            return work  # the claim refuses it, once nobody else can have claimed it
        last = await self._record.last(held.operation, request.operation_id)
        if last is None or not self._is_of(last, work, refusal):
            seen = Seen(held.operation, request.operation_id, last.sequence if last else 0)
            return replace(refusal, seen=seen)
        work.refusal = refusal.error
        return work

    def _is_of(self, last: Entry, work: Work, refusal: Refusal) -> bool:
        """Whether a request that is refused now is on record all the same, claimed by itself or by the same one before.

        Who repeats himself asks what became of it. Who may not ask for this operation any more is told just that.
        """
        if (last.event.client, last.event.request_seq) == (work.held.client, work.held.sequence):
            return True
        same = (last.event.client, last.event.request_digest) == (work.held.client, work.claimant.request_digest)
        return same and may_join(refusal.error)


def may_join(refusal: RejectError) -> bool:
    """Whether a client whose request is refused now may hear what became of the same request before.

    Rules change with the hour, with limits and with a missing signature; who lost the operation itself hears nothing.
    """
    return refusal.code is not Code.POLICY_DENIED or isinstance(refusal, PolicyError)


def _work(held: Held, request: Request, encoding: ContentType, signature: RequesterSignature | None = None) -> Work:
    claimant = Claimant(
        client=held.client,
        request_digest=identity.request_digest(held.client, request),
        request_seq=held.sequence,
        reopens=held.delivery.message.headers.get(REOPEN),
    )
    return Work(held, request, encoding, claimant, signature)
