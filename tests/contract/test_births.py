"""What tells a stream from a later one by the same name: its birth stays what it was as long as it lives."""

from __future__ import annotations

import asyncio
from pathlib import Path

from initiator.bus import forms
from initiator.bus.jetstream import JetStream
from initiator.bus.nodes import NodeGateway
from initiator.config.schema import NatsSettings
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.errors import InitiatorError
from tests.support.nats_cluster import SIZE, connected, nats_cluster
from tests.support.nats_restart import restartable_server

STREAM = subjects.NODE_STREAMS[Operation.SIGN]


async def birth(settings: NatsSettings) -> str:
    """As a daemon that connects just now learns it."""
    connection = await connected(settings)
    try:
        gateway = NodeGateway(JetStream(connection), "initiator")
        async with asyncio.timeout(40):
            while gateway.birth(Operation.SIGN) is None:
                try:
                    await gateway.note_streams()
                except InitiatorError:
                    await asyncio.sleep(0.1)
        found = gateway.birth(Operation.SIGN)
        assert found is not None
        return found
    finally:
        await connection.close()


def form_of(js: JetStream, replicas: int) -> dict[str, object]:
    form = next(form for form in forms.node_forms("scoped") if form["name"] == STREAM)
    return dict(form) | {"num_replicas": replicas}


async def test_on_one_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with restartable_server(tmp_path) as server:
        settings = NatsSettings(servers=(server.url,))
        connection = await connected(settings)
        js = JetStream(connection)
        form = form_of(js, 1)
        await js.api(f"STREAM.CREATE.{STREAM}", form)
        born = await birth(settings)
        await js.api(f"STREAM.UPDATE.{STREAM}", form | {"max_msg_size": 100_000})
        assert await birth(settings) == born
        await server.kill()
        await server.start()
        assert await birth(settings) == born
        await connection.close()
        connection = await connected(settings)
        js = JetStream(connection)
        await js.api(f"STREAM.DELETE.{STREAM}")
        await js.api(f"STREAM.CREATE.{STREAM}", form)
        assert await birth(settings) != born
        await connection.close()


async def test_on_three_servers_whoever_leads_and_whoever_was_killed(tmp_path: Path) -> None:
    async with nats_cluster(tmp_path) as cluster:
        connection = await connected(cluster.settings())
        js = JetStream(connection)
        form = form_of(js, SIZE)
        async with asyncio.timeout(30):
            while True:
                try:
                    await js.api(f"STREAM.CREATE.{STREAM}", form)
                    break
                except InitiatorError:
                    await asyncio.sleep(0.2)
        born = {await birth(cluster.settings(index)) for index in range(SIZE)}
        assert len(born) == 1
        await cluster.leader_of(js, STREAM)
        await js.api(f"STREAM.UPDATE.{STREAM}", form | {"max_msg_size": 100_000})
        await js.api(f"STREAM.LEADER.STEPDOWN.{STREAM}")
        for index in range(SIZE):
            await cluster.kill(index)
            await cluster.start(index)
            await cluster.until_ready()
            assert {await birth(cluster.settings(index))} == born
        await connection.close()
