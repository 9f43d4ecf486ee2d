"""Standing pulls through restarts, deleted durables and a taker that is full."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from initiator.bus import pull as pull_module
from initiator.bus import queues, streams
from initiator.bus.connection import Connection, Message
from initiator.bus.jetstream import JetStream
from initiator.bus.pull import Delivery, Pull, parse_delivery
from initiator.config.schema import NatsSettings, Settings
from initiator.core import subjects
from initiator.core.model import Operation
from tests.support.nats_restart import RestartableServer, restartable_server

SETTINGS = Settings.model_validate({"clients": {"alice": {}}, "worker": {"ack_wait_s": 1.0, "heartbeat_s": 0.3}})
SUBJECT = "initiator.request.alice.sign"
STREAM = subjects.requests_stream("alice")
FORM = queues.durable_form(SETTINGS, "alice", Operation.SIGN)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RestartableServer]:
    async with restartable_server(tmp_path) as running:
        yield running


class Taker:
    """Takes deliveries up to a room and acks them."""

    def __init__(self, js: JetStream, room: int = 100) -> None:
        self.js = js
        self.room = room
        self.taken: list[Delivery] = []
        self.ensured = 0
        self.stumbles = False
        self.pull = Pull(
            js, STREAM, FORM["durable_name"],
            want=self._want, on_delivery=self.taken.append, ensure=self._ensure,
        )  # fmt: skip

    def _want(self) -> int:
        if self.stumbles:
            self.stumbles = False
            raise ZeroDivisionError
        return self.room - len(self.taken)

    async def _ensure(self) -> None:
        self.ensured += 1
        await streams.ensure_durable(self.js, STREAM, FORM)

    async def until(self, count: int, timeout_s: float = 15.0) -> None:
        async with asyncio.timeout(timeout_s):
            while len({delivery.sequence for delivery in self.taken}) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def taker(server: RestartableServer) -> AsyncIterator[Taker]:
    connection = Connection(NatsSettings(servers=(server.url,)), "test")
    await connection.open()
    js = JetStream(connection)
    await streams.ensure_own(js, SETTINGS)
    await queues.ensure(js, SETTINGS)
    found = Taker(js)
    running = asyncio.create_task(found.pull.run())
    yield found
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await connection.close()


async def test_messages_come_as_soon_as_they_are_stored(taker: Taker) -> None:
    for number in range(1, 4):
        await taker.js.publish(SUBJECT, str(number).encode())
        await taker.until(number, timeout_s=1)
    assert [(d.sequence, d.delivered, d.message.data) for d in taker.taken] == [
        (n, 1, str(n).encode()) for n in (1, 2, 3)
    ]
    assert taker.ensured == 1


async def test_no_more_is_asked_for_than_there_is_room(taker: Taker) -> None:
    taker.room = 5
    for _ in range(150):
        await taker.js.publish(SUBJECT, b"x")
    await asyncio.sleep(0.3)
    assert len(taker.taken) <= 100  # what the first request asked for
    before = len(taker.taken)
    taker.room = before + 3
    taker.pull.wake()
    await taker.until(before + 3)
    await asyncio.sleep(0.2)
    assert len({delivery.sequence for delivery in taker.taken}) == before + 3


async def test_an_error_that_nobody_foresaw_does_not_end_the_pull(taker: Taker) -> None:
    await taker.js.publish(SUBJECT, b"1")
    await taker.until(1)
    with capture_logs() as logs:
        taker.stumbles = True
        await taker.js.publish(SUBJECT, b"2")  # then it asks for more
        await taker.js.publish(SUBJECT, b"3")
        taker.pull.wake()
        await taker.until(3)
        taker.pull._start_over()
        async with asyncio.timeout(5):
            while taker.stumbles:
                await asyncio.sleep(0.01)
    assert [line["error_type"] for line in logs if line["event"] == "pull.failed"] == ["ZeroDivisionError"]
    await taker.js.publish(SUBJECT, b"4")
    await taker.until(4)


async def test_a_deleted_durable_is_made_again_and_nothing_is_lost(taker: Taker) -> None:
    await taker.js.publish(SUBJECT, b"1")
    await taker.until(1)
    await taker.js.connection.publish(taker.taken[0].message.reply, b"+ACK")
    await taker.js.api(f"CONSUMER.DELETE.{STREAM}.{FORM['durable_name']}")
    await taker.js.publish(SUBJECT, b"2")
    await taker.until(2)
    assert taker.ensured >= 2


async def test_a_killed_server_comes_back_and_the_pull_goes_on(taker: Taker, server: RestartableServer) -> None:
    await taker.js.publish(SUBJECT, b"1")
    await taker.until(1)
    await server.kill()
    await server.start()
    async with asyncio.timeout(10):
        while not taker.js.connection.connected:
            await asyncio.sleep(0.02)
    await taker.js.publish(SUBJECT, b"2")
    await taker.until(2)


async def test_what_is_not_acked_comes_again_with_its_count(taker: Taker) -> None:
    await taker.js.publish(SUBJECT, b"1")
    async with asyncio.timeout(10):
        while len(taker.taken) < 2:
            await asyncio.sleep(0.02)
    assert [(delivery.sequence, delivery.delivered) for delivery in taker.taken[:2]] == [(1, 1), (1, 2)]


async def test_a_silent_server_is_noticed_by_its_missing_heartbeats(
    taker: Taker, server: RestartableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is gone and nobody says so: after two missed heartbeats and a half it is sent again."""
    monkeypatch.setattr(pull_module, "IDLE_HEARTBEAT_S", 0.2)
    taker.room = 1
    await taker.js.publish(SUBJECT, b"1")
    await taker.until(1)
    taker.room = 10
    taker.pull.wake()
    await asyncio.sleep(0.1)
    taker.pull._round += 1000  # answers of the standing request are no longer ours
    await asyncio.sleep(0.7)
    await taker.js.publish(SUBJECT, b"2")
    await taker.until(2)


