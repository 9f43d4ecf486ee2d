"""A JetStream to hold the record: one server, and a real cluster of three with three copies of each stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from initiator.bus import streams
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings, Settings
from initiator.dev import servers
from initiator.errors import InitiatorError
from tests.support.nats_cluster import Cluster, connected, nats_cluster

RACERS = 3


@dataclass(frozen=True)
class Arena:
    """Racers with connections of their own, to servers of their own where there are several."""

    racers: list[JetStream]
    settings: Settings
    cluster: Cluster | None


def settings_for(replicas: int) -> Settings:
    return Settings.model_validate(
        {"clients": {"alice": {}, "bob": {}}, "streams": {"replicas": replicas}, "mpcium": {"sign": {"in_flight": 10}}}
    )


@contextlib.asynccontextmanager
async def arena(settings: Settings, logins: list[NatsSettings], cluster: Cluster | None) -> AsyncIterator[Arena]:
    connections = [await connected(login) for login in logins]
    try:
        racers = [JetStream(connection) for connection in connections]
        await _until_made(racers[0], settings)
        yield Arena(racers, settings, cluster)
    finally:
        for connection in connections:
            await connection.close()


async def _until_made(js: JetStream, settings: Settings) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                return await streams.ensure_own(js, settings)
            except InitiatorError:
                await asyncio.sleep(0.2)


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=[1, 3], ids=["R1", "R3"])
async def record_arena(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Arena]:
    """Shared by a module: its tests take ids of their own."""
    folder: Path = tmp_path_factory.mktemp("jetstream")
    settings = settings_for(request.param)
    async with contextlib.AsyncExitStack() as exits:
        if request.param == 1:
            place = servers.NatsProcess().place(folder)
            url = await exits.enter_async_context(servers.nats_server(place, folder))
            logins, cluster = [NatsSettings(servers=(url,))] * RACERS, None
        else:
            cluster = await exits.enter_async_context(nats_cluster(folder))
            logins = [cluster.settings(index) for index in range(RACERS)]
        yield await exits.enter_async_context(arena(settings, logins, cluster))
