"""What a replica says when the roll is called while it records."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from initiator.bus.connection import Message
from initiator.core.events import State
from initiator.core.lifecycle import Step
from initiator.core.model import Operation
from initiator.core.orders import ALL, Freeze, Orders
from initiator.errors import Code, RetryError
from initiator.flow.gate import SigningGate
from initiator.metrics import Metrics
from initiator.record import Entry


class Connection:
    """Whoever calls the roll, and what it hears."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.call: Any = None

    async def subscribe(self, subject: str, handler: Any) -> None:
        assert subject == "initiator.rollcall"
        self.call = handler

    async def publish(self, subject: str, data: bytes) -> None:
        assert subject == "inbox"
        self.heard.append(json.loads(data))

    async def ask(self, data: bytes) -> None:
        await self.call(Message("initiator.rollcall", "inbox", data, {}))
        await asyncio.sleep(0.01)


class Lease:
    replica_id = "r1"

    def __init__(self) -> None:
        self.held = True
        self.orders = self.stored = Orders(sequence=3)
        self.problem = RetryError(Code.BUS_UNAVAILABLE, "away")

    def on_change(self, _listener: Any) -> None:
        return

    async def renew(self) -> bool:
        self.orders = self.stored
        return True


@pytest.fixture
def lease() -> Lease:
    return Lease()


@pytest.fixture
def gate(lease: Lease) -> SigningGate:
    permit = SimpleNamespace(reached=False, reason="")
    parts: Any = {"permit": permit, "record": None, "journal": None, "board": None, "clock": None}
    return SigningGate(lease=cast("Any", lease), metrics=Metrics(), refuse=False, **parts)


@pytest.fixture
async def operator(gate: SigningGate) -> Connection:
    connection = Connection()
    await gate.listen(cast("Any", connection))
    return connection


def entry(state: State = State.ACCEPTED, sequence: int = 9) -> Entry:
    event = SimpleNamespace(client="alice", operation=Operation.SIGN, state=state)
    return cast("Entry", SimpleNamespace(event=event, sequence=sequence))


def frozen(since: int) -> Orders:
    return Orders(sequence=since, freezes=(Freeze(scope=ALL, by="ops", at=0.0, reason="x", since=since),))


async def test_it_confirms_what_it_has_read(operator: Connection, lease: Lease) -> None:
    lease.stored = Orders(sequence=7)
    await operator.ask(b'{"sequence": 7}')
    assert [said["confirmed"] for said in operator.heard] == [7]
    assert lease.orders.sequence == 7


@pytest.mark.parametrize("data", [b'{"sequence": 8}', b"", b"7", b'{"sequence": "3"}', b'{"sequence": true}'])
async def test_it_confirms_nothing_else(operator: Connection, data: bytes) -> None:
    await operator.ask(data)
    assert operator.heard == []


async def test_it_confirms_when_what_it_had_begun_to_record_has_ended(
    gate: SigningGate, operator: Connection, lease: Lease
) -> None:
    first, second = gate.recording(entry()), gate.recording(entry())
    first.__enter__()
    second.__enter__()
    lease.stored = frozen(7)
    await operator.ask(b'{"sequence": 7}')
    assert operator.heard == []
    with pytest.raises(RetryError) as stopped, gate.recording(entry()):
        pytest.fail("it must not be begun")
    assert stopped.value.code is Code.FROZEN
    with pytest.raises(RetryError):
        first.still()  # nor tried again
    first.__exit__(None, None, None)
    await asyncio.sleep(0.01)
    assert operator.heard == []
    second.__exit__(None, None, None)
    await asyncio.sleep(0.01)
    assert len(operator.heard) == 1


def test_what_was_recorded_first_goes_on(gate: SigningGate, lease: Lease) -> None:
    lease.orders = frozen(since=9)
    for step in (Step.PUBLISH, Step.SEND_ONCE):
        assert gate.stops(step, entry(State.SIGNED, sequence=8)) is None
        late = gate.stops(step, entry(State.SIGNED, sequence=10))
        assert late
        assert late.code is Code.FROZEN
    assert gate.stops(Step.PUBLISH, entry(State.RETRYING, sequence=10)) is None  # its signature is older
    assert gate.stops(Step.AWAIT, entry(State.PUBLISHED, sequence=10)) is None


def test_without_a_lease_nothing_is_signed_and_nothing_fresh_published(gate: SigningGate, lease: Lease) -> None:
    lease.held = False
    for step, state in ((Step.SIGN, State.ACCEPTED), (Step.PUBLISH, State.SIGNED)):
        stop = gate.stops(step, entry(state))
        assert stop
        assert (stop.code, stop.ordered) == (Code.BUS_UNAVAILABLE, False)