async def test_what_a_slow_consumer_dropped_comes_again(
    server: RestartableServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client library drops what it has no room for, and the server counts it as delivered."""
    connection = Connection(NatsSettings(servers=(server.url,)), "test")
    with capture_logs() as logs:
        await connection.open()
        js = JetStream(connection)
        await streams.ensure_own(js, SETTINGS)
        await queues.ensure(js, SETTINGS)
        for number in range(8):
            await js.publish(SUBJECT, str(number).encode())
        narrow = functools.partial(connection.client.subscribe, pending_msgs_limit=2)
        monkeypatch.setattr(connection.client, "subscribe", narrow)
        slow = Taker(js)
        running = asyncio.create_task(slow.pull.run())
        acked = 0
        async with asyncio.timeout(20):
            while len({delivery.sequence for delivery in slow.taken}) < 8:
                await asyncio.sleep(0.01)
                for delivery in slow.taken[acked:]:
                    await connection.publish(delivery.message.reply, b"+ACK")
                    acked += 1
        running.cancel()
        await asyncio.wait({running})
        await connection.close()
    assert {delivery.message.data for delivery in slow.taken} == {str(number).encode() for number in range(8)}
    assert max(delivery.delivered for delivery in slow.taken) > 1
    assert any("slow consumer" in line.get("reason", "") for line in logs)


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.INITIATOR_REQUESTS_alice.alice_sign.3.41.40.1700000000500000000.0",
        "$JS.ACK.hub.ACCHASH.INITIATOR_REQUESTS.alice_sign.3.41.40.1700000000500000000.0",
        "$JS.ACK.hub.ACCHASH.INITIATOR_REQUESTS.alice_sign.3.41.40.1700000000500000000.0.token",
    ],
)
def test_both_forms_of_an_ack_subject_are_read(reply: str) -> None:
    delivery = parse_delivery(Message("s", reply, b"", {}))
    assert (delivery.sequence, delivery.delivered, delivery.stored_at) == (41, 3, 1700000000.5)
