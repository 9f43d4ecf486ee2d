"""The daemon dies at every boundary of its work, before and after each thing that it does, and another goes on.

One world (a NATS account with its own streams) for each death. Afterwards there is one final event, one signed event
at the nodes for each attempt, and nothing is left in the queue, among the results or in the slots.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from initiator.config.schema import LimitSettings
from tests.e2e.stories import DEADLINE_S, NOT_REACHED, SIGN, STORIES, Story, Universe, World
from tests.support.harness import STREAM

AT_ONCE = 6
# a write that lost to another is done again, and two requests at once may both try to claim: races
RACES = (
    "handle result 2",
    "handle result 3",
    "bury 2",
    "record completed 2",
    "record failed 2",
    "record retrying 2",
    "record accepted 2",
)


# --- lives and deaths


async def live(
    universe: Universe, story: Story, deaths: tuple[str, ...], ahead_s: float = 0.0
) -> tuple[list[str], str]:
    """Daemons that die one after the other, and one that goes on; its boundaries and how the request ended.

    Args:
        ahead_s: how far the first one's clock is ahead of the servers', and the next one's behind, in turns.
    """
    async with universe.world(story) as world:
        daemon = await universe.forker.start(world.folder, "daemon0", deaths[0] if deaths else "", ahead_s=ahead_s)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await world.ask(story)
                for number, following in enumerate((*deaths[1:], "")[: len(deaths)], start=1):
                    while not (daemon.has_ended or await world.over(story)):
                        await asyncio.sleep(0.02)
                    if not daemon.has_ended:
                        return daemon.boundaries(), NOT_REACHED
                    ahead_s = -ahead_s
                    name = f"daemon{number}"
                    daemon = await universe.forker.start(world.folder, name, following, ahead_s=ahead_s)
                ended = await judge(world, story)
            assert await daemon.stop(signal.SIGTERM) == 0
            return daemon.boundaries(), ended
        finally:
            await daemon.stop(signal.SIGKILL)


async def judge(world: World, story: Story) -> str:
    """How the request ended; asserts that it did so once and left nothing behind."""
    if story.ends == "rejected":
        while await world.rejections() == 0:
            await asyncio.sleep(0.03)
        await world.at_rest(story)
        assert await world.rejections() == 1
        ended, final = "rejected", {}
    else:
        final = await world.end_of(story.op, story.operation_id)
        await world.at_rest(story)
        finals = await world.finals(story.op, story.operation_id)
        # what nobody knew may turn out well: then a late success supersedes the failure
        assert len(finals) == 1 or (len(finals) == 2 and story.may_end and "supersedes" in final), finals
        ended = " ".join(str(final[name]) for name in ("state", "code", "outcome") if name in final)
    assert len(world.heard) == len(set(world.heard)), "an event was sent twice"
    if ended == story.ends and "supersedes" not in final:
        assert len(world.heard) == story.attempts
        assert len(await world.dead("initiator.dead.")) == story.dead
    if story.op in STREAM:
        assert await world.published(story.op) == len(world.heard)
    return ended


@pytest.mark.timeout(300)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name.replace(" ", "_"))
async def test_a_death_at_any_boundary_loses_nothing_and_repeats_nothing(universe: Universe, story: Story) -> None:
    boundaries, ended = await live(universe, story, ())
    assert ended == story.ends
    # a new step is a new line in the table above, and so a new death
    assert set(boundaries) - sides(RACES) == sides(story.steps) - sides(RACES)
    deaths: list[tuple[str, ...]] = [(boundary,) for boundary in sorted(sides(story.steps))]
    assert_endings(story, await die_at_each(universe, story, deaths))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("story", STORIES[:3], ids=lambda story: story.name.replace(" ", "_"))
async def test_whoever_takes_over_may_die_at_any_boundary_too(universe: Universe, story: Story) -> None:
    pairs: list[tuple[str, ...]] = []
    for death in ("before publish to nodes", "after publish to nodes"):
        boundaries, _ = await live(universe, story, (death,))
        pairs += [(death, boundary) for boundary in boundaries]
    endings = await die_at_each(universe, story, pairs)
    # whether the result or the holder comes first is a race, and so is what the second one gets to do
    reached = {pair: ended for pair, ended in endings.items() if ended != NOT_REACHED}
    assert len(reached) >= 8, endings
    assert_endings(story, reached)


@pytest.mark.timeout(300)
async def test_clocks_that_differ_by_the_margin_do_no_harm(universe: Universe) -> None:
    """Replicas a second ahead of the servers and a second behind them take over from each other at each boundary."""
    story = next(story for story in STORIES if story.name == "a second attempt")
    deaths: list[tuple[str, ...]] = [(boundary,) for boundary in sorted(sides(story.steps))]

    async def die(death: tuple[str, ...]) -> str:
        ahead_s = LimitSettings().clock_skew_s / 2 * (1 if deaths.index(death) % 2 else -1)
        return (await live(universe, story, death, ahead_s))[1]

    assert_endings(story, await at_each(die, deaths))


def sides(steps: tuple[str, ...]) -> set[str]:
    return {f"{side} {step}" for step in steps for side in ("before", "after")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("story", STORIES[:3], ids=lambda story: story.name.replace(" ", "_"))
async def test_whoever_was_frozen_at_any_boundary_and_overtaken_does_nothing_twice(
    universe: Universe, story: Story
) -> None:
    boundaries: list[tuple[str, ...]] = [(boundary,) for boundary in sorted(sides(story.steps))]
    endings = await at_each(lambda one: freeze(universe, story, one[0]), boundaries)
    assert_endings(story, endings)


@pytest.mark.parametrize("death", ["before record accepted", "before sign", "before publish to nodes"])
async def test_what_the_dead_held_goes_on_within_the_ack_wait_and_a_second(universe: Universe, death: str) -> None:
    story, ack_wait_s = STORIES[1], 3.0
    async with universe.world(story) as world, asyncio.timeout(DEADLINE_S):
        world.configure(worker={"ack_wait_s": ack_wait_s, "heartbeat_s": 1.0, "drain_timeout_s": 1.0})
        first = await universe.forker.start(world.folder, "first", death)
        await world.ask(story)
        while not first.has_ended:
            await asyncio.sleep(0.01)
        died_at = time.monotonic()
        second = await universe.forker.start(world.folder, "second", "")
        try:
            while "before handle request" not in second.boundaries():
                await asyncio.sleep(0.01)
            assert time.monotonic() - died_at <= ack_wait_s + 1.0
            assert await judge(world, story) == story.ends
        finally:
            await second.stop(signal.SIGKILL)


async def test_whoever_wakes_past_the_deadline_refuses_nothing_that_another_has_claimed(universe: Universe) -> None:
    expires_at = datetime.fromtimestamp(time.time() + 10, UTC).isoformat()
    story = replace(STORIES[1], request=SIGN | {"expires_at": expires_at})
    assert await freeze(universe, story, "before handle request", wake_at=time.time() + 10.5) == "completed"


@pytest.mark.parametrize(
    ("death", "ending"),
    [
        ("before record accepted", "rejected"),
        ("before sign", "failed POLICY_DENIED none"),
        ("before publish to nodes", "completed"),  # complete bytes are recorded: the point of no return
    ],
)
async def test_what_was_claimed_under_other_rules_is_not_rejected(universe: Universe, death: str, ending: str) -> None:
    story = replace(STORIES[1], ends=ending, attempts=int(ending == "completed"), dead=int(ending != "completed"))
    async with universe.world(story) as world, asyncio.timeout(DEADLINE_S):
        first = await universe.forker.start(world.folder, "first", death)
        await world.ask(story)
        while not first.has_ended:
            await asyncio.sleep(0.02)
        world.configure(clients={"alice": {"operations": ["keygen"]}})
        second = await universe.forker.start(world.folder, "second", "")
        try:
            assert await judge(world, story) == ending
        finally:
            await second.stop(signal.SIGKILL)


async def freeze(universe: Universe, story: Story, boundary: str, wake_at: float = 0.0) -> str:
    """A daemon that stands still at a boundary while another brings the request to its end; then it wakes."""
    async with universe.world(story) as world:
        frozen = await universe.forker.start(world.folder, "frozen", boundary, freeze=True)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await world.ask(story)
                await frozen.frozen()
                daemon = await universe.forker.start(world.folder, "daemon", "")
                await judge(world, story)
                await asyncio.sleep(wake_at - time.time())
                await frozen.send(signal.SIGCONT)
                await asyncio.sleep(0.5)  # it finds out what happened meanwhile
                ended = await judge(world, story)
                assert await frozen.stop(signal.SIGTERM) == 0
                assert await daemon.stop(signal.SIGTERM) == 0
                assert await world.rejections() == 0
                return ended
        finally:
            await frozen.stop(signal.SIGKILL)


async def die_at_each(universe: Universe, story: Story, deaths: list[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    async def die(death: tuple[str, ...]) -> str:
        return (await live(universe, story, death))[1]

    return await at_each(die, deaths)


async def at_each(
    happen: Callable[[tuple[str, ...]], Awaitable[str]], boundaries: list[tuple[str, ...]]
) -> dict[tuple[str, ...], str]:
    """What came of it at each, a few at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(boundary: tuple[str, ...]) -> str:
        async with gate:
            try:
                return await happen(boundary)
            except (AssertionError, TimeoutError) as error:
                return repr(error)

    endings = await asyncio.gather(*map(one, boundaries))
    return dict(zip(boundaries, endings, strict=True))


def assert_endings(story: Story, endings: dict[tuple[str, ...], str]) -> None:
    odd = {death: ended for death, ended in endings.items() if ended != story.ends}
    assert all(ended == story.may_end for ended in odd.values()), odd
    # only where it may have been sent is its fate unknown
    assert all("publishing" in " ".join(death) or "publish to" in " ".join(death) for death in odd), odd
