"""The cap at the nodes is exact, on one server and on a cluster of three."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from initiator.core import subjects
from initiator.core.model import Operation
from initiator.errors import RetryError
from initiator.slots import Slots
from tests.contract.conftest import Arena

pytestmark = pytest.mark.asyncio(loop_scope="module")
CAP = 10


@pytest_asyncio.fixture(loop_scope="module")
async def racers(record_arena: Arena) -> AsyncIterator[list[Slots]]:
    yield [Slots(js, Operation.SIGN, CAP) for js in record_arena.racers]
    await record_arena.racers[0].purge(subjects.SLOTS_STREAMS[Operation.SIGN], subjects.slot(Operation.SIGN, "*"))


async def take(slots: Slots, operation_id: str) -> bool:
    """Until the answer is clear: taking twice is harmless."""
    while True:
        try:
            return await slots.take(operation_id)
        except RetryError:
            await asyncio.sleep(0.02)


async def test_of_sixty_exactly_ten_get_in(racers: list[Slots]) -> None:
    got = await asyncio.gather(*(take(racers[number % 3], f"t{number}") for number in range(60)))
    assert sum(got) == CAP
    assert await racers[0].holders() == CAP


async def test_whoever_takes_over_finds_the_slot_of_its_id_taken(racers: list[Slots]) -> None:
    for number in range(CAP):
        assert await take(racers[0], f"t{number}")
    assert await take(racers[1], "t3")
    assert not await take(racers[1], "another")
    assert await racers[2].holders() == CAP


async def test_a_freed_slot_lets_the_next_one_in_and_freeing_twice_frees_one(racers: list[Slots]) -> None:
    for number in range(CAP):
        assert await take(racers[0], f"t{number}")
    await racers[1].free("t3")
    await racers[2].free("t3")
    assert [await take(racers[0], "a"), await take(racers[0], "b")] == [True, False]
    assert await racers[0].newest() == "a"


async def test_a_lane_without_a_cap_asks_nobody(record_arena: Arena) -> None:
    slots = Slots(record_arena.racers[0], Operation.RESHARE, 0)
    assert await slots.take("any")
    await slots.free("any")
    assert (await slots.holders(), await slots.newest()) == (0, None)
