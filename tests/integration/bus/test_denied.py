"""A login that lacks a permission: whoever asks is told so, and which one, instead of waiting."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from initiator.audit.progress import Progress
from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.bus.nodes import NodeGateway, NodeMessage
from initiator.config.schema import NatsSettings
from initiator.core.model import Operation
from initiator.core.orders import ALL, Freeze, Orders
from initiator.dev import servers
from initiator.errors import Code, RetryError
from initiator.orders import OrderBook
from tests.support.nats_restart import restartable_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
IN_DOMAIN = 'listen: "127.0.0.1:-1"\njetstream { domain: hub, max_file_store: 0 }\n'
USER = """
authorization { users: [ { user: reader, password: right, permissions: {
    publish: ["$JS.API.STREAM.CREATE.>", "$JS.API.STREAM.MSG.GET.>"], subscribe: [">"] } } ] }
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def js(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JetStream]:
    async with restartable_server(tmp_path_factory.mktemp("denied"), USER) as server:
        # any wait for an answer that does not come ends the test
        login = {"user": "reader", "password": "right"}
        settings = NatsSettings.model_validate({"servers": [server.url], "request_timeout_s": 300.0} | login)
        connection = Connection(settings, "test")
        await connection.open()
        yield JetStream(connection)
        await connection.close()


async def test_an_order_that_may_not_be_given(js: JetStream) -> None:
    await js.api("STREAM.CREATE.INITIATOR_EVENTS", {"name": "INITIATOR_EVENTS", "subjects": ["initiator.control.>"]})
    freeze = Freeze(scope=ALL, by="ann", at=0.0, reason="a drill")
    with pytest.raises(RetryError, match=r'publish to "initiator\.control\.orders"') as error:
        await OrderBook(js).change(lambda seen: (Orders(freezes=(*seen.freezes, freeze)), {"change": "freeze"}))
    assert error.value.code is Code.BUS_DENIED


async def test_how_far_an_export_has_come_may_not_be_said(js: JetStream) -> None:
    with pytest.raises(RetryError, match=r'the log is written.*publish to "initiator\.exported\.max"') as error:
        await Progress(js, "max").insist(7)
    assert error.value.code is Code.BUS_DENIED


async def test_in_a_domain_a_call_is_refused_by_the_name_without_it(tmp_path: Path) -> None:
    async with servers.nats_server(f"{IN_DOMAIN}{USER}ports_file_dir: {json.dumps(str(tmp_path))}", tmp_path) as url:
        login = {"user": "reader", "password": "right"}
        settings = NatsSettings.model_validate({"servers": [url], "request_timeout_s": 300.0} | login)
        connection = Connection(settings, "test")
        await connection.open()
        try:
            with pytest.raises(RetryError) as error:
                await JetStream(connection, "hub").api("STREAM.DELETE.INITIATOR_EVENTS")
        finally:
            await connection.close()
    assert error.value.code is Code.BUS_DENIED


async def test_a_reshare_that_may_not_be_sent_is_not_taken_for_delivered(js: JetStream) -> None:
    message = NodeMessage(operation=Operation.RESHARE, operation_id="s1", attempt=1, data=b"event", session_id="s1")
    with pytest.raises(RetryError, match='publish to "mpc:reshare"') as error:
        await NodeGateway(js, "initiator").send_reshare(message)
    assert error.value.code is Code.BUS_DENIED
