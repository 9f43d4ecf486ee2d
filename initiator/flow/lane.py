"""A lane: the requests of one operation, admitted and published in weighted turns between clients.

Two gates, one kind of turn: a request is first *admitted* (at most the cap plus `lookahead` of them are worked on
here at once), and then takes one of the *slots* that cap what is in flight at the nodes over all replicas. Waiting
for either holds no slot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from initiator.core.model import Operation
from initiator.core.turns import Turns
from initiator.errors import InitiatorError
from initiator.flow.clock import Clock
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.slots import Slots

log = get_logger()
SLOT_POLL_S = 0.1  # other replicas free slots without telling us


class Gate:
    """Lets `capacity` holders in at once, in weighted turns."""

    def __init__(self, capacity: int, weight_of: Callable[[str], int]) -> None:
        self._free = capacity
        self._waiting: Turns[asyncio.Future[None]] = Turns(weight_of)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def enter(self, client: str) -> None:
        """Wait for one's turn."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(client, future)
        self._admit()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        self._free += 1
        self._admit()

    def _admit(self) -> None:
        while self._free > 0:
            future = self._waiting.pop()
            if future is None:
                return
            if not future.done():
                self._free -= 1
                future.set_result(None)

    @contextlib.asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        await self.enter(client)
        try:
            yield
        finally:
            self.leave()


class Lane:
    """Admission and slots of one operation.

    Args:
        slots: the cap over all replicas.
        admitted: how many requests this replica works on at once.
        weight_of: a client's share of turns.
    """

    def __init__(
        self,
        operation: Operation,
        slots: Slots,
        admitted: int,
        weight_of: Callable[[str], int],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.operation = operation
        self.admission = Gate(admitted, weight_of)
        self._slots = slots
        self._clock = clock
        self._metrics = metrics
        # One at a time asks for a slot, in turns: the others wait here without asking.
        self._asking = Gate(1, weight_of)
        self._freed = asyncio.Event()

    async def take_slot(self, client: str, operation_id: str, give_up: Callable[[], bool]) -> bool:
        """Wait for the slot of an id; False if `give_up()` came true first (its deadline passed)."""
        async with self._asking.turn(client):
            while not give_up():
                self._freed.clear()
                try:
                    if await self._slots.take(operation_id):
                        return True
                except InitiatorError as error:
                    log.warning(
                        "lane.slot_unavailable", op=self.operation.value, code=error.code.value, reason=error.reason
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SLOT_POLL_S):
                        await self._freed.wait()
        return False

    async def current_holder(self) -> str | None:
        """The id that took the newest slot of this lane over all replicas."""
        return await self._slots.newest()

    async def free_left_behind(self, before: float, has_ended: Callable[[str], Awaitable[bool]]) -> None:
        """Free the slots taken before a moment (Unix seconds) whose operations have ended."""
        async for slot in self._slots.taken():
            if slot.taken_at < before and await has_ended(slot.operation_id):
                await self._slots.free_exactly(slot)
                self._metrics.slots_recovered.labels(self.operation).inc()
                log.warning("lane.slot_recovered", op=self.operation.value, id=slot.operation_id)
                self._freed.set()

    async def free_slot(self, operation_id: str) -> None:
        """Free the slot of an id; a failure is logged and left to whoever settles the request."""
        try:
            await self._slots.free(operation_id)
        except InitiatorError as error:
            log.warning("lane.slot_not_freed", op=self.operation.value, id=operation_id, code=error.code.value)
        self._freed.set()
