"""The lease's arithmetic, with the clock in the test's hands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import pytest

from initiator.bus.errors import NotFoundError, unknown_outcome
from initiator.bus.jetstream import JetStream, PubAck, Stored
from initiator.core import orders, subjects
from initiator.core.model import Operation
from initiator.core.orders import ALL, Freeze, Orders
from initiator.errors import Code, InitiatorError
from initiator.flow.lease import Lease, suspended_too
from initiator.health import Health
from initiator.metrics import Metrics
from initiator.rollcall import LEASE_S, SIGNED_IN_S


class Server:
    """The record's last order and the roll, and a clock that moves while the server answers."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.answer_s = 0.0
        self.data: bytes | None = None
        self.sequence = 0
        self.stored_at = 0.0
        self.trouble: InitiatorError | None = None
        self.roll_trouble: InitiatorError | None = None
        self.signed_in = 0
        self.during: Callable[[], None] = lambda: None
        self.returns: list[Callable[[], None]] = []
        self.connection = self

    def on_return(self, listener: Callable[[], None]) -> None:
        self.returns.append(listener)

    def order(self, stand: Orders) -> None:
        self.sequence, self.stored_at = self.sequence + 1, self.time
        self.data = orders.encode(stand, {"change": "test"})

    async def last(self, stream: str, subject: str) -> Stored | None:
        assert (stream, subject) == (subjects.EVENTS_STREAM, subjects.ORDERS)
        await asyncio.sleep(0)
        self.time += self.answer_s
        self.during()
        if self.trouble:
            raise self.trouble
        return None if self.data is None else Stored(subject, self.sequence, self.data, {}, self.stored_at)

    async def publish(self, subject: str, data: bytes) -> PubAck:
        assert (subject, data) == ("initiator.replica.r1", b"")
        if self.roll_trouble:
            raise self.roll_trouble
        self.signed_in += 1
        return PubAck("INITIATOR_REPLICAS", self.signed_in, False)

    async def purge(self, stream: str, subject: str) -> int:
        assert (stream, subject) == ("INITIATOR_REPLICAS", "initiator.replica.r1")
        self.signed_in = 0
        return 1


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def health() -> Health:
    return Health(("orders",))


@pytest.fixture
def lease(server: Server, health: Health) -> Lease:
    return Lease(cast("JetStream", server), "r1", health, Metrics(), now=lambda: server.time)


FROZEN = Orders().frozen(Freeze(scope=ALL, by="ops", at=0.0, reason="a leak"))


async def test_there_is_none_before_the_orders_were_read(lease: Lease) -> None:
    assert not lease.held
    assert await lease.renew()


async def test_it_runs_from_when_the_read_was_begun(server: Server, lease: Lease) -> None:
    server.answer_s = 0.75
    begun = server.time
    assert await lease.renew()
    server.time = begun + LEASE_S - 0.01
    assert lease.held
    server.time = begun + LEASE_S
    assert not lease.held


async def test_an_answer_that_comes_after_it_would_have_run_out_gives_none(server: Server, lease: Lease) -> None:
    server.answer_s = LEASE_S  # suspended while it waited
    assert not await lease.renew()


@pytest.mark.parametrize("trouble", [unknown_outcome("away"), unknown_outcome("no answer")])
async def test_without_an_answer_the_old_one_runs_out(server: Server, lease: Lease, trouble: InitiatorError) -> None:
    await lease.renew()
    server.trouble = trouble
    server.time += 1.0
    assert await lease.renew()
    server.time += 1.0
    assert not await lease.renew()
    assert lease.problem is trouble
    server.trouble = None
    assert await lease.renew()


async def test_orders_that_cannot_be_read_end_it_at_once(server: Server, lease: Lease, health: Health) -> None:
    await lease.renew()
    server.order(FROZEN)
    server.data = b'{"freezes": [], "line": null, "newer": 1}'
    assert not await lease.renew()
    lease.tell()
    (part,) = health.snapshot()
    assert (part.ok, part.code) == (False, Code.RECORD_LOST)


async def test_a_missing_record_ends_it_at_once(server: Server, lease: Lease) -> None:
    await lease.renew()
    server.trouble = NotFoundError("stream not found")
    assert not await lease.renew()


