"""Three nats-servers as one JetStream cluster on loopback, each killed and restarted at will."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.errors import InitiatorError, RetryError
from tests.support.nats_servers import NatsServers

SIZE = 3


class Cluster(NatsServers):
    """A running cluster; `urls` in the order of the servers."""

    def settings(self, first: int = 0) -> NatsSettings:
        """A login that prefers one of the servers."""
        return NatsSettings(servers=self.urls[first:] + self.urls[:first], request_timeout_s=2.0)

    async def until_ready(self) -> None:
        """A leader of the meta group answers."""
        connection = await connected(self.settings())
        try:
            js = JetStream(connection)
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(InitiatorError):
                        await js.api("INFO")
                        return
                    await asyncio.sleep(0.1)
        finally:
            await connection.close()

    async def leader_of(self, js: JetStream, stream: str) -> int:
        """The index of the server that leads a stream."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(InitiatorError):
                    leader = (await js.api(f"STREAM.INFO.{stream}")).get("cluster", {}).get("leader")
                    if leader:
                        return int(str(leader).removeprefix("n"))
                await asyncio.sleep(0.1)


async def connected(settings: NatsSettings) -> Connection:
    """A connection that waits for its server."""
    async with asyncio.timeout(30):
        while True:
            connection = Connection(settings, "test")
            try:
                await connection.open()
            except RetryError:
                await asyncio.sleep(0.1)
            else:
                return connection


@contextlib.asynccontextmanager
async def nats_cluster(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster for the length of the block."""
    cluster = Cluster(folder, SIZE)
    try:
        await cluster.start_all()
        await cluster.until_ready()
        yield cluster
    finally:
        await cluster.stop()
