"""The record's promises, on one server and on a cluster of three: whoever races, one wins and everybody knows who."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from typing import Any

import pytest

from initiator.bus.errors import unknown_outcome
from initiator.bus.jetstream import EXPECTED_SUBJECT, JetStream, PubAck
from initiator.core import subjects
from initiator.core.events import Event, State
from initiator.core.model import Operation
from initiator.errors import Code, HaltError, RetryError
from initiator.record import Entry, MovedError, Record
from tests.contract.conftest import Arena
from tests.support.events import event_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
IDS = 150


def fresh_ids(count: int = 1) -> list[str]:
    return [f"tx{secrets.token_hex(6)}" for _ in range(count)]


async def outcome_of(record: Record, event: Event, after: Entry | None) -> Entry | MovedError:
    """One racer, until it knows."""
    while True:
        try:
            return await record.append(event, after)
        except MovedError as moved:
            return moved
        except RetryError:
            await asyncio.sleep(0.05)


async def race(arena: Arena, after: Entry | None, events: list[Event]) -> Entry:
    """Several writes after one entry, each from a server of its own; returns the winner that all agree on."""
    racers = itertools.cycle([Record(js) for js in arena.racers])
    outcomes = await asyncio.gather(*(outcome_of(next(racers), event, after) for event in events))
    won = [outcome for outcome in outcomes if isinstance(outcome, Entry)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, MovedError)]
    assert len(won) == 1
    assert [moved.last.event.event_id if moved.last else None for moved in lost] == [won[0].event.event_id] * len(lost)
    return won[0]


async def history(arena: Arena, operation_id: str) -> list[str]:
    filter_ = subjects.guard_filter(Operation.SIGN, operation_id)
    return [stored.subject.split(".")[5] async for stored in Record(arena.racers[0]).scan(filter_, 1)]


async def test_of_many_claims_of_an_id_by_several_clients_one_wins(record_arena: Arena) -> None:
    async def claims(operation_id: str) -> None:
        events = [event_of(operation_id, client=client) for client in ("alice", "bob", "alice", "bob")]
        winner = await race(record_arena, None, events)
        last = await Record(record_arena.racers[1]).last(Operation.SIGN, operation_id)
        assert last is not None
        assert last.event == winner.event
        assert await history(record_arena, operation_id) == ["accepted"]

    await asyncio.gather(*(claims(operation_id) for operation_id in fresh_ids(IDS)))


async def test_of_different_moves_and_results_after_one_event_one_wins(record_arena: Arena) -> None:
    async def moves(operation_id: str) -> None:
        claim = await Record(record_arena.racers[0]).append(event_of(operation_id), None)
        signatures = [event_of(operation_id, State.SIGNED, body={"message": b"m", "session": "s"}) for _ in range(2)]
        signed = await race(record_arena, claim, [*signatures, event_of(operation_id, State.FAILED)])
        results = [event_of(operation_id, State.COMPLETED), event_of(operation_id, State.FAILED)] * 2
        fresh = [event_of(operation_id, event.state) for event in results]
        final = await race(record_arena, signed, fresh)
        seen = await history(record_arena, operation_id)
        assert seen == ["accepted", signed.event.state, final.event.state]

    await asyncio.gather(*(moves(operation_id) for operation_id in fresh_ids(IDS)))


async def test_the_same_guard_stands_on_claims_moves_and_results(record_arena: Arena) -> None:
    """With two different filters a replicated stream lets two writers win; so there must be one."""
    (operation_id,) = fresh_ids()
    guards: list[str] = []

    class Watched(JetStream):
        async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> PubAck:
            guards.append((headers or {})[EXPECTED_SUBJECT])
            return await super().publish(subject, data, headers)

    record = Record(Watched(record_arena.racers[0].connection))
    entry = await record.append(event_of(operation_id, client="bob"), None)
    for state in (State.SIGNED, State.PUBLISHED, State.FAILED, State.COMPLETED):
        entry = await record.append(event_of(operation_id, state, client="bob"), entry)
    assert guards == [f"initiator.event.*.sign.{operation_id}.>"] * 5


class Unsure(JetStream):
    """A connection that loses answers: the first `lost` publishes are stored (or not), but nobody is told."""

    def __init__(self, js: JetStream, lost: int, *, stored: bool) -> None:
        super().__init__(js.connection)
        self.lost = lost
        self._stored = stored

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> PubAck:
        if self.lost:
            self.lost -= 1
            if self._stored:
                await super().publish(subject, data, headers)
            raise unknown_outcome("no answer", delay_s=0.01)
        return await super().publish(subject, data, headers)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_write_without_an_answer_is_read_back_and_never_doubled(record_arena: Arena, stored: bool) -> None:
    (operation_id,) = fresh_ids()
    js = Unsure(record_arena.racers[0], 2, stored=stored)
    event = event_of(operation_id)
    entry = await Record(js).append(event, None)
    assert entry.event == event
    assert await history(record_arena, operation_id) == ["accepted"]
    assert js.lost == (1 if stored else 0)


async def test_who_lost_while_his_answer_was_lost_learns_who_won(record_arena: Arena) -> None:
    (operation_id,) = fresh_ids()
    winner = await Record(record_arena.racers[0]).append(event_of(operation_id), None)
    with pytest.raises(MovedError) as moved:
        await Record(Unsure(record_arena.racers[1], 1, stored=False)).append(event_of(operation_id), None)
    assert moved.value.last is not None
    assert moved.value.last.event.event_id == winner.event.event_id
    assert moved.value.maybe_done  # for all that he knows he won first, and the other followed


async def test_a_write_that_was_followed_before_its_answer_came_is_not_said_to_be_lost(record_arena: Arena) -> None:
    """Its answer is lost, and somebody moves the operation on before it is looked for."""
    (operation_id,) = fresh_ids()
    js = Followed(record_arena.racers[0].connection)
    with pytest.raises(MovedError) as moved:
        await Record(js).append(event_of(operation_id), None)
    assert moved.value.maybe_done
    assert await history(record_arena, operation_id) == ["accepted", "failed"]
    other = Record(record_arena.racers[1])
    with pytest.raises(MovedError) as plain:
        await other.append(event_of(operation_id), None)
    assert not plain.value.maybe_done


class Followed(JetStream):
    """Loses the first answer, and lets another writer follow what was stored."""

    lost = False

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> PubAck:
        ack = await super().publish(subject, data, headers)
        if not self.lost:
            self.lost = True
            record = Record(JetStream(self.connection))
            claim = await record.last(Operation.SIGN, subject.split(".")[4])
            await record.append(event_of(subject.split(".")[4], State.FAILED), claim)
            raise RetryError(Code.BUS_UNAVAILABLE, "the answer is lost", delay_s=0.0, maybe_done=True)
        return ack


async def test_an_endless_silence_ends_as_an_unknown_outcome(record_arena: Arena) -> None:
    (operation_id,) = fresh_ids()
    with pytest.raises(RetryError) as error:
        await Record(Unsure(record_arena.racers[0], 99, stored=False)).append(event_of(operation_id), None)
    assert (error.value.code, error.value.maybe_done) == (Code.BUS_UNAVAILABLE, True)
    assert await Record(record_arena.racers[0]).last(Operation.SIGN, operation_id) is None


async def test_what_takes_one_message_takes_it_once(record_arena: Arena) -> None:
    subject = f"initiator.reject.alice.sign.{secrets.randbelow(10**12)}.rejected"
    racers = [Record(js) for js in record_arena.racers] * 3
    await asyncio.gather(*(racer.publish_once(subject, b"first", {}) for racer in racers))
    await Record(Unsure(record_arena.racers[0], 1, stored=True)).publish_once(subject, b"again", {})
    stored = [found.data async for found in Record(record_arena.racers[0]).scan(subject, 1)]
    assert stored == [b"first"]


async def test_reads_find_the_last_the_signed_and_the_wallets_event(record_arena: Arena) -> None:
    (operation_id,) = fresh_ids()
    record = Record(record_arena.racers[0])
    assert await record.last(Operation.KEYGEN, operation_id) is None
    assert await record.completed_keygen(operation_id) is None
    of_keygen: dict[str, Any] = {"operation": Operation.KEYGEN, "client": "bob"}
    entry = await record.append(event_of(operation_id, **of_keygen), None)
    signed = await record.append(event_of(operation_id, State.SIGNED, **of_keygen), entry)
    completed = await record.append(event_of(operation_id, State.COMPLETED, **of_keygen), signed)
    found = (
        await record.last(Operation.KEYGEN, operation_id),
        await record.signed("bob", Operation.KEYGEN, operation_id),
        await record.completed_keygen(operation_id),
    )
    assert [entry.sequence if entry else None for entry in found] == [
        completed.sequence,
        signed.sequence,
        completed.sequence,
    ]
    assert await record.signed("alice", Operation.KEYGEN, operation_id) is None


@pytest.mark.parametrize("data", [b"rubbish", b"\x80"])
async def test_something_in_the_record_that_is_no_event_halts(record_arena: Arena, data: bytes) -> None:
    (operation_id,) = fresh_ids()
    js = record_arena.racers[0]
    await js.publish(f"initiator.event.alice.sign.{operation_id}.completed", data)
    with pytest.raises(HaltError) as error:
        await Record(js).last(Operation.SIGN, operation_id)
    assert error.value.code is Code.RECORD_LOST


async def test_an_event_on_a_subject_that_is_not_its_own_halts(record_arena: Arena) -> None:
    one, other = fresh_ids(2)
    js = record_arena.racers[0]
    entry = await Record(js).append(event_of(one, State.COMPLETED), None)
    await js.publish(f"initiator.event.alice.sign.{other}.completed", entry.data)
    with pytest.raises(HaltError, match="does not belong to its subject"):
        await Record(js).last(Operation.SIGN, other)


async def test_leaders_that_step_down_and_die_let_no_two_win(record_arena: Arena) -> None:
    cluster = record_arena.cluster
    if cluster is None:
        pytest.skip("one server has no other leader")
    wins: Counter[str] = Counter()
    done = asyncio.Event()

    async def claims() -> None:
        racers = [Record(js) for js in record_arena.racers]
        for operation_id in fresh_ids(250):
            outcomes = await asyncio.gather(*(outcome_of(racer, event_of(operation_id), None) for racer in racers))
            wins[operation_id] += sum(isinstance(outcome, Entry) for outcome in outcomes)
        done.set()

    async def faults() -> None:
        js = record_arena.racers[0]
        for number in range(6):
            if done.is_set():
                return
            leader = await cluster.leader_of(js, subjects.EVENTS_STREAM)
            if number % 3 == 2:
                await cluster.kill(leader)
                await asyncio.sleep(0.5)
                await cluster.start(leader)
            else:
                await js.connection.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{subjects.EVENTS_STREAM}", b"")
            await asyncio.sleep(0.3)

    async with asyncio.timeout(90):
        await asyncio.gather(claims(), faults())
    assert set(wins.values()) == {1}
    for operation_id in wins:
        assert await history(record_arena, operation_id) == ["accepted"]
