"""One limit for all replicas together: our share of a quota, given out by one message in JetStream.

The message says until when places are taken (Unix seconds). Whoever needs places moves that time on by
compare-and-set, at once for all who wait here, so that a busy replica does not ask for each call.

Invariants:
- in any span of t seconds at most `burst + rate * t` calls are let through over all replicas, as far as their clocks
  agree; a clock that is off by s lets `rate * s` more through, once; one that is off by more than the margin (half a
  second at most) is told, and its replica and the others then keep the rate each for itself;
- no replica alone lets more through than that, however late NATS answers it;
- first come, first served within a replica; whoever cannot be served before its deadline is told and takes nothing;
- places are taken at most a second ahead, so that nobody books the future for those that may never come, and a clock
  that runs ahead is noticed instead of believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from initiator.bus.errors import NotFoundError, SequenceConflictError
from initiator.bus.jetstream import JetStream, guard
from initiator.core import subjects
from initiator.errors import Code, InitiatorError, RetryError
from initiator.log import get_logger

log = get_logger()
AHEAD_S = 1.0
AGAIN_S = 0.1
"""Where places are this far away there is no hurry to take them: whoever comes within half of it is served as well."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate with a burst, by the generic cell rate algorithm."""

    per_s: float
    burst: int

    def place(self, until: float, now: float) -> tuple[float, float]:
        """When the next call may be made, and until when places are taken then."""
        until = max(until, now)
        return max(now, until - (self.burst - 1) / self.per_s), until + 1 / self.per_s

    def latest(self, now: float) -> float:
        """The latest `until` that a clock which agrees with ours can have left behind."""
        return now + AHEAD_S + self.burst / self.per_s


@dataclass(slots=True)
class _Waiter:
    deadline: float | None
    served: asyncio.Future[float] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class _Place:
    waiter: _Waiter
    due: float


