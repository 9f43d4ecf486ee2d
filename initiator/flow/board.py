"""The notice board of one replica: wakes those who wait for an operation to move.

A notice is only a hint: whoever is woken reads the record. So a forged or lost notice costs a read, never a
wrong decision.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from initiator.core.model import Operation

Key = tuple[Operation, str]


class Board:
    """Waiters by operation and id."""

    def __init__(self) -> None:
        self._waiters: defaultdict[Key, set[asyncio.Event]] = defaultdict(set)

    def poke(self, operation: Operation, operation_id: str) -> None:
        """Something about this operation may have changed."""
        for waiter in self._waiters.get((operation, operation_id), ()):
            waiter.set()

    def poke_all(self) -> None:
        """Anything may have changed (after a reconnect)."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.set()

    def watch(self, operation: Operation, operation_id: str) -> Watch:
        return Watch(self, (operation, operation_id))

    def _add(self, key: Key, waiter: asyncio.Event) -> None:
        self._waiters[key].add(waiter)

    def _remove(self, key: Key, waiter: asyncio.Event) -> None:
        waiters = self._waiters.get(key)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[key]


class Watch:
    """A subscription to notices of one operation; enter it before reading the record, so that none is missed."""

    def __init__(self, board: Board, key: Key) -> None:
        self._board = board
        self._key = key
        self._event = asyncio.Event()

    def __enter__(self) -> Watch:
        self._board._add(self._key, self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self._board._remove(self._key, self._event)

    async def wait(self, timeout_s: float) -> bool:
        """True if a notice came since the last call, False after `timeout_s` seconds without one."""
        try:
            async with asyncio.timeout(max(timeout_s, 0)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
