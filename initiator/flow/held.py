"""Requests that this replica holds: delivered, not yet settled, kept alive by heartbeats.

Invariant: only `worker` settles; an ack follows the stored final event, never precedes it. Acks are hints to the
queue, not fences: a stale holder's ack succeeds too, so what protects is the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from initiator.bus.connection import Connection
from initiator.bus.pull import Delivery
from initiator.core.events import State
from initiator.core.lifecycle import progress
from initiator.core.model import Operation
from initiator.errors import InitiatorError
from initiator.record import Entry

ACK, NAK, PROGRESS = b"+ACK", b"-NAK", b"+WPI"


class Held:
    """One request in our hands.

    Attributes:
        client, operation: from its subject, which NATS guards.
        delivery: its latest delivery.
        begun: its turn came: it has left the waiting room, and the record may know it.
        taken_at: loop time at which it came into our hands.
        state: sequence of its operation's last event, as far as we know; 0: not on record.
        signed: signed bytes of it were on record, as far as we have seen.
        working: something is being done for it now; else it waits for its turn, or for others.
        redelivered: somebody, perhaps this replica before a restart, may have begun it already.
    """

    __slots__ = (
        "_progress", "begun", "client", "delivery", "operation", "redelivered", "signed", "state", "taken_at",
        "working",
    )  # fmt: skip

    def __init__(self, client: str, operation: Operation, delivery: Delivery) -> None:
        self.client = client
        self.operation = operation
        self.delivery = delivery
        self.redelivered = delivery.delivered > 1
        self.state = 0
        self.working = False
        self.taken_at = asyncio.get_running_loop().time()
        self.begun = False
        self.signed = False
        self._progress = (0, 0)

    def see(self, last: Entry | None) -> bool:
        """Take in what the record says of its operation; returns whether it has gone back.

        It said that there were signed bytes, or that they were on their way, and does not any more: it was lost or
        restored as of before, a server forgot its last events as it was killed, or one that leads no more has answered
        (then nothing can be written on the strength of it).
        """
        self.state = last.sequence if last else 0
        now = progress(last.event if last else None)
        gone_back = self.signed and now < self._progress
        self._progress = max(self._progress, now)
        self.signed |= last is not None and last.event.state not in (State.ACCEPTED, State.FAILED)
        return gone_back

    @property
    def sequence(self) -> int:
        """Its sequence in its client's queue."""
        return self.delivery.sequence

    @property
    def key(self) -> tuple[str, int]:
        return self.client, self.delivery.sequence

    @property
    def data(self) -> bytes:
        return self.delivery.message.data


class HeldRequests:
    """All held requests of this replica, by client and sequence in its queue."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: dict[tuple[str, int], Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    def take(self, client: str, operation: Operation, delivery: Delivery) -> Held | None:
        """Hold a delivered request; None if it is held already (then only its ack subject is renewed)."""
        held = Held(client, operation, delivery)
        present = self._held.setdefault(held.key, held)
        if present is held:
            return held
        present.delivery = delivery
        return None

    async def settle(self, held: Held) -> None:
        """Ack: its final event is stored. A lost ack only means one more look at the record."""
        self._held.pop(held.key, None)
        await self._send(held, ACK)

    def forget(self, held: Held) -> None:
        """Stop the heartbeats of a request that we cannot serve: it is delivered again after the ack wait."""
        self._held.pop(held.key, None)

    async def hand_back(self, held: Held) -> None:
        """Nak without delay: whoever is alive goes on from the record."""
        if self._held.pop(held.key, None) is not None:
            await self._send(held, NAK)

    async def heartbeat(self) -> None:
        """Tell the server that all of them are still being worked on."""
        for held in self:
            await self._send(held, PROGRESS)

    async def _send(self, held: Held, word: bytes) -> None:
        try:
            await self._connection.publish(held.delivery.message.reply, word)
        except InitiatorError:
            return  # disconnected: the server redelivers after the ack wait
