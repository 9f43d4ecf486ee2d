"""A circuit breaker: whoever keeps failing is left alone for a while, then tried by one.

Invariants:
- closed lets everybody through, open nobody; once its pause is over an open one lets exactly one call through, the
  probe, and nobody else until that call has ended;
- pauses double from the first to the longest, each shortened at random, so that replicas do not probe in step;
- the end of a call counts only where nothing has changed since it began: stragglers from before neither close nor
  lengthen anything.

Pure but for the clock and the chance that are passed in.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

PROBE_POLL_S = 0.05


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """One breaker.

    Args:
        failures: how many in a row open it.
        pause_s: the first pause.
        pause_max_s: the longest one.
        now: monotonic seconds.
        chance: uniform in [0, 1).
    """

    def __init__(
        self,
        *,
        failures: int,
        pause_s: float,
        pause_max_s: float,
        now: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._limit = failures
        self._first_s, self._longest_s = pause_s, pause_max_s
        self._now, self._chance = now, chance
        self._state = BreakerState.CLOSED
        self._failed = 0
        self._pause_s = pause_s
        self._due = 0.0
        self._generation = 0

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def admits(self) -> bool:
        """Whether `admit` would let a call through now."""
        return self._state is BreakerState.CLOSED or (self._state is BreakerState.OPEN and self._now() >= self._due)

    @property
    def wait_s(self) -> float:
        """Seconds until a call may be let through."""
        if self._state is BreakerState.OPEN:
            return max(0.0, self._due - self._now())
        return PROBE_POLL_S if self._state is BreakerState.HALF_OPEN else 0.0

    def admit(self) -> int | None:
        """Let a call through, or not (None). Whoever got a ticket must tell how the call ended."""
        if not self.admits:
            return None
        if self._state is BreakerState.OPEN:
            self._move(BreakerState.HALF_OPEN)
        return self._generation

    def succeeded(self, ticket: int) -> None:
        """The call was answered."""
        if ticket != self._generation:
            return
        self._failed = 0
        if self._state is BreakerState.HALF_OPEN:
            self._move(BreakerState.CLOSED)
            self._pause_s = self._first_s

    def failed(self, ticket: int, *, at_once: bool = False) -> None:
        """The call was not answered.

        Args:
            at_once: open now, whatever the count.
        """
        if ticket != self._generation:
            return
        self._failed += 1
        if self._state is BreakerState.HALF_OPEN or at_once or self._failed >= self._limit:
            self._due = self._now() + self._pause_s * (0.5 + self._chance() / 2)
            self._pause_s = min(2 * self._pause_s, self._longest_s)
            self._move(BreakerState.OPEN)

    def forget(self, ticket: int) -> None:
        """The call ended without saying anything about the other side; the next one may be the probe."""
        if ticket == self._generation and self._state is BreakerState.HALF_OPEN:
            self._move(BreakerState.OPEN)

    def _move(self, state: BreakerState) -> None:
        self._state = state
        self._failed = 0
        self._generation += 1
