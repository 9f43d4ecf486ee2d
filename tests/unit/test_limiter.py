"""The limit of this process, with hands that a test turns: what is let through, who waits, who is told at once."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.errors import Code, RetryError
from initiator.kms.limiter import TokenBucket, Unlimited, local_limiter


class Hands:
    """A clock that a sleep moves on, for one who asks at a time."""

    def __init__(self) -> None:
        self.time = 50.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def bucket(self, rate: float, burst: int) -> TokenBucket:
        return TokenBucket(rate, burst, now=lambda: self.time, sleep=self.sleep)


async def test_a_burst_goes_at_once_and_then_one_after_another() -> None:
    hands = Hands()
    bucket = hands.bucket(rate=10, burst=3)
    for _ in range(5):
        await bucket.acquire()
    assert hands.slept == pytest.approx([0.1, 0.1])
    hands.time += 60
    for _ in range(4):
        await bucket.acquire()
    assert len(hands.slept) == 3  # a quiet minute saves up one burst, not more


@given(
    st.floats(1, 50),
    st.integers(1, 5),
    st.lists(st.floats(0, 0.3), min_size=1, max_size=60),
)
async def test_no_span_holds_more_than_the_burst_and_its_share(rate: float, burst: int, gaps: list[float]) -> None:
    """Many who ask at once, each served at the time that it was told."""
    now, served = 0.0, []

    async def note(wait_s: float) -> None:
        served.append(now + wait_s)

    bucket = TokenBucket(rate, burst, now=lambda: now, sleep=note)
    for gap in gaps:
        now += gap
        before = len(served)
        await bucket.acquire()
        if len(served) == before:
            served.append(now)
    for first, last in itertools.combinations(range(len(served)), 2):
        assert last - first + 1 <= burst + rate * (served[last] - served[first]) + 1e-6


async def test_who_cannot_be_served_before_its_deadline_is_told_at_once_and_takes_nothing() -> None:
    hands = Hands()
    bucket = hands.bucket(rate=1, burst=1)
    await bucket.acquire(deadline=hands.time)  # a place is free: no wait, no refusal
    for _ in range(3):
        with pytest.raises(RetryError) as error:
            await bucket.acquire(deadline=hands.time + 0.5)
        assert (error.value.code, error.value.delay_s) == (Code.KMS_THROTTLED, 1.0)
        assert "limit of 1 signatures a second" in error.value.reason
        assert "signer.kms.max_signs_per_s" in (error.value.hint or "")
    assert hands.slept == []
    await bucket.acquire(deadline=hands.time + 2)
    assert hands.slept == [1.0]


async def test_who_leaves_while_waiting_makes_nobody_else_come_early() -> None:
    bucket = TokenBucket(20, 1)
    loop = asyncio.get_running_loop()
    await bucket.acquire()
    started = loop.time()
    leaving = asyncio.create_task(bucket.acquire())
    await asyncio.sleep(0)
    staying = asyncio.create_task(bucket.acquire())
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert loop.time() - started >= 0.09


async def test_no_rate_is_no_limit() -> None:
    assert isinstance(local_limiter(0, 10), Unlimited)
    assert isinstance(local_limiter(0.5, 10), TokenBucket)
    unlimited = Unlimited()
    async with asyncio.timeout(5):
        for _ in range(1000):
            await unlimited.acquire(deadline=0)
