"""The way to the nodes: once by the server's own word, and what absence proves."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from initiator.bus import streams
from initiator.bus.connection import Connection, Message, NoRespondersError
from initiator.bus.jetstream import JetStream
from initiator.bus.nodes import NodeGateway, NodeMessage
from initiator.config.schema import NatsSettings
from initiator.core import subjects
from initiator.core.model import Operation
from tests.support.nats_restart import restartable_server


@pytest.fixture
async def js(tmp_path: Path) -> AsyncIterator[JetStream]:
    async with restartable_server(tmp_path) as server:
        connection = Connection(NatsSettings(servers=(server.url,)), "test")
        await connection.open()
        found = JetStream(connection)
        await streams.ensure_nodes(found, "scoped")
        yield found
        await connection.close()


def signed(data: bytes = b"event", operation: Operation = Operation.SIGN, attempt: int = 1) -> NodeMessage:
    return NodeMessage(operation=operation, operation_id="tx1", attempt=attempt, data=data, session_id="s1")


async def test_of_many_who_publish_an_attempt_one_is_told_that_it_did(js: JetStream) -> None:
    told = await asyncio.gather(*(NodeGateway(js, "initiator").publish(signed()) for _ in range(20)))
    assert sum(told) == 1
    found = await NodeGateway(js, "initiator").find(Operation.SIGN, "tx1", 1)
    assert found is not None
    assert (found.subject, found.data) == ("mpc.signing_request.tx1~1", b"event")
    assert (found.headers["ClientID"], found.headers["SessionID"]) == ("initiator", "s1")


async def test_a_further_attempt_has_a_token_of_its_own(js: JetStream) -> None:
    gateway = NodeGateway(js, "initiator")
    assert await gateway.publish(signed(attempt=1))
    assert await gateway.publish(signed(attempt=2))
    assert not await gateway.publish(signed(b"other", attempt=2))
    found = await gateway.find(Operation.SIGN, "tx1", 2)
    assert found is not None
    assert found.data == b"event"


async def test_unscoped_results_need_no_client_id(js: JetStream) -> None:
    gateway = NodeGateway(js, None)
    assert await gateway.publish(signed())
    found = await gateway.find(Operation.SIGN, "tx1", 1)
    assert found is not None
    assert "ClientID" not in found.headers


async def test_absence_proves_something_only_where_nothing_was_forgotten(js: JetStream) -> None:
    gateway = NodeGateway(js, "initiator")
    await asyncio.sleep(0.01)
    since = time.time()
    assert await gateway.find(Operation.SIGN, "tx1", 1) is None
    assert not await gateway.may_have_forgotten(signed(), since, 0.0)
    await gateway.publish(signed())
    assert not await gateway.may_have_forgotten(signed(), since, 0.0)
    stream = subjects.NODE_STREAMS[Operation.SIGN]
    await js.purge(stream, "mpc.signing_request.*")
    assert await gateway.may_have_forgotten(signed(), since, 0.0)
    await gateway.publish(signed(attempt=2))
    assert await gateway.may_have_forgotten(signed(), since, 0.0)
    assert not await gateway.may_have_forgotten(signed(), time.time() + 1, 0.0)


async def test_a_stream_that_was_lost_and_made_again_proves_nothing(js: JetStream) -> None:
    gateway, since = NodeGateway(js, "initiator"), time.time()
    stream = subjects.NODE_STREAMS[Operation.SIGN]
    await js.api(f"STREAM.DELETE.{stream}")
    assert await gateway.may_have_forgotten(signed(), since, 2.0)
    await streams.ensure_nodes(js, "scoped")
    assert await gateway.may_have_forgotten(signed(), since, 2.0)
    assert await gateway.may_have_forgotten(signed(), time.time() + 1, 2.0)  # the server's clock may be behind
    assert not await gateway.may_have_forgotten(signed(), time.time() + 3, 2.0)


async def test_whatever_the_clocks_say_a_stream_is_told_from_one_made_after_it(js: JetStream) -> None:
    gateway, stream = NodeGateway(js, "initiator"), subjects.NODE_STREAMS[Operation.SIGN]
    await gateway.note_streams()
    message = dataclasses.replace(signed(), stream=gateway.birth(Operation.SIGN))
    assert not await gateway.may_have_forgotten(message, since=0.0, margin_s=2.0)
    await js.api(f"STREAM.DELETE.{stream}")
    await streams.ensure_nodes(js, "scoped")
    assert await gateway.may_have_forgotten(message, since=time.time() + 3600, margin_s=2.0)
    await gateway.note_streams()
    later = dataclasses.replace(message, stream=gateway.birth(Operation.SIGN))
    assert not await gateway.may_have_forgotten(later, since=0.0, margin_s=2.0)


async def test_a_reshare_that_nobody_hears_surely_went_nowhere(js: JetStream) -> None:
    with pytest.raises(NoRespondersError) as error:
        await NodeGateway(js, "initiator").send_reshare(signed(operation=Operation.RESHARE))
    assert not error.value.maybe_done


async def test_a_reshare_that_is_heard_needs_no_answer(js: JetStream) -> None:
    heard: list[Message] = []

    async def node(message: Message) -> None:
        heard.append(message)

    await js.connection.subscribe("mpc:reshare", node)
    await NodeGateway(js, "initiator").send_reshare(signed(operation=Operation.RESHARE))
    assert [(message.data, message.headers["SessionID"]) for message in heard] == [(b"event", "s1")]
