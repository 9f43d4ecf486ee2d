"""So many a second for each client, and about as many at once."""

from __future__ import annotations

from collections.abc import Callable

BURST_S = 1.0
_MOST_CLIENTS = 1024


class Pace:
    """Spaces what clients ask for; each by itself.

    Args:
        per_s: for each client, in the long run.
        now: a clock, in seconds.
    """

    def __init__(self, per_s: float, now: Callable[[], float]) -> None:
        self._gap_s = 1.0 / per_s
        self._now = now
        self._until: dict[str, float] = {}  # by client: until when places are taken

    def wait_s(self, client: str) -> float:
        """In how many seconds the client's next place is due."""
        now = self._now()
        return max(0.0, self._until.get(client, now) - BURST_S - now)

    def take(self, client: str) -> float:
        """Take the client's next place; returns in how many seconds it is due."""
        wait_s, now = self.wait_s(client), self._now()
        self._take(client, max(self._until.get(client, now), now), now)
        return wait_s

    def take_if_due(self, client: str) -> bool:
        """Take the client's next place if it is due now."""
        due = self.wait_s(client) <= 0
        if due:
            self.take(client)
        return due

    def _take(self, client: str, until: float, now: float) -> None:
        if client not in self._until and len(self._until) >= _MOST_CLIENTS:
            self._until = {name: at for name, at in self._until.items() if at > now}
        self._until[client] = until + self._gap_s
