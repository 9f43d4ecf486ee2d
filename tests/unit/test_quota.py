"""The shared limit's arithmetic, and one replica's waiters on a message that others move, too."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from initiator.bus.errors import SequenceConflictError
from initiator.bus.jetstream import EXPECTED_SEQUENCE, JetStream, PubAck, Stored
from initiator.errors import Code, RetryError
from initiator.quota import AHEAD_S, Rate, SharedLimiter


class Message:
    """The one message, with the server's compare-and-set."""

    def __init__(self, until: object = None) -> None:
        self.sequence = 0
        self.data = b""
        self.writes = 0
        self.trouble: list[RetryError] = []
        if until is not None:
            self.say(until)

    def say(self, until: object) -> None:
        self.sequence += 1
        self.data = json.dumps({"until": until}).encode()

    @property
    def until(self) -> float:
        return float(json.loads(self.data)["until"])

    async def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> PubAck:
        assert subject == "initiator.limit.signatures"
        await asyncio.sleep(0)
        if self.trouble and not self.trouble[0].maybe_done:
            raise self.trouble.pop(0)
        if headers[EXPECTED_SEQUENCE] != str(self.sequence):
            raise SequenceConflictError
        self.sequence += 1
        self.data = data
        self.writes += 1
        if self.trouble:
            raise self.trouble.pop(0)
        return PubAck("INITIATOR_LIMITS", self.sequence, False)

    async def last(self, stream: str, subject: str) -> Stored | None:
        assert (stream, subject) == ("INITIATOR_LIMITS", "initiator.limit.signatures")
        return Stored(subject, self.sequence, self.data, {}, 0.0) if self.sequence else None


def limiter(message: Message, rate: float = 20.0, burst: int = 1, skew_s: float = 0.5) -> SharedLimiter:
    now = asyncio.get_running_loop().time  # Unix seconds and loop time are one here
    return SharedLimiter(cast("JetStream", message), rate, burst, skew_s, now)


def clock() -> float:
    return asyncio.get_running_loop().time()


@given(st.floats(0.5, 500), st.integers(1, 40), st.lists(st.floats(0, 0.5), min_size=1, max_size=80))
def test_no_span_holds_more_than_the_burst_and_its_share(rate: float, burst: int, gaps: list[float]) -> None:
    one, until, now, times = Rate(rate, burst), 0.0, 100.0, []
    for gap in gaps:
        now += gap
        due, until = one.place(until, now)
        assert due >= now
        times.append(due)
    assert times == sorted(times)
    for start in range(len(times)):
        for end in range(start, len(times)):
            assert end - start + 1 <= burst + rate * (times[end] - times[start]) + 1e-3


async def test_all_who_wait_are_served_by_one_write() -> None:
    message = Message()
    shared = limiter(message, rate=1000, burst=50)
    await asyncio.gather(*(shared.acquire() for _ in range(50)))
    assert message.writes == 1


async def test_two_replicas_share_one_rate() -> None:
    message = Message()
    began = clock()
    replicas = [limiter(message, rate=40, burst=2), limiter(message, rate=40, burst=2)]
    served: list[float] = []

    async def one(number: int) -> None:
        await replicas[number % 2].acquire()
        served.append(clock())

    await asyncio.gather(*map(one, range(30)))
    assert clock() - began >= 28 / 40
    assert clock() - began < 28 / 40 + 0.5
    served.sort()
    for index in range(len(served)):
        assert sum(t < served[index] + 0.5 for t in served[index:]) <= 2 + 40 * 0.5 + 1


async def test_first_come_first_served() -> None:
    shared, order = limiter(Message(), rate=100), []

    async def one(number: int) -> None:
        await shared.acquire()
        order.append(number)

    await asyncio.gather(*map(one, range(12)))
    assert order == list(range(12))


async def test_no_place_before_the_deadline_is_told_at_once_and_takes_nothing() -> None:
    message = Message()
    shared = limiter(message, rate=10)
    await shared.acquire()
    until, began = message.until, clock()
    waiting = asyncio.create_task(shared.acquire(began + 5))
    with pytest.raises(RetryError) as caught:
        await shared.acquire(began + 0.05)
    assert caught.value.code is Code.KMS_THROTTLED
    assert "shared limit of 10" in caught.value.reason
    assert caught.value.delay_s > 0
    assert clock() - began < 0.05
    await waiting
    assert message.until == pytest.approx(until + 0.1)


