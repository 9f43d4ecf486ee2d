"""A request that ends whoever works on it is given up after five of them; one whose holders hand it back is not."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from initiator.flow.takeovers import MOST_DEATHS
from tests.e2e.stories import DEADLINE_S, STORIES, Story, Universe, World
from tests.support.crashing import EXIT_CODE


async def die(universe: Universe, world: World, story: Story, boundary: str, times: int) -> None:
    """That many daemons, each of which dies there."""
    for number in range(times):
        daemon = await universe.forker.start(world.folder, f"dead{number}", boundary)
        if number == 0:
            await world.ask(story)
        while not daemon.has_ended:
            await asyncio.sleep(0.02)
        assert await daemon.stop(signal.SIGKILL) == EXIT_CODE


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("boundary", "ending"),
    [
        ("before record accepted", "rejected"),
        ("before sign", "failed EXHAUSTED none"),
        ("before take slot", "failed EXHAUSTED unknown"),
    ],
)
async def test_after_five_deaths_in_one_state_it_is_given_up(universe: Universe, boundary: str, ending: str) -> None:
    story = replace(STORIES[1], ends=ending)
    async with universe.world(story) as world, asyncio.timeout(DEADLINE_S):
        await die(universe, world, story, boundary, MOST_DEATHS)
        last = await universe.forker.start(world.folder, "last", "")
        try:
            if ending == "rejected":
                while not await world.rejections():
                    await asyncio.sleep(0.05)
            else:
                final = await world.end_of(story.op, story.operation_id)
                assert f"{final['state']} {final['code']} {final['outcome']}" == ending
            await world.at_rest(story)
            [(_, headers)] = await world.dead("initiator.dead.alice.sign.")
            assert headers["Initiator-Code"] == "EXHAUSTED"
            assert world.heard == []
        finally:
            await last.stop(signal.SIGKILL)


@pytest.mark.timeout(120)
async def test_four_deaths_are_not_enough(universe: Universe) -> None:
    story = STORIES[1]
    async with universe.world(story) as world, asyncio.timeout(DEADLINE_S):
        await die(universe, world, story, "before sign", MOST_DEATHS - 1)
        last = await universe.forker.start(world.folder, "last", "")
        try:
            assert (await world.end_of(story.op, story.operation_id))["state"] == "completed"
        finally:
            await last.stop(signal.SIGKILL)


@pytest.mark.timeout(120)
async def test_who_hands_back_in_order_has_not_died(universe: Universe) -> None:
    story = replace(STORIES[0], request={"wallet_id": "w"})
    async with universe.world(story) as world, asyncio.timeout(DEADLINE_S):
        first = await universe.forker.start(world.folder, "first", "before sign")
        await world.ask(story)
        while not first.has_ended:
            await asyncio.sleep(0.02)
        for slot in ("x", "y"):  # the lane is full: a holder waits with recorded bytes
            await world.js.publish(f"initiator.slot.keygen.{slot}", b"")
        for number in range(MOST_DEATHS + 2):
            daemon = await universe.forker.start(world.folder, f"leaving{number}", "")
            while "after record signed" not in daemon.boundaries() and number == 0:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            assert await daemon.stop(signal.SIGTERM) == 0
        await world.js.purge_stream("INITIATOR_SLOTS_KEYGEN")
        last = await universe.forker.start(world.folder, "last", "")
        try:
            assert (await world.end_of(story.op, story.operation_id))["state"] == "completed"
        finally:
            await last.stop(signal.SIGKILL)
