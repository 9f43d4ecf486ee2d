"""Never a place too many over three replicas, on one server and on a cluster of three; what is left is put back."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time

import pytest

from initiator.allowances import Allowances, _Block, _key
from initiator.core import subjects
from initiator.core.policy.rules import Count
from initiator.errors import Code, InitiatorError, RejectError, RetryError
from tests.contract.conftest import Arena

pytestmark = pytest.mark.asyncio(loop_scope="module")
DAY = 86_400


def count(most: int, period_s: int = DAY) -> Count:
    return Count(f"l{secrets.token_hex(6)}", "c-alice", most, period_s)


def replicas(arena: Arena) -> list[Allowances]:
    return [Allowances(js, time.time) for js in arena.racers]


async def take_all(allowances: Allowances, of: Count, tries: int, at_once: int = 16) -> int:
    """How many of so many tries got a place."""
    got = 0
    left = tries

    async def taker() -> None:
        nonlocal got, left
        with contextlib.suppress(RejectError):
            while left > 0:
                left -= 1
                await allowances.take([of])
                got += 1

    await asyncio.gather(*(taker() for _ in range(at_once)))
    return got


@pytest.mark.parametrize("most", [1, 7, 150, 1000])
async def test_three_replicas_together_give_out_no_place_too_many(record_arena: Arena, most: int) -> None:
    of, three = count(most), replicas(record_arena)
    got = await asyncio.gather(*(take_all(one, of, most) for one in three))
    assert sum(got) <= most
    # what is unused lies in blocks of those that stopped asking
    assert sum(got) >= most - 3 * max(1, most // 100), got


async def test_what_is_left_over_is_put_back(record_arena: Arena) -> None:
    of, (first, second, _) = count(1000), replicas(record_arena)
    assert await take_all(first, of, 3, at_once=1) == 3
    await first.close()
    assert await take_all(second, of, 2000, at_once=4) == 997


async def test_a_crash_costs_its_block_and_never_gives_a_place_twice(record_arena: Arena) -> None:
    of, (first, second, _) = count(1000), replicas(record_arena)
    assert await take_all(first, of, 1, at_once=1) == 1  # and dies: nine of its block of ten are lost
    assert await take_all(second, of, 2000, at_once=4) == 990


async def test_what_is_given_back_is_used_by_the_next(record_arena: Arena) -> None:
    of, (first, *_) = count(1), replicas(record_arena)
    taken = await first.take([of])
    with pytest.raises(RejectError):
        await first.take([of])
    first.give_back(taken)
    await first.take([of])
    with pytest.raises(RejectError, match="all 1 places are taken until") as refused:
        await first.take([of])
    assert (refused.value.code, refused.value.field) == (Code.QUOTA_EXCEEDED, f"policy.limits.{of.limit}")


async def test_what_was_taken_of_one_period_is_not_given_back_to_another(record_arena: Arena) -> None:
    of, (one, *_) = count(1, period_s=1), replicas(record_arena)
    taken = await one.take([of])
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(RejectError):
                again = await one.take([of])
                break
            await asyncio.sleep(0.05)
    assert again[0].period > taken[0].period
    one.give_back(taken)
    block = one._blocks[_key(of)]
    assert block.left == 0


async def test_a_lower_bound_holds_for_what_is_in_hand(record_arena: Arena) -> None:
    of, (one, *_) = count(1000), replicas(record_arena)
    assert await take_all(one, of, 5, at_once=1) == 5
    lower = Count(of.limit, of.bucket, 3, of.period_s)
    with pytest.raises(RejectError, match="all 3 places are taken"):
        await one.take([lower])


async def test_a_refusal_takes_nothing_of_the_other_limits(record_arena: Arena) -> None:
    (one, *_), wide, narrow = replicas(record_arena), count(2), count(1)
    await one.take([wide, narrow])
    with pytest.raises(RejectError) as refused:
        await one.take([wide, narrow])
    assert refused.value.field == f"policy.limits.{narrow.limit}"
    await one.take([wide])
    with pytest.raises(RejectError):
        await one.take([wide])


async def test_a_period_ends_and_another_begins(record_arena: Arena) -> None:
    of, (one, other, _) = count(3, period_s=1), replicas(record_arena)
    deadline = time.monotonic() + 10
    seen: set[int] = set()
    while len(seen) < 3 and time.monotonic() < deadline:
        second = int(time.time())
        if await take_all(one, of, 5, at_once=1) + await take_all(other, of, 5, at_once=1):
            seen.add(second)
        await asyncio.sleep(0.05)
    assert len(seen) == 3


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
async def test_a_replica_whose_clock_is_wrong_agrees_on_the_period(record_arena: Arena, off_s: float) -> None:
    of = count(10, period_s=3600)
    right = Allowances(record_arena.racers[0], time.time)
    wrong = Allowances(record_arena.racers[1], lambda: time.time() + off_s)
    assert await take_all(wrong, of, 6, at_once=1) == 6
    assert await take_all(right, of, 20, at_once=1) == 4
    with pytest.raises(RejectError):
        await wrong.take([of])


async def test_a_count_never_goes_back_to_an_earlier_period(record_arena: Arena) -> None:
    """Somebody was told a later period: whoever thinks it is earlier takes of that one."""
    of, (one, *_) = count(4, period_s=3600), replicas(record_arena)
    later = int(time.time() // 3600 + 1) * 3600
    subject = subjects.allowance(of.limit, of.period_s, of.bucket)
    body = f'{{"period": {later}, "places": 3, "mark": "x"}}'.encode()
    await record_arena.racers[0].publish(subject, body)
    assert await take_all(one, of, 10, at_once=1) == 1


@pytest.mark.parametrize(
    "rubbish",
    [
        b"", b"[]", b'{"period": 0}', b'{"period": 0, "places": -1}', b'{"period": 1e3, "places": 0}',
        b'{"period": true, "places": 0}', b"{" * 2000,
    ],
)  # fmt: skip
async def test_a_count_that_somebody_else_wrote_gives_nothing(record_arena: Arena, rubbish: bytes) -> None:
    of, (one, *_) = count(4), replicas(record_arena)
    await record_arena.racers[0].publish(subjects.allowance(of.limit, of.period_s, of.bucket), rubbish)
    with pytest.raises(RetryError, match="somebody else wrote there"):
        await one.take([of])


async def test_without_a_stream_nothing_is_given_out(record_arena: Arena) -> None:
    class Gone:
        async def api(self, *_args: object, **_more: object) -> dict[str, str]:
            raise RetryError(Code.BUS_UNAVAILABLE, "away")

    with pytest.raises(InitiatorError, match="away"):
        await Allowances(Gone(), time.time).take([count(1)])  # type: ignore[arg-type]


async def test_many_counts_are_forgotten_when_their_period_is_over(record_arena: Arena) -> None:
    one = Allowances(record_arena.racers[0], time.time)
    for number in range(10_000):
        old = Count("old", f"c-{number}", 1, DAY)
        one._blocks[_key(old)] = _Block(old, period=0)
    await one.take([count(1)])
    assert len(one._blocks) == 1
