"""A circuit breaker: after some failures in a row a back end is left alone, and then tried by one call at a time."""

from __future__ import annotations

FAILURES = 3
OPEN_S, OPEN_MAX_S = 5.0, 60.0


class Breaker:
    """Closed, it lets everything through; open, nothing until a probe is due; then one probe.

    All times are of one monotonic clock, in seconds, and are passed in.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._open_s = 0.0
        self._probe_at = 0.0
        self._probing = False

    @property
    def closed(self) -> bool:
        return self._open_s == 0.0

    @property
    def probe_at(self) -> float:
        """When the next probe is due; only of use while open."""
        return self._probe_at

    def admits(self, now: float) -> bool:
        """Whether a call may be made now; a probe must be followed by `succeeded`, `failed` or `left`."""
        if self.closed:
            return True
        if self._probing or now < self._probe_at:
            return False
        self._probing = True
        return True

    def succeeded(self) -> bool:
        """Close; returns whether it was open."""
        was_open = not self.closed
        self._failures, self._open_s, self._probing = 0, 0.0, False
        return was_open

    def failed(self, now: float, *, at_once: bool = False) -> bool:
        """Count a failure; returns whether it opened by it. `at_once`: one is enough."""
        self._failures += 1
        was_closed, self._probing = self.closed, False
        if was_closed and not at_once and self._failures < FAILURES:
            return False
        self._open_s = min(max(OPEN_S, 2 * self._open_s), OPEN_MAX_S)
        self._probe_at = now + self._open_s
        return was_closed

    def left(self) -> None:
        """The call ended without saying anything about the back end."""
        self._probing = False
