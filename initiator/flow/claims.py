"""Claiming an id, or refusing to; what is permitted of what is claimed, and recording it once it is signed.

Invariants:
- a request is refused only while nobody has claimed it: whoever may have been overtaken looks at the record first;
- a place of every limit that counts the request is taken before the claim, and only given back if the claim surely
  was not ours;
- what is claimed is permitted anew before KMS is asked and before complete bytes are recorded: the last word of the
  rules is the one that stands with the signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from initiator.allowances import Allowances, Place
from initiator.core import events
from initiator.core.events import State
from initiator.core.policy.rules import Grant
from initiator.errors import Code, RejectError, RetryError
from initiator.flow.clock import Clock
from initiator.flow.gate import SigningGate
from initiator.flow.journal import Journal
from initiator.flow.reception import Reception
from initiator.flow.room import Room
from initiator.flow.work import Work
from initiator.record import Entry, MovedError, Record, Seen


class RefusedBeforeError(Exception):
    """Another holder has refused this very request, and its sender was told."""


class Claims:
    """Claims for the handler.

    Args:
        clock_skew_s: how far the clocks of replicas may differ.
    """

    def __init__(
        self,
        *,
        reception: Reception,
        record: Record,
        journal: Journal,
        allowances: Allowances,
        room: Room,
        gate: SigningGate,
        clock: Clock,
        clock_skew_s: float,
    ) -> None:
        self._reception = reception
        self._record = record
        self._journal = journal
        self._allowances = allowances
        self._room = room
        self._gate = gate
        self._clock = clock
        self._clock_skew_s = clock_skew_s

    async def claim(self, work: Work, reopened: Entry | None) -> Entry:
        """Make the id this request's own.

        Args:
            reopened: the `failed` event that it goes on after.

        Raises:
            RejectError: it is refused; nobody has claimed it.
            RefusedBeforeError: see there.
            MovedError: somebody else has claimed, or moved the record on.
            RetryError: NATS is away.
        """
        if reopened is not None and await self._signed_before(reopened):
            return reopened  # a reshare that nobody heard: no second signature is recorded under an id
        if await self._reception.refused_before(work.held):
            raise RefusedBeforeError
        now = self._clock.now()
        try:
            grant = await self._reception.permit(work)  # it may have waited for its turn while the rules changed
            if work.refusal:
                raise work.refusal
            self._gate.admit(work.held)
        except RejectError:
            await self._unless_claimed(work, reopened)
            raise
        expires_at = self._reception.deadline(work)
        if expires_at <= now:
            await self._let_expire(work, expires_at, reopened)
        self._room.check()
        taken = await self._take_places(work, grant, reopened) if grant.counts else []
        return await self._record_claim(work, expires_at, taken, reopened)

    async def _take_places(self, work: Work, grant: Grant, reopened: Entry | None) -> list[Place]:
        try:
            return await self._allowances.take(grant.counts)
        except RejectError:
            await self._unless_claimed(work, reopened)  # a repeat of what is claimed already joins that
            raise

    async def _record_claim(self, work: Work, expires_at: float, taken: list[Place], reopened: Entry | None) -> Entry:
        digest, labels = work.claimant.request_digest, work.request.labels
        try:
            return await self._journal.claim(
                work.held, work.operation_id, digest, expires_at, work.encoding, labels, reopened
            )
        except MovedError as moved:
            if not moved.maybe_done:  # somebody else's, surely
                self._allowances.give_back(taken)
            raise
        except RetryError as error:
            if not error.maybe_done:  # else it may be ours, and counts
                self._allowances.give_back(taken)
            raise

    async def permitted(self, work: Work) -> Grant | RejectError:
        """The rule that permits what is claimed already, or why the rules refuse it, now or elsewhere.

        Raises:
            RetryError: the record cannot be read now.
        """
        if await self._reception.refused_before(work.held):
            return RejectError(Code.POLICY_DENIED, "another replica has refused it, under other rules")
        try:
            grant = await self._reception.permit(work)
        except RejectError as error:
            return error
        return work.refusal or grant

    async def seal(self, work: Work, last: Entry, state: State, body: Mapping[str, Any], grant: Grant) -> Entry:
        """Record what was signed, if neither orders nor rules have changed; looked at before each try of the write.

        Args:
            state: `signed`, the point of no return, or `authorizing`.
            grant: by which it is permitted.

        Raises:
            MovedError: another write came first.
            RetryError: orders, rules or NATS are in the way; nothing is recorded, as far as we know.
        """
        recorded_at = self._clock.loop_time()
        with self._gate.recording(last) as recording:

            def still() -> None:
                recording.still()
                self._reception.still(grant)

            entry = await self._journal.move(last, state, body, still=still)
        if state is State.SIGNED:
            work.recorded_at = recorded_at
        return entry

    async def _signed_before(self, last: Entry) -> bool:
        event = last.event
        return await self._record.signed(event.client, event.operation, event.operation_id) is not None

    async def _let_expire(self, work: Work, expires_at: float, after: Entry | None) -> NoReturn:
        """Refuse what expired before it was claimed; but not what somebody else has claimed."""
        # frozen holder: by then the request is past its deadline by everybody's clock, so nobody claims it after us
        await self._clock.sleep(expires_at + self._clock_skew_s - self._clock.now())
        await self._unless_claimed(work, after)
        reason = f"expired at {events.format_time(expires_at)}, before it was claimed"
        raise RejectError(Code.EXPIRED, reason, field="expires_at")

    async def _unless_claimed(self, work: Work, after: Entry | None) -> None:
        """Raises MovedError where somebody else has moved the record on.

        However fresh the delivery looks: a server that lost its power forgets how often it has delivered a request.
        """
        last = await self._record.last(work.operation, work.operation_id)
        sequence = after.sequence if after else 0
        if (last.sequence if last else 0) != sequence:
            raise MovedError(last)
        work.seen = Seen(work.operation, work.operation_id, sequence)
