"""How far an exporter has come is said again and again, and what cannot be said is no harm to the log."""

from __future__ import annotations

from typing import Any, cast

from initiator.audit.progress import AGAIN_S, Progress
from initiator.bus.jetstream import JetStream, PubAck
from initiator.core import progress
from initiator.errors import Code, RetryError


class Stream:
    """Takes what is published, or not."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []
        self.away = False

    async def publish(self, subject: str, data: bytes, headers: Any = None) -> PubAck:
        if self.away:
            raise RetryError(Code.BUS_UNAVAILABLE, "away")
        self.said.append((subject, progress.decode(data)))
        return PubAck("INITIATOR_EXPORTED", len(self.said), False)


async def test_it_is_said_when_it_is_news_after_a_while_and_after_a_failure() -> None:
    stream, now = Stream(), 0.0
    told = Progress(cast("JetStream", stream), "max", lambda: now)
    for sequence in (5, 5, 6):
        await told.tell(sequence)
    assert stream.said == [("initiator.exported.max", 5), ("initiator.exported.max", 6)]
    now = AGAIN_S
    await told.tell(6)  # the stream may have been lost
    assert len(stream.said) == 3
    stream.away = True
    await told.tell(7)
    stream.away = False
    await told.tell(7)
    assert stream.said[-1][1] == 7
