"""Queues on one server and on a cluster of three: what is made anew never gives out a sequence twice."""

from __future__ import annotations

import asyncio

import pytest

from initiator.bus import queues, streams
from initiator.bus.jetstream import JetStream, PubAck
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.errors import InitiatorError
from tests.contract.conftest import Arena

pytestmark = pytest.mark.asyncio(loop_scope="module")
QUEUE, SUBJECT = subjects.requests_stream("bob"), subjects.request("bob", Operation.SIGN)


async def submit(js: JetStream) -> PubAck:
    async with asyncio.timeout(20):
        while True:
            try:
                return await js.publish(SUBJECT, b"x")
            except InitiatorError:
                await asyncio.sleep(0.1)  # a queue made just now has no leader yet


async def ensure(js: JetStream, arena: Arena) -> None:
    async with asyncio.timeout(20):
        while await queues.ensure(js, arena.settings):
            await asyncio.sleep(0.1)


async def test_a_queue_that_several_replicas_make_anew_goes_on_with_fresh_sequences(record_arena: Arena) -> None:
    js = record_arena.racers[0]
    await ensure(js, record_arena)
    old = [(await submit(js)).sequence for _ in range(3)]
    await js.publish("initiator.reject.bob.sign.1.rejected", b"the first one was refused")
    await js.api(f"STREAM.DELETE.{QUEUE}")
    await asyncio.gather(*(ensure(racer, record_arena) for racer in record_arena.racers))
    first = (await submit(js)).sequence
    assert first > max(old) + 1_000_000
    if record_arena.cluster:
        await js.api(f"STREAM.LEADER.STEPDOWN.{QUEUE}")
    again = [(await submit(racer)).sequence for racer in record_arena.racers]
    assert again == sorted(again)
    assert first < again[0] < first + 100
    assert all([await js.get(QUEUE, sequence) for sequence in (first, *again)])
    for racer in record_arena.racers:
        assert await queues.waiting(racer, "bob") == {SUBJECT: 4 + again[0] - first - 1}
    form = queues.durable_form(record_arena.settings, "bob", Operation.SIGN)
    await streams.ensure_durable(js, QUEUE, form)
    found = await js.api(f"CONSUMER.INFO.{QUEUE}.{form['durable_name']}")
    assert found["num_pending"] >= 4
