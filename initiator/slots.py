"""Slots: the cap on what is in flight at the nodes, exact over all replicas.

A slot is a message on the id's own subject in a stream that takes as many messages as there are slots and refuses
more. A takeover finds the slot of its id still taken, since the subject is the id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from initiator.bus.errors import SequenceConflictError, StreamFullError
from initiator.bus.jetstream import JetStream, guard
from initiator.core import subjects
from initiator.core.model import Operation


@dataclass(frozen=True, slots=True)
class Slot:
    """A taken slot.

    Attributes:
        taken_at: Unix seconds by the server's clock.
    """

    operation_id: str
    sequence: int
    taken_at: float


class Slots:
    """The slots of one lane; `cap` 0 means no cap."""

    def __init__(self, js: JetStream, operation: Operation, cap: int) -> None:
        self._js = js
        self._operation = operation
        self.cap = cap

    async def take(self, operation_id: str) -> bool:
        """Take the slot of an id, or find it taken for that id already; False if the lane is full.

        Raises:
            RetryError: no usable answer; the slot may be taken (taking or freeing it again is harmless).
        """
        if not self.cap:
            return True
        subject = subjects.slot(self._operation, operation_id)
        try:
            await self._js.publish(subject, b"", guard(subject, 0))
        except SequenceConflictError:
            return True
        except StreamFullError:
            # The server may look at the limit before the guard: ours may be among those that fill the lane.
            return await self._js.last(subjects.SLOTS_STREAMS[self._operation], subject) is not None
        return True

    async def free(self, operation_id: str) -> None:
        """Free the slot of an id; harmless if it has none.

        Raises:
            RetryError: no usable answer.
        """
        if self.cap:
            await self._js.purge(subjects.SLOTS_STREAMS[self._operation], subjects.slot(self._operation, operation_id))

    async def taken(self) -> AsyncIterator[Slot]:
        """All slots that are taken over all replicas, oldest first."""
        stream, filter_, sequence = subjects.SLOTS_STREAMS[self._operation], subjects.slot(self._operation, "*"), 1
        while self.cap and (stored := await self._js.next(stream, filter_, sequence)) is not None:
            yield Slot(stored.subject.rpartition(".")[2], stored.sequence, stored.time)
            sequence = stored.sequence + 1

    async def free_exactly(self, slot: Slot) -> None:
        """Free a slot as it was seen; the same id's next one stays taken."""
        subject = subjects.slot(self._operation, slot.operation_id)
        await self._js.purge(subjects.SLOTS_STREAMS[self._operation], subject, up_to=slot.sequence)

    async def newest(self) -> str | None:
        """The id that took the newest slot, if any is taken."""
        if not self.cap:
            return None
        stored = await self._js.last(subjects.SLOTS_STREAMS[self._operation], subjects.slot(self._operation, "*"))
        return stored.subject.rpartition(".")[2] if stored else None

    async def holders(self) -> int:
        """How many slots are taken over all replicas."""
        if not self.cap:
            return 0
        found = await self._js.api(f"STREAM.INFO.{subjects.SLOTS_STREAMS[self._operation]}")
        return int(found["state"]["messages"])
