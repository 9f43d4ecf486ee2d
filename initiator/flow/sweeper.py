"""What others left behind, found again: every replica looks for it now and then.

- A slot whose operation has ended: its holder died, or woke up too late, between the final event and the slot. Left
  alone it would narrow the lane for good. And one whose operation nobody can end any more, since its request is gone
  from the queue (somebody deleted it): long past its deadline it is ended here.
- A result that the nodes' queue gave up on, since a node's start had brought the durable back to mpcium's three
  deliveries and three holders died with it (wire trap 14).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from initiator.core.lifecycle import outcome_before_publishing
from initiator.core.model import Operation
from initiator.errors import Code, InitiatorError
from initiator.flow.clock import Clock
from initiator.flow.journal import Journal
from initiator.flow.lane import Lane
from initiator.log import get_logger
from initiator.record import Entry, MovedError, Record

log = get_logger()
Chore = Callable[[float], Awaitable[None]]
"""One thing to look for, left behind before a moment (Unix seconds)."""


class Sweeper:
    """The chores of one replica.

    Args:
        patience_s: how long after its deadline an operation that holds a slot must have ended by itself.
        interval_s: how long between two rounds; also how old a slot must be to be looked at.
        keep_durables: bring the result durables back into form.
    """

    def __init__(
        self,
        *,
        record: Record,
        journal: Journal,
        lanes: dict[Operation, Lane],
        patience_s: Mapping[Operation, float],
        keep_durables: Iterable[Chore],
        clock: Clock,
        interval_s: float,
    ) -> None:
        self._record = record
        self._journal = journal
        self._patience_s = patience_s
        self._clock = clock
        self._interval_s = interval_s
        self._chores = [*keep_durables, *(self._slots_of(lane) for lane in lanes.values())]

    async def run(self) -> None:
        """Sweep until cancelled; what fails is tried again the next time."""
        while True:
            await self._clock.sleep(self._interval_s)
            await self.sweep()

    async def sweep(self) -> None:
        """One round."""
        for chore in self._chores:
            try:
                await chore(self._clock.now() - self._interval_s)
            except InitiatorError as error:
                # that a back end is away is said elsewhere
                say = log.debug if error.code is Code.BUS_UNAVAILABLE else log.warning
                say("sweeper.chore_failed", code=error.code.value, reason=error.reason)

    def _is_overdue(self, last: Entry) -> bool:
        return self._clock.now() > last.event.expires_at + self._patience_s[last.event.operation]

    async def _end(self, last: Entry) -> Entry | None:
        """End what nobody holds any more; whoever does hold it moves first, or finds it ended."""
        reason = "nobody holds it any more, and its deadline has long passed"
        try:
            return await self._journal.fail(last, Code.RESULT_TIMEOUT, reason, outcome_before_publishing(last.event))
        except MovedError as moved:
            return moved.last

    def _slots_of(self, lane: Lane) -> Chore:
        async def chore(before: float) -> None:
            async def has_ended(operation_id: str) -> bool:
                last = await self._record.last(lane.operation, operation_id)
                if last is not None and not last.event.final and self._is_overdue(last):
                    last = await self._end(last)
                return last is not None and last.event.final

            await lane.free_left_behind(before, has_ended)

        return chore
