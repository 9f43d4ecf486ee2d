"""What others left behind, found again: every replica looks for it now and then.

- A slot whose operation has ended: its holder died, or woke up too late, between the final event and the slot. Left
  alone it would narrow the lane for good.
- A result that the nodes' queue gave up on, since a node's start had brought the durable back to mpcium's three
  deliveries and three holders died with it (wire trap 14).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from initiator.core.model import Operation
from initiator.errors import Code, InitiatorError
from initiator.flow.clock import Clock
from initiator.flow.lane import Lane
from initiator.log import get_logger
from initiator.record import Record

log = get_logger()
Chore = Callable[[float], Awaitable[None]]
"""One thing to look for, left behind before a moment (Unix seconds)."""


class Sweeper:
    """The chores of one replica.

    Args:
        interval_s: how long between two rounds; also how old a slot must be to be looked at.
        keep_durables: bring the result durables back into form.
    """

    def __init__(
        self,
        *,
        record: Record,
        lanes: dict[Operation, Lane],
        keep_durables: Iterable[Chore],
        clock: Clock,
        interval_s: float,
    ) -> None:
        self._record = record
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

    def _slots_of(self, lane: Lane) -> Chore:
        async def chore(before: float) -> None:
            async def has_ended(operation_id: str) -> bool:
                last = await self._record.last(lane.operation, operation_id)
                return last is not None and last.event.final

            await lane.free_left_behind(before, has_ended)

        return chore
