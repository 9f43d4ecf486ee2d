"""A delivery becomes a request to work on, or a refusal: the first look, before anything is claimed.

A refusal is only for a request that nobody claimed: its sender must not be told `rejected` while the nodes may have
it. So whoever may have been overtaken looks at the record before it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass

from initiator.config.schema import Settings
from initiator.core import codec, identity
from initiator.core.lifecycle import REOPEN, Claimant
from initiator.core.model import ContentType, Request
from initiator.errors import Code, RejectError
from initiator.flow.clients import Clients
from initiator.flow.clock import Clock
from initiator.flow.held import Held
from initiator.flow.intake import Intake
from initiator.flow.work import Work
from initiator.record import Record


@dataclass(frozen=True, slots=True)
class Refusal:
    """What its sender is told, and in which encoding."""

    error: RejectError
    encoding: ContentType


class Reception:
    """Reads deliveries for the handler."""

    def __init__(self, settings: Settings, clients: Clients, record: Record, clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._intake = Intake(settings, clients)
        self._ack_wait_s = settings.worker.ack_wait_s

    def may_be_overtaken(self, held: Held) -> bool:
        """Whether another holder may have claimed this request: one before us, or one while we were frozen."""
        return held.redelivered or self._clock.loop_time() - held.taken_at >= self._ack_wait_s

    async def receive(self, held: Held) -> Work | Refusal | None:
        """The request in a delivery, or why it is refused; None if its refusal is stored already.

        Raises:
            RetryError: the record could not be read; nothing was done.
        """
        if held.redelivered and await self._record.rejected(held.client, held.operation, held.sequence):
            return None
        encoding = ContentType.MSGPACK
        try:
            encoding = codec.content_type(held.delivery.message.headers.get("Content-Type"))
            request = self._intake.read(held.client, held.operation, encoding, held.data, self._clock.now())
        except RejectError as error:
            refusal = Refusal(error, encoding)
            return await self._take_up(held, refusal) or refusal
        return _work(held, request, encoding)

    async def _take_up(self, held: Held, refusal: Refusal) -> Work | None:
        """A request that is refused now, but that somebody may have claimed: then it goes on to its end."""
        if not self.may_be_overtaken(held):
            return None
        request = self._intake.reread(held.operation, refusal.encoding, held.data)
        if request is None:
            return None
        work = _work(held, request, refusal.encoding)
        if refusal.error.code is Code.EXPIRED:
            return work  # the claim refuses it, once nobody else can have claimed it
        last = await self._record.last(held.operation, request.operation_id)
        if last is None or (last.event.client, last.event.request_seq) != (held.client, held.sequence):
            return None
        work.refusal = refusal.error
        return work


def _work(held: Held, request: Request, encoding: ContentType) -> Work:
    claimant = Claimant(
        client=held.client,
        request_digest=identity.request_digest(held.client, request),
        request_seq=held.sequence,
        reopens=held.delivery.message.headers.get(REOPEN),
    )
    return Work(held, request, encoding, claimant)
