"""Weighted turns between clients: nobody waits behind another's backlog.

Stride scheduling: each client's next turn lies `1 / weight` after its last one; the client whose turn is nearest
goes first. A client that was idle joins at the present turn, so that it can neither save up turns nor lose any.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_REMEMBERED = 1024


class Turns(Generic[T]):
    """Items of several clients, handed out in weighted turns; first in, first out within a client.

    Args:
        weight_of: the weight of a client, at least 1.
    """

    def __init__(self, weight_of: Callable[[str], int]) -> None:
        self._weight_of = weight_of
        self._queues: dict[str, deque[T]] = {}
        self._turn: dict[str, float] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def waiting(self, client: str) -> int:
        """How many items of a client wait."""
        return len(self._queues.get(client, ()))

    def add(self, client: str, item: T) -> None:
        queue = self._queues.get(client)
        if queue is None:
            self._forget()
            queue = self._queues[client] = deque()
            self._turn[client] = max(self._now, self._turn.get(client, 0.0))
        queue.append(item)

    def _forget(self) -> None:
        """Clients whose last turn has passed join like new ones; so names that come once do not pile up."""
        if len(self._turn) > MOST_REMEMBERED:
            self._turn = {name: turn for name, turn in self._turn.items() if name in self._queues or turn > self._now}

    def pop(self) -> T | None:
        """The next item, or None if nobody waits."""
        if not self._queues:
            return None
        client = min(self._queues, key=lambda name: (self._turn[name], name))
        queue = self._queues[client]
        item = queue.popleft()
        self._now = self._turn[client]
        self._turn[client] += 1 / self._weight_of(client)
        if not queue:
            del self._queues[client]
        return item

    def drop_all(self) -> list[T]:
        """Everything that still waits, in no particular order; afterwards nobody does."""
        items = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        return items
