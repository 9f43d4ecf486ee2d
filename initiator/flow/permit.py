"""Leave for each call to the signer: a lease, no freeze of all, and a place before the stop line.

Invariant: a call is spent before it is made, and never given back; so at most as many are made as the line allows,
over all replicas, however they die.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable

from initiator.bus.jetstream import JetStream
from initiator.core.orders import Line
from initiator.core.signer import HeldBackError
from initiator.errors import Code, InitiatorError
from initiator.flow.lease import RENEW_S, Lease
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.stopline import Counter, Spent

log = get_logger()
MOST_AT_ONCE = 64
FAST_S = 1.0
"""A block that is used up sooner is followed by one of twice its size."""
Told = Callable[[Line], Awaitable[None]]


class CallPermit:
    """See `core.signer.Permit`; one in each replica.

    Args:
        tell: leaves the event that says that a line was reached; harmless to repeat.
    """

    def __init__(self, js: JetStream, lease: Lease, metrics: Metrics, tell: Told) -> None:
        self._lease = lease
        self._counter = Counter(js)
        self._metrics = metrics
        self._tell = tell
        self._taking = asyncio.Lock()
        self._line = ""  # whose counter the rest is about
        self._block = self._size = 0
        self._taken_at = 0.0
        self._spent: Spent | None = None
        self._problem: InitiatorError | None = None
        self._told: tuple[str, int] | None = None

    async def spend(self, deadline: float | None = None) -> None:
        """See `Permit.spend`."""
        if self._spend():
            return
        try:
            async with asyncio.timeout_at(deadline):
                while not self._spend():
                    await self._get_more()
        except TimeoutError:
            raise HeldBackError(Code.STOP_LINE, "no place before the stop line in time: NATS answers slowly") from None

    def _spend(self) -> bool:
        """Spend one call of the block at hand, if there is a line; False: there is none left in it."""
        if not self._lease.held:
            problem = self._lease.problem
            raise HeldBackError(problem.code, f"no lease: {problem.reason}", hint=problem.hint)
        orders = self._lease.orders
        if freeze := orders.freeze_of(None, None):
            raise HeldBackError(Code.FROZEN, str(freeze), delay_s=0.0)
        line = orders.line
        if line is None:
            return True
        self._look_at(line)
        if not self._block:
            return False
        self._block -= 1
        return True

    async def _get_more(self) -> None:
        """The next block; or one that somebody else got while we waited."""
        async with self._taking:
            line = self._lease.orders.line
            if line is not None and self._line == line.id and not self._block:
                await self._take(line)

    def _look_at(self, line: Line) -> None:
        if self._line != line.id:  # what was spent for another line counts for that one alone
            self._line, self._block, self._size, self._spent, self._problem = line.id, 0, 0, None, None

    async def _take(self, line: Line) -> None:
        now = asyncio.get_running_loop().time()
        size = min(MOST_AT_ONCE, 2 * self._size) if self._size and now - self._taken_at < FAST_S else 1
        try:
            got, spent = await self._counter.take(line, size)
        except InitiatorError as error:
            self._problem = error
            raise HeldBackError(error.code, f"the stop line: {error.reason}", hint=error.hint) from error
        self._spent, self._problem = spent, None
        if not got:
            raise HeldBackError(Code.STOP_LINE, self.reason, delay_s=0.0)
        if self._line == line.id:
            self._block, self._size, self._taken_at = got, got, now

    @property
    def reached(self) -> bool:
        """Whether the line is known to leave nothing, or nobody knows what was spent."""
        line = self._lease.orders.line
        if line is None or self._line != line.id or self._block:
            return False
        lost = self._problem is not None and self._problem.code is Code.STOP_LINE
        return lost or (self._spent is not None and self._spent.calls >= line.limit)

    @property
    def reason(self) -> str:
        """Why, in words."""
        line = self._lease.orders.line
        if line is None:
            return ""
        if self._problem is not None:
            return f"the stop line: {self._problem.reason}"
        return f"the stop line of {line.limit} calls is reached, set by {line.by}: {line.reason}"

    async def run(self) -> None:
        """Look how much is left until cancelled, and say so."""
        while True:
            await self.look()
            await asyncio.sleep(RENEW_S)

    async def look(self) -> None:
        """See how much is left."""
        line = self._lease.orders.line
        if line is None:
            self._metrics.stop_line_left.set(math.nan)
            self._lease.line_note = ""
            return
        self._look_at(line)
        seen, problem = await self._read(line)
        if self._line != line.id:
            return  # it was replaced meanwhile: the next look is at the other one
        was_reached = self.reached  # also for whoever found it so while the answer was under way
        self._spent, self._problem = seen, problem
        reached, spent = self.reached, self._spent
        if spent is not None:
            self._metrics.stop_line_left.set(max(0, line.limit - spent.calls))
            self._lease.line_note = f"stop line: {max(0, line.limit - spent.calls)} of {line.limit} calls left"
        if reached:
            self._lease.line_note = self.reason
            await self._say_reached(line)
        elif was_reached:
            self._lease.wake()

    async def _read(self, line: Line) -> tuple[Spent | None, InitiatorError | None]:
        try:
            return await self._counter.read(line.id), None
        except InitiatorError as error:
            return self._spent, error

    async def _say_reached(self, line: Line) -> None:
        if self._told == (line.id, line.limit):
            return
        log.error("stopline.reached", code=Code.STOP_LINE.value, limit=line.limit, reason=self.reason)
        with contextlib.suppress(InitiatorError):
            await self._tell(line)
            self._told = (line.id, line.limit)
