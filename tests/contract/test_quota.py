"""The shared limit holds over three replicas, on one server and on a cluster of three."""

from __future__ import annotations

import asyncio

import pytest

from initiator.quota import SharedLimiter
from tests.contract.conftest import Arena

pytestmark = pytest.mark.asyncio(loop_scope="module")
RATE, BURST = 100.0, 5


async def test_three_replicas_share_one_rate_and_each_gets_some(record_arena: Arena) -> None:
    replicas = [SharedLimiter(js, RATE, BURST, clock_skew_s=2.0) for js in record_arena.racers]
    clock = asyncio.get_running_loop().time
    served: list[tuple[float, int]] = []
    end = clock() + 3.0

    async def caller(number: int) -> None:
        while clock() < end:
            await replicas[number].acquire()
            served.append((clock(), number))

    await asyncio.gather(*(caller(number % 3) for number in range(60)))
    times = sorted(when for when, _ in served)
    for start in range(0, len(times), 5):  # any second: the burst, the share, and what a late wake-up adds
        within = sum(times[start] <= when < times[start] + 1.0 for when in times[start:])
        assert within <= (BURST + RATE) * 1.15, within
    assert len(times) >= RATE * 3 * 0.8
    for number in range(3):
        assert sum(who == number for _, who in served) >= len(served) * 0.1


async def test_a_new_replica_goes_on_from_what_the_others_said(record_arena: Arena) -> None:
    clock = asyncio.get_running_loop().time
    slow = 2.0
    await SharedLimiter(record_arena.racers[0], slow, 1, clock_skew_s=2.0).acquire()
    began = clock()
    await SharedLimiter(record_arena.racers[1], slow, 1, clock_skew_s=2.0).acquire()
    assert clock() - began >= 0.4