class SharedLimiter:
    """See `core.signer.Limiter`; one in each replica.

    Args:
        rate: calls a second in the long run, of all replicas together.
        burst: calls that may go at once after a quiet while.
        clock_skew_s: how far clocks may differ before one is taken for wrong.
        now: Unix seconds.
        make: makes the stream, should it be missing.
    """

    def __init__(
        self,
        js: JetStream,
        rate: float,
        burst: int,
        clock_skew_s: float,
        now: Callable[[], float] = time.time,
        make: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._js = js
        self._make = make
        self._rate = Rate(rate, burst)
        # a clock that lags by more finds no place within reach while others are busy: it is told instead
        self._skew_s = min(clock_skew_s, AHEAD_S / 2)
        self._now = now
        self._waiting: deque[_Waiter] = deque()
        self._drawing: asyncio.Task[None] | None = None
        self._sequence, self._until = 0, 0.0  # the message, as it was last seen
        self._ours = 0.0  # what we last said
        self._let_until = 0.0  # until when places are taken by those that were let through here
        self._clock_off = False

    async def acquire(self, deadline: float | None = None) -> None:
        """Wait for a place; see `Limiter.acquire`.

        Raises:
            RetryError: `KMS_THROTTLED`: not before `deadline`; or NATS is away. Nothing was taken.
        """
        waiter = _Waiter(deadline)
        self._waiting.append(waiter)
        if self._drawing is None:
            self._drawing = asyncio.create_task(self._draw())
        try:
            async with asyncio.timeout_at(deadline):
                due = await waiter.served
        except TimeoutError:
            reason = "no place under the shared limit before the deadline: NATS answers slowly"
            raise RetryError(Code.KMS_THROTTLED, reason, delay_s=1.0) from None
        await asyncio.sleep(max(0.0, due - self._now()))

    async def _draw(self) -> None:
        """Take places until nobody waits."""
        gathered = False
        try:
            while self._waiting:
                now = self._now()
                served, until = self._choose(now)
                ahead_s = served[0].due - now if served else AHEAD_S
                if not served or (ahead_s > AGAIN_S and not gathered):
                    # no hurry: more may come, whom the same write serves; and whoever is farther from NATS gets a turn
                    gathered = True
                    await asyncio.sleep(ahead_s / 2 * random.uniform(0.5, 1))  # noqa: S311 - no secret
                    continue
                try:
                    gathered = not await self._move(until)
                except InitiatorError as error:
                    self._refuse_all(RetryError(Code.BUS_UNAVAILABLE, f"the shared limit: {error.reason}"))
                    continue
                if not gathered:
                    self._serve(served)
        finally:
            self._drawing = None
            # nobody, but for a bug: then they hear of it instead of waiting for ever
            self._refuse_all(RetryError(Code.KMS_THROTTLED, "the shared limit gives no places"))

    def _choose(self, now: float) -> tuple[list[_Place], float]:
        """The places within reach for those who wait, and until when places are taken then."""
        until, places = self._plausible(now), []
        for waiter in tuple(self._waiting):
            due, after = self._rate.place(until, now)
            if self._leaves(waiter, due - now):
                self._waiting.remove(waiter)
            elif due <= now + AHEAD_S:
                places.append(_Place(waiter, due))
                until = after
        return places, until

    def _serve(self, places: list[_Place]) -> None:
        now = self._now()
        for place in places:
            self._waiting.remove(place.waiter)
            if not place.waiter.served.done():  # else it left meanwhile, and its place stays empty
                # where the answer came late, what it held up must not go at once
                due, self._let_until = self._rate.place(self._let_until, max(place.due, now))
                place.waiter.served.set_result(due)

    def _leaves(self, waiter: _Waiter, wait_s: float) -> bool:
        """Whether it is gone, or goes now since it would be served too late."""
        if waiter.served.done():
            return True
        if waiter.deadline is None or asyncio.get_running_loop().time() + wait_s < waiter.deadline:
            return False
        reason = f"the shared limit of {self._rate.per_s:g} signatures a second leaves no place before the deadline"
        hint = "raise signer.kms.max_signs_per_s, if the account's quota allows"
        waiter.served.set_exception(RetryError(Code.KMS_THROTTLED, reason, hint=hint, delay_s=wait_s))
        return True

    def _plausible(self, now: float) -> float:
        """Until when places are taken; where a wrong clock said so, what we said ourselves counts."""
        ahead_s = self._until - self._rate.latest(now)
        was_off, self._clock_off = self._clock_off, ahead_s > self._skew_s
        if not self._clock_off:
            return self._until
        if not was_off:
            log.warning("quota.clock_off", ahead_s=round(ahead_s, 3))
        return min(self._ours, now + AHEAD_S)

    async def _move(self, until: float) -> bool:
        """Say until when places are taken now; False if somebody else did, or nobody knows: then look again."""
        subject = subjects.LIMIT
        body = json.dumps({"until": until}).encode()
        try:
            ack = await self._js.publish(subject, body, guard(subject, self._sequence))
        except SequenceConflictError:
            await self._look()
            return False
        except RetryError as error:
            if not error.maybe_done:
                raise
            await self._look()
            return False
        self._sequence, self._until = ack.sequence, until
        self._ours = until
        return True

    async def _look(self) -> None:
        try:
            stored = await self._js.last(subjects.LIMITS_STREAM, subjects.LIMIT)
        except NotFoundError:
            if self._make is None:
                raise
            await self._make()
            stored = None
        self._sequence = stored.sequence if stored else 0
        self._until = read_until(stored.data) if stored else 0.0

    def _refuse_all(self, error: InitiatorError) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.served.done():
                waiter.served.set_exception(error)


def read_until(data: bytes) -> float:
    """The time in the message; 0 where somebody else wrote there."""
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
        until = float(json.loads(data)["until"])
        return until if math.isfinite(until) else 0.0
    return 0.0
