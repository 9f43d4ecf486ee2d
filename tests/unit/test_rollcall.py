"""When a roll call is over, by who has answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import cast

from initiator.bus.connection import Message
from initiator.bus.errors import unknown_outcome
from initiator.bus.jetstream import JetStream, Stored
from initiator.core import subjects
from initiator.rollcall import ANSWER_S, LEASE_S, MARGIN_S, Heard, RollCall

Handler = Callable[[Message], Awaitable[None]]


class Town:
    """Replicas on the roll, and those that answer."""

    def __init__(self, on_roll: list[str] | None, confirm: dict[str, float], there: dict[str, str]) -> None:
        self.on_roll, self.confirm, self.there = on_roll, confirm, there
        self.connection = self
        self._handler: Handler | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def new_inbox(self) -> str:
        return "inbox"

    async def subscribe(self, subject: str, handler: Handler) -> Town:
        assert subject == "inbox"
        self._handler = handler
        return self

    async def unsubscribe(self) -> None:
        return

    async def publish(self, subject: str, data: bytes, reply: str) -> None:
        assert reply == "inbox"
        if subject == subjects.ROLLCALL:
            sequence = json.loads(data)["sequence"]
            for name, after_s in self.confirm.items():
                self._later(after_s, {"id": name, "version": "2", "confirmed": sequence})
        else:
            assert subject == subjects.HEALTH
            for name, version in self.there.items():
                self._later(0.1, {"id": name, "version": version, "ready": True})

    def _later(self, after_s: float, said: dict[str, object]) -> None:
        async def say() -> None:
            await asyncio.sleep(after_s)
            assert self._handler
            await self._handler(Message("inbox", "", json.dumps(said).encode(), {}))

        self._tasks.append(asyncio.create_task(say()))

    async def next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        if self.on_roll is None:
            raise unknown_outcome("away")
        left = self.on_roll[sequence - 1 :]
        return Stored(subjects.replica(left[0]), sequence, b"", {}, 0.0) if left else None


async def called(on_roll: list[str] | None, confirm: dict[str, float], there: dict[str, str]) -> Heard:
    return await RollCall(cast("JetStream", Town(on_roll, confirm, there))).call(7)


async def test_it_ends_when_all_have_confirmed_and_older_ones_had_their_time() -> None:
    heard = await called(["a", "b"], {"a": 0.0, "b": 0.1}, {"a": "2", "b": "2"})
    assert (heard.confirmed, heard.waited_out, heard.unaware) == (["a", "b"], [], {})
    assert ANSWER_S <= heard.seconds < LEASE_S


async def test_who_does_not_confirm_is_waited_out() -> None:
    heard = await called(["a", "b"], {"a": 0.0}, {"a": "2", "b": "2"})
    assert (heard.confirmed, heard.waited_out) == (["a"], ["b"])
    assert heard.seconds >= LEASE_S + MARGIN_S


async def test_the_longest_lease_is_waited_out_where_the_roll_cannot_be_read() -> None:
    heard = await called(None, {"a": 0.0}, {"a": "2"})
    assert heard.confirmed == ["a"]
    assert heard.seconds >= LEASE_S + MARGIN_S


async def test_a_replica_that_knows_of_no_orders_is_named() -> None:
    heard = await called(["a"], {"a": 0.0}, {"a": "2", "old": "0.1"})
    assert heard.unaware == {"old": "0.1"}


async def test_one_that_has_come_since_counts_as_soon_as_it_confirms() -> None:
    heard = await called(["a"], {"a": 0.0, "new": 0.2}, {"a": "2", "new": "2"})
    assert (heard.confirmed, heard.unaware) == (["a", "new"], {})