async def test_orders_older_than_those_that_were_read_renew_nothing(server: Server, lease: Lease) -> None:
    server.order(Orders())
    server.order(FROZEN)
    await lease.renew()
    server.sequence, server.stored_at, server.data = 1, 990.0, orders.encode(Orders(), {})
    server.time += 1.0
    assert await lease.renew()
    assert lease.orders.freeze_of("alice", Operation.SIGN)
    server.time += 1.0
    assert not await lease.renew()
    assert lease.problem.code is Code.RECORD_LOST
    server.sequence = 0
    server.order(Orders())  # the record was restored, and an operator has said what stands
    assert await lease.renew()
    assert not lease.orders.freezes


async def test_a_record_without_orders_where_there_were_some_renews_nothing(server: Server, lease: Lease) -> None:
    server.order(FROZEN)
    await lease.renew()
    server.data = None
    server.time += LEASE_S
    assert not await lease.renew()


async def test_a_connection_that_was_away_ends_it(server: Server, lease: Lease) -> None:
    await lease.renew()
    for listener in server.returns:
        listener()
    assert not lease.held


async def test_it_is_read_again_as_soon_as_the_connection_is_back(server: Server, lease: Lease) -> None:
    running = asyncio.create_task(lease.run())
    await asyncio.sleep(0.05)
    server.returns[0]()
    assert not lease.held
    await asyncio.sleep(0.05)
    assert lease.held
    running.cancel()


async def test_nobody_signs_who_is_not_on_the_roll(server: Server, lease: Lease) -> None:
    server.roll_trouble = unknown_outcome("no stream answers")
    assert not await lease.renew()
    server.roll_trouble = None
    assert await lease.renew()
    server.roll_trouble = unknown_outcome("no stream answers")
    for _ in range(int(SIGNED_IN_S) - 1):
        server.time += 1.0
        assert await lease.renew()
    server.time += 1.0
    assert not await lease.renew()


async def test_the_name_is_renewed_now_and_then_and_taken_off_at_the_end(server: Server, lease: Lease) -> None:
    for _ in range(21):
        server.time += 0.5
        await lease.renew()
    assert server.signed_in == 3
    await lease.leave()
    assert not lease.held
    assert server.signed_in == 0
    assert not await lease.renew()


async def test_who_waits_is_told_of_other_orders_and_of_a_lease_that_comes_back(server: Server, lease: Lease) -> None:
    told: list[bool] = []
    lease.on_change(lambda: told.append(lease.held))
    await lease.renew()
    await lease.renew()
    assert told == [True]
    server.order(FROZEN)
    await lease.renew()
    assert told == [True, True]
    server.time += 10.0
    await lease.renew()
    assert told == [True, True, True]


@pytest.mark.parametrize("how", ["it ran out", "the connection was away"])
async def test_who_found_none_while_it_was_renewed_is_told_too(server: Server, lease: Lease, how: str) -> None:
    """Whoever looked in the middle of a renewal waits, although there was a lease before it and after it."""
    told: list[bool] = []
    await lease.renew()
    lease.on_change(lambda: told.append(lease.held))
    server.time += 1.5
    server.during = (lambda: None) if how == "it ran out" else server.returns[0]
    server.answer_s = 0.75 if how == "it ran out" else 0.0
    assert await lease.renew()
    assert told == [True]


async def test_a_freeze_is_a_note_and_a_metric_and_no_trouble(server: Server, lease: Lease, health: Health) -> None:
    server.order(FROZEN)
    await lease.renew()
    lease.tell()
    (part,) = health.snapshot()
    assert part.ok
    assert part.note == "all frozen by ops at 1970-01-01T00:00:00.000Z: a leak"
    metric = lease._metrics.frozen
    assert metric.labels("all")._value.get() == 1
    server.order(Orders())
    await lease.renew()
    assert metric.labels("all")._value.get() == 0


def test_the_clock_goes_on_while_nobody_runs() -> None:
    before = suspended_too()
    time.sleep(0.01)
    assert suspended_too() - before >= 0.01
