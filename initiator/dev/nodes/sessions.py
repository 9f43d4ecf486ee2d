"""The signing sessions that one node remembers: the same wallet and transaction again is a duplicate.

The key joins both ids with a hyphen, as on the real nodes: `a` + `b-c` and `a-b` + `c` are one session.
"""

from __future__ import annotations

import time

from initiator.dev.nodes.config import Timing


class Sessions:
    """Forgets stale sessions only when it sweeps, so a duplicate is one for 30 to 35 minutes."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._begun: dict[str, float] = {}
        self._swept = time.monotonic()

    def begin(self, wallet_id: str, tx_id: str) -> bool:
        """Open a session; False if there is one."""
        self._sweep()
        name = f"{wallet_id}-{tx_id}"
        if name in self._begun:
            return False
        self._begun[name] = time.monotonic()
        return True

    def end(self, wallet_id: str, tx_id: str) -> None:
        """Forget a session; only keygens are ended, a signing session stays until it is stale."""
        self._begun.pop(f"{wallet_id}-{tx_id}", None)

    def _sweep(self) -> None:
        now = time.monotonic()
        if now - self._swept < self._timing.session_sweep_s:
            return
        self._swept = now
        limit = now - self._timing.session_timeout_s
        self._begun = {name: begun for name, begun in self._begun.items() if begun >= limit}
