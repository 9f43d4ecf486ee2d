"""Calls are spent in blocks that fit how fast they go, and never without a lease."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from initiator.bus.errors import SequenceConflictError, unknown_outcome
from initiator.bus.jetstream import EXPECTED_SEQUENCE, JetStream, PubAck, Stored
from initiator.core import subjects
from initiator.core.orders import ALL, Freeze, Line, Orders
from initiator.core.signer import HeldBackError
from initiator.errors import Code, InitiatorError, RetryError
from initiator.flow.lease import Lease
from initiator.flow.permit import MOST_AT_ONCE, CallPermit
from initiator.metrics import Metrics

LINE = Line(id="ab", limit=10_000, by="ops", at=0.0, reason="a budget")


async def nothing() -> None:
    await asyncio.sleep(0)


class Counter:
    """The counter's message."""

    def __init__(self) -> None:
        self.sequence, self.spent = 1, 0
        self.writes: list[int] = []
        self.lost = False
        self.during: Callable[[], Awaitable[None]] = nothing
        self.trouble: RetryError | None = None

    async def last(self, stream: str, subject: str) -> Stored | None:
        assert (stream, subject) == (subjects.LIMITS_STREAM, "initiator.limit.line-ab")
        await self.during()
        if self.lost:
            return None
        return Stored(subject, self.sequence, json.dumps({"spent": self.spent}).encode(), {}, 0.0)

    async def publish(self, subject: str, data: bytes, headers: dict[str, str]) -> PubAck:
        await asyncio.sleep(0)
        if headers[EXPECTED_SEQUENCE] != str(self.sequence):
            raise SequenceConflictError
        spent = json.loads(data)["spent"]
        self.writes.append(spent - self.spent)
        self.sequence, self.spent = self.sequence + 1, spent
        if self.trouble:
            trouble, self.trouble = self.trouble, None
            raise trouble
        return PubAck(subjects.LIMITS_STREAM, self.sequence, False)


class Leased:
    """A lease in the test's hands."""

    def __init__(self) -> None:
        self.held = True
        self.orders = Orders(line=LINE)
        self.problem: InitiatorError = unknown_outcome("away")
        self.line_note = ""
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def lease() -> Leased:
    return Leased()


@pytest.fixture
def told() -> list[int]:
    return []


@pytest.fixture
def permit(counter: Counter, lease: Leased, told: list[int]) -> CallPermit:
    async def tell(line: Line) -> None:
        told.append(line.limit)

    return CallPermit(cast("JetStream", counter), cast("Lease", lease), Metrics(), tell)


async def spend(permit: CallPermit, calls: int) -> None:
    await asyncio.gather(*(permit.spend() for _ in range(calls)))


async def test_blocks_grow_while_they_go_fast_and_are_all_used(permit: CallPermit, counter: Counter) -> None:
    await spend(permit, 500)
    assert counter.writes[:7] == [1, 2, 4, 8, 16, 32, MOST_AT_ONCE]
    assert max(counter.writes) == MOST_AT_ONCE
    assert 500 <= counter.spent < 500 + MOST_AT_ONCE


async def test_blocks_are_small_near_the_line_and_none_passes_it(
    permit: CallPermit, counter: Counter, lease: Leased
) -> None:
    lease.orders = Orders(line=dataclasses.replace(LINE, limit=100))
    results = await asyncio.gather(*(permit.spend() for _ in range(130)), return_exceptions=True)
    refused = [result for result in results if result is not None]
    assert len(refused) == 30
    assert all(isinstance(error, HeldBackError) and error.code is Code.STOP_LINE for error in refused)
    assert counter.spent == 100
    assert set(counter.writes[-15:]) == {1}
    assert permit.reached


async def test_a_raised_line_lets_more_through(
    permit: CallPermit, counter: Counter, lease: Leased, told: list[int]
) -> None:
    lease.orders = Orders(line=dataclasses.replace(LINE, limit=1))
    await permit.spend()
    await permit.look()
    await permit.look()
    assert permit.reached
    assert told == [1]  # once
    assert "the stop line of 1 calls is reached" in lease.line_note
    lease.orders = Orders(line=dataclasses.replace(LINE, limit=2))
    assert not permit.reached
    await permit.spend()
    with pytest.raises(HeldBackError):
        await permit.spend()


async def test_the_rest_of_a_block_is_worth_nothing_under_another_line(
    permit: CallPermit, counter: Counter, lease: Leased
) -> None:
    await spend(permit, 4)  # of 1 + 2 + 4
    lease.orders = Orders(line=dataclasses.replace(LINE, id="cd"))
    with pytest.raises(AssertionError):  # it asks for the other line's counter
        await permit.spend()


async def test_a_lost_answer_costs_its_block(permit: CallPermit, counter: Counter) -> None:
    counter.trouble = unknown_outcome("no answer", delay_s=0.0)
    await permit.spend()
    assert counter.spent == 2


async def test_nothing_is_spent_without_a_lease_or_in_a_freeze_of_all(
    permit: CallPermit, counter: Counter, lease: Leased
) -> None:
    lease.held = False
    with pytest.raises(HeldBackError) as away:
        await permit.spend()
    assert away.value.code is Code.BUS_UNAVAILABLE
    lease.held = True
    lease.orders = Orders(freezes=(Freeze(scope=ALL, by="ops", at=0.0, reason="x", since=1),))
    with pytest.raises(HeldBackError) as frozen:
        await permit.spend()
    assert frozen.value.code is Code.FROZEN
    assert counter.spent == 0


async def test_a_lease_that_runs_out_while_a_block_is_got_lets_nothing_through(
    permit: CallPermit, counter: Counter, lease: Leased
) -> None:
    publish = counter.publish

    async def slow(*args: Any) -> PubAck:
        lease.held = False
        return await publish(*args)

    counter.publish = slow  # type: ignore[method-assign,assignment]
    with pytest.raises(HeldBackError):
        await permit.spend()


async def test_a_lost_counter_is_the_line_until_it_is_found(
    permit: CallPermit, counter: Counter, lease: Leased
) -> None:
    counter.lost = True
    with pytest.raises(HeldBackError) as lost:
        await permit.spend()
    assert lost.value.code is Code.STOP_LINE
    assert permit.reached
    counter.lost = False
    await permit.look()
    assert not permit.reached
    assert lease.woken == 1


async def test_who_found_it_reached_while_it_was_looked_at_is_told(
    permit: CallPermit, counter: Counter, lease: Leased
) -> None:
    await permit.look()

    async def meanwhile() -> None:
        counter.during, counter.lost = nothing, True
        with pytest.raises(HeldBackError):
            await permit.spend()
        assert permit.reached
        counter.lost = False

    counter.during = meanwhile
    await permit.look()
    assert not permit.reached
    assert lease.woken == 1


async def test_what_another_line_has_spent_is_not_said_of_its_successor(
    permit: CallPermit, counter: Counter, lease: Leased
) -> None:
    await spend(permit, 4)

    async def meanwhile() -> None:
        counter.during = nothing
        lease.orders = Orders(line=dataclasses.replace(LINE, id="cd", limit=2))
        with pytest.raises(AssertionError):  # it asks for the other line's counter
            await permit.spend()

    counter.during = meanwhile
    await permit.look()
    assert not permit.reached


async def test_without_a_line_nothing_is_counted(permit: CallPermit, counter: Counter, lease: Leased) -> None:
    lease.orders = Orders()
    await spend(permit, 100)
    await permit.look()
    assert counter.writes == []
    assert not permit.reached
