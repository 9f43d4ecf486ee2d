"""Orders and counters hold over racers, on one server and on a cluster of three."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections import Counter as Count
from typing import Any

import pytest

from initiator.bus.errors import NotFoundError
from initiator.bus.jetstream import JetStream
from initiator.core import subjects
from initiator.core.orders import Freeze, Line, Orders, Scope
from initiator.errors import Code, HaltError, RetryError
from initiator.orders import OrderBook
from initiator.rollcall import Roll
from initiator.stopline import Counter
from tests.contract.conftest import Arena

pytestmark = pytest.mark.asyncio(loop_scope="module")


def adding(client: str) -> Any:
    new = Freeze(scope=Scope(client=client), by="ops", at=0.0, reason="a race")

    def change(seen: Orders) -> tuple[Orders, dict[str, Any]] | None:
        return None if seen.freeze_with(new.scope) else (seen.frozen(new), {"change": "freeze", "by": "ops"})

    return change


async def insist(js: JetStream, client: str) -> Orders:
    """Until it stands: many at once outlast the tries of one call."""
    while True:
        try:
            return await OrderBook(js).change(adding(client))
        except RetryError:
            continue


async def test_no_order_of_many_at_once_is_lost_and_each_leaves_its_event(record_arena: Arena) -> None:
    js = record_arena.racers[0]
    clients = [f"c{secrets.token_hex(4)}" for _ in range(18)]
    before = await _events(js)
    await asyncio.gather(*(insist(record_arena.racers[number % 3], name) for number, name in enumerate(clients)))
    stand = await OrderBook(js).read()
    assert all(stand.freeze_with(Scope(client=name)) for name in clients)
    assert len({freeze.since for freeze in stand.freezes}) == len(stand.freezes)
    assert await _events(js) - before == len(clients)


async def _events(js: JetStream) -> int:
    found = await js.api(f"STREAM.INFO.{subjects.EVENTS_STREAM}", {"subjects_filter": f"{subjects.CONTROL}.>"})
    return sum((found["state"].get("subjects") or {}).values())


async def test_racers_spend_exactly_what_the_line_allows(record_arena: Arena) -> None:
    line = Line(id=secrets.token_hex(8), limit=200, by="ops", at=0.0, reason="a race")
    await Counter(record_arena.racers[0]).begin(line.id)
    got = Count[int]()

    async def spend(number: int) -> None:
        counter = Counter(record_arena.racers[number])
        while True:
            try:
                calls, _ = await counter.take(line, 8)
            except RetryError:
                continue
            if not calls:
                return
            got[number] += calls

    await asyncio.gather(*(spend(number) for number in range(3)))
    assert sum(got.values()) <= 200
    if record_arena.cluster is None:  # on a cluster a lost answer costs its block
        assert sum(got.values()) == 200
    assert (await Counter(record_arena.racers[1]).read(line.id)).calls == 200
    raised = dataclasses.replace(line, limit=201)
    assert (await Counter(record_arena.racers[1]).take(raised, 8))[0] == 1


async def test_a_counter_that_is_lost_lets_nothing_through(record_arena: Arena) -> None:
    js = record_arena.racers[0]
    line = Line(id=secrets.token_hex(8), limit=200, by="ops", at=0.0, reason="a loss")
    counter = Counter(js)
    with pytest.raises(HaltError) as none_yet:
        await counter.take(line, 1)
    await counter.begin(line.id)
    assert (await counter.take(line, 1))[0] == 1
    await counter.begin(line.id)  # a repeated one begins nothing anew
    assert (await counter.read(line.id)).calls == 1
    await counter.end(line.id)
    with pytest.raises(HaltError) as lost:
        await counter.take(line, 1)
    assert none_yet.value.code is lost.value.code is Code.STOP_LINE
    await js.publish(subjects.line_counter(line.id), b'{"spent": -5}')
    with pytest.raises(HaltError):
        await counter.take(line, 1)


async def test_a_stop_line_is_told_once(record_arena: Arena) -> None:
    js = record_arena.racers[0]
    line = Line(id=secrets.token_hex(8), limit=5, by="ops", at=0.0, reason="a budget")
    before = await _events(js)
    for racer in record_arena.racers:
        await OrderBook(racer).say_reached(line)
    assert await _events(js) - before == 1


async def test_names_come_onto_the_roll_and_go(record_arena: Arena) -> None:
    first, second = (Roll(js) for js in record_arena.racers[:2])
    await first.sign_in("r1")
    await second.sign_in("r2")
    await second.sign_in("r2")
    assert await first.names() == {"r1", "r2"}
    await first.sign_out("r1")
    assert await second.names() == {"r2"}


async def test_orders_without_a_record_are_an_error_and_not_nothing(record_arena: Arena) -> None:
    class Elsewhere(JetStream):
        def api_subject(self, name: str) -> str:
            return super().api_subject(name.replace(subjects.EVENTS_STREAM, "NOWHERE"))

    with pytest.raises(NotFoundError):
        await OrderBook(Elsewhere(record_arena.racers[0].connection)).read()
