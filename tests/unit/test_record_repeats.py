"""A write whose answer was lost is tried again only if its writer still may."""

from __future__ import annotations

from typing import cast

import pytest

from initiator.bus.errors import unknown_outcome
from initiator.bus.jetstream import JetStream, PubAck
from initiator.core.events import Event, State
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, RetryError
from initiator.record import Record


class Deaf:
    """A server that stores nothing and says nothing, so many times."""

    def __init__(self, silences: int) -> None:
        self.silences = silences
        self.asked = 0

    async def publish(self, _subject: str, _data: bytes, _headers: dict[str, str]) -> PubAck:
        self.asked += 1
        if self.asked <= self.silences:
            raise unknown_outcome("no answer", delay_s=0.0)
        return PubAck("INITIATOR_EVENTS", 7, False)

    async def last(self, _stream: str, _subject: str) -> None:
        return None


EVENT = Event(
    operation=Operation.SIGN, operation_id="t", client="alice", state=State.SIGNED, attempt=1, time=0.0, request_seq=1,
    request_digest="d", expires_at=1.0, event_id="e", content_type=ContentType.MSGPACK,
)  # fmt: skip


async def test_it_is_tried_again_while_it_may_be() -> None:
    server, looks = Deaf(silences=2), 0

    def still() -> None:
        nonlocal looks
        looks += 1

    entry = await Record(cast("JetStream", server)).append(EVENT, None, still)
    assert (entry.sequence, server.asked, looks) == (7, 3, 2)


async def test_and_not_when_it_may_no_more() -> None:
    server = Deaf(silences=2)

    def still() -> None:
        raise RetryError(Code.FROZEN, "frozen meanwhile")

    with pytest.raises(RetryError) as stopped:
        await Record(cast("JetStream", server)).append(EVENT, None, still)
    assert (stopped.value.code, server.asked) == (Code.FROZEN, 1)
