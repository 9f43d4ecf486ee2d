"""This replica's leave to sign: it has read the orders a moment ago, so that no freeze can be in force that it missed.

Invariants:
- a read of the orders gives a lease of `LEASE_S` from the moment at which it was *begun*, by a clock that goes on while
  this process or its machine is suspended: whoever wakes finds its lease run out;
- no lease without a name on the roll (see `rollcall`), without an answer, or where the orders cannot be read;
- a lease does not outlive the connection that it was read over.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from functools import partial

from initiator.bus.jetstream import JetStream
from initiator.core.orders import Line, Orders
from initiator.errors import Code, HaltError, InitiatorError, RetryError
from initiator.health import Health
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.orders import OrderBook
from initiator.rollcall import LEASE_S, SIGNED_IN_S, Roll

log = get_logger()
PART = "orders"
RENEW_S = 0.5
READ_S = 1.0
SIGN_IN_EVERY_S = 5.0


# Seconds, those included in which this machine was suspended: on Linux; elsewhere as far as the system tells.
suspended_too = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """Reads the orders again and again, and tells whoever waits for other ones.

    Attributes:
        orders: as they were last read; they say what may be signed only while `held`.
        line_note: what is to be said of the stop line.

    Args:
        replica_id: this replica's name on the roll.
        now: seconds by a clock that no suspension stops.
    """

    def __init__(
        self,
        js: JetStream,
        replica_id: str,
        health: Health,
        metrics: Metrics,
        now: Callable[[], float] = suspended_too,
    ) -> None:
        self.replica_id = replica_id
        self.orders = Orders()
        self.line_note = ""
        self._book = OrderBook(js)
        self._roll = Roll(js)
        self._health = health
        self._metrics = metrics
        self._now = now
        self._until = self._signed_in_until = self._sign_in_at = 0.0
        self._reading = asyncio.Lock()
        self._problem: InitiatorError = RetryError(Code.BUS_UNAVAILABLE, "the orders were not read yet")
        self._told_problem: Code | None = None
        self._told_scopes: set[str] = set()
        self._told_line: Line | None = None
        self._changed: list[Callable[[], None]] = []
        self._returned = asyncio.Event()
        js.connection.on_return(self._on_return)

    @property
    def held(self) -> bool:
        """Whether this replica may sign what is not frozen."""
        return self._now() < self._until

    @property
    def problem(self) -> InitiatorError:
        """Why there is no lease, where there is none."""
        return self._problem

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the orders are others, and whenever a lease comes after there was none."""
        self._changed.append(listener)

    def drop(self) -> None:
        """Sign nothing until the orders were read again."""
        self._until = 0.0

    def _on_return(self) -> None:
        self.drop()  # whoever answered over the connection that was lost may have been another server
        self._returned.set()

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await self.renew()
            self.tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S):
                    await self._returned.wait()
            self._returned.clear()

    async def renew(self) -> bool:
        """Read the orders; returns whether there is a lease now."""
        async with self._reading:
            try:
                async with asyncio.timeout(READ_S):
                    await self._sign_in()
                    begun = self._now()
                    orders = await self._book.read()
            except TimeoutError:
                self._problem = RetryError(Code.BUS_UNAVAILABLE, f"the orders: no answer within {READ_S:g} s")
            except RetryError as error:
                self._problem = error
            except InitiatorError as error:
                # forgery: what cannot be read may be a freeze, so what was read before it counts no more
                self._problem = error
                self.drop()
            else:
                # lost wake-up: whoever found no lease while the answer was under way waits, too
                had, before = self.held, self.orders.sequence
                self._take(orders, begun)
                if self.held and not (had and orders.sequence == before):
                    self._tell_changed()
            return self.held

    def _take(self, orders: Orders, begun: float) -> None:
        if orders.older_than(self.orders):
            # rollback: a server that leads no more, or a record restored as of before a freeze that we know of
            reason = f"the orders went back: known are those of {self.orders.sequence}, got those of {orders.sequence}"
            hint = "was the record restored? order again what is lost (initiator freeze); then signing goes on"
            self._problem = HaltError(Code.RECORD_LOST, reason, hint=hint)
            return
        self.orders = orders
        self._until = min(begun + LEASE_S, self._signed_in_until)

    async def _sign_in(self) -> None:
        """Renew our name on the roll where it is time; the old one holds for a while if that fails."""
        begun = self._now()
        if begun < self._sign_in_at:
            return
        try:
            await self._roll.sign_in(self.replica_id)
        except InitiatorError as error:
            if begun >= self._signed_in_until:
                raise
            log.debug("orders.sign_in_failed", code=error.code.value, reason=error.reason)
        else:
            self._signed_in_until, self._sign_in_at = begun + SIGNED_IN_S, begun + SIGN_IN_EVERY_S

    async def leave(self) -> None:
        """Sign nothing any more, and say so: a freeze need not wait for this replica."""
        self._signed_in_until, self._sign_in_at = 0.0, math.inf
        self.drop()
        with contextlib.suppress(InitiatorError, TimeoutError):
            async with asyncio.timeout(READ_S), self._reading:
                self.drop()
                await self._roll.sign_out(self.replica_id)

    def _tell_changed(self) -> None:
        scopes = {str(freeze.scope) for freeze in self.orders.freezes}
        for freeze in self.orders.freezes:
            if str(freeze.scope) not in self._told_scopes:
                log.warning(
                    "orders.frozen", scope=str(freeze.scope), code=Code.FROZEN.value, by=freeze.by, reason=freeze.reason
                )
                self._metrics.order_changes.labels("frozen").inc()
        for scope in self._told_scopes - scopes:
            log.warning("orders.unfrozen", scope=scope, code=Code.FROZEN.value)
            self._metrics.order_changes.labels("unfrozen").inc()
            self._metrics.frozen.labels(scope).set(0)
        for scope in scopes:
            self._metrics.frozen.labels(scope).set(1)
        self._told_scopes = scopes
        self._tell_line()
        self.wake()

    def _tell_line(self) -> None:
        """A stop line that is drawn, moved or taken away: whoever may order it may let more be signed."""
        line, told = self.orders.line, self._told_line
        if line == told:
            return
        self._told_line = line
        self._metrics.order_changes.labels("stop line").inc()
        if line is None:
            log.warning("stopline.cleared", code=Code.STOP_LINE.value)
        else:
            log.warning("stopline.drawn", code=Code.STOP_LINE.value, limit=line.limit, by=line.by, reason=line.reason)

    def wake(self) -> None:
        """Let whoever is held back look again."""
        for listener in self._changed:
            listener()

    def tell(self) -> None:
        """Say how things stand: readiness is false without a lease, a freeze or a stop line is a note."""
        held = self.held
        self._metrics.lease.set(held)
        notes = [str(freeze) for freeze in self.orders.freezes] + [self.line_note]
        reason = f"no lease, so nothing is signed: {self._problem.reason}"
        self._health.set(PART, held, reason, self._problem.code, "; ".join(note for note in notes if note))
        told, self._told_problem = self._told_problem, None if held else self._problem.code
        if told == self._told_problem:
            return
        if held:
            log.info("orders.lease_back")
        else:
            log.error("orders.no_lease", code=self._problem.code.value, reason=reason, hint=self._problem.hint)