async def test_whoever_leaves_takes_nothing_from_the_others() -> None:
    message = Message(clock() + AHEAD_S + 0.2)  # nothing is within reach yet
    shared = limiter(message, rate=100)
    leaving, staying = asyncio.create_task(shared.acquire()), asyncio.create_task(shared.acquire())
    await asyncio.sleep(0.05)
    before = message.until
    leaving.cancel()
    await staying
    assert message.until == pytest.approx(before + 1 / 100)


async def test_a_clock_that_runs_ahead_is_told_and_not_believed() -> None:
    message = Message(clock() + 3600)
    shared = limiter(message, rate=20)
    with capture_logs() as logs:
        await asyncio.wait_for(shared.acquire(), 5)
    assert [line["event"] for line in logs].count("quota.clock_off") >= 1
    assert message.until < clock() + 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b'{"until": "x"}',
        b'{"until": NaN}',
        b'{"until": 1e999}',
        b'{"until": 1' + b"0" * 400 + b"}",
        b"[" * 100_000,
        b"\xff",
    ],
)
async def test_what_somebody_else_wrote_there_is_overwritten(text: bytes) -> None:
    message = Message(0)
    message.data = text
    await asyncio.wait_for(limiter(message).acquire(), 1)
    assert message.until > 0


async def test_nats_is_away_all_are_told_and_nothing_is_taken() -> None:
    message = Message(0)
    shared = limiter(message)
    message.trouble = [RetryError(Code.BUS_UNAVAILABLE, "away")]
    found = await asyncio.gather(*(shared.acquire() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, RetryError) and one.code is Code.BUS_UNAVAILABLE for one in found)
    assert message.writes == 0
    await asyncio.wait_for(shared.acquire(), 1)


async def test_an_unknown_outcome_is_looked_at_and_costs_at_most_its_places() -> None:
    message = Message(0)
    shared = limiter(message, rate=100)
    message.trouble = [RetryError(Code.BUS_UNAVAILABLE, "no answer", maybe_done=True)]
    began = clock()
    await asyncio.wait_for(shared.acquire(), 2)
    assert (message.writes, clock() - began < 0.5) == (2, True)


def test_nothing_of_a_limiter_is_left_running() -> None:
    async def use() -> set[Any]:
        shared = limiter(Message())
        await shared.acquire()
        await asyncio.sleep(0.05)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(use()) == set()


async def test_what_a_late_answer_held_up_does_not_go_at_once() -> None:
    message = Message()
    shared, publish, served = limiter(message, rate=20, burst=10), message.publish, []

    async def late(*args: Any) -> PubAck:
        ack = await publish(*args)
        if message.writes == 2:
            await asyncio.sleep(1.5)
        return ack

    message.publish = late  # type: ignore[method-assign, assignment]
    await shared.acquire()

    async def one() -> None:
        await shared.acquire()
        served.append(clock())

    await asyncio.gather(*(one() for _ in range(50)))
    for start, first in enumerate(served):
        for end, last in enumerate(served[start:], start):
            assert end - start + 1 <= 10 + 20 * (last - first) + 1.5  # and what a late wake-up adds


class Distant:
    """The message, as it is seen over a way that takes its time."""

    def __init__(self, message: Message, round_trip_s: float) -> None:
        self._message, self._half_s = message, round_trip_s / 2

    async def publish(self, *args: Any) -> PubAck:
        await asyncio.sleep(self._half_s)
        try:
            return await self._message.publish(*args)
        finally:
            await asyncio.sleep(self._half_s)

    async def last(self, *args: Any) -> Stored | None:
        await asyncio.sleep(self._half_s)
        found = await self._message.last(*args)
        await asyncio.sleep(self._half_s)
        return found


async def test_who_is_farther_from_nats_gets_a_share_too() -> None:
    message = Message()
    near, far = (limiter(cast("Message", Distant(message, round_trip_s)), rate=50) for round_trip_s in (0.002, 0.08))
    counts, end = {"near": 0, "far": 0}, clock() + 6

    async def caller(name: str, shared: SharedLimiter) -> None:
        while clock() < end:
            await shared.acquire()
            counts[name] += 1

    await asyncio.gather(*(caller("near", near) for _ in range(80)), *(caller("far", far) for _ in range(80)))
    assert counts["far"] >= 0.15 * sum(counts.values()), counts
    assert sum(counts.values()) >= 0.8 * 50 * 6


async def test_nats_that_answers_slowly_holds_nobody_beyond_its_deadline() -> None:
    shared, began = limiter(cast("Message", Distant(Message(), 1.5))), clock()
    with pytest.raises(RetryError) as refused:
        await shared.acquire(began + 0.2)
    assert refused.value.code is Code.KMS_THROTTLED
    assert clock() - began < 0.5
