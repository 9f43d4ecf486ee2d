"""Three nats-servers as one JetStream cluster on loopback, each killed and restarted at will."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from pathlib import Path

from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.dev import servers
from initiator.errors import InitiatorError, RetryError

SIZE = 3


class Cluster:
    """A running cluster; `urls` in the order of the servers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = [servers.free_port() for _ in range(SIZE)]
        self._routes = [servers.free_port() for _ in range(SIZE)]
        self._processes: list[Process | None] = [None] * SIZE

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"nats://127.0.0.1:{port}" for port in self._ports)

    def settings(self, first: int = 0) -> NatsSettings:
        """A login that prefers one of the servers."""
        return NatsSettings(servers=self.urls[first:] + self.urls[:first], request_timeout_s=2.0)

    async def start(self, index: int) -> None:
        name = f"n{index}"
        routes = [f"nats-route://127.0.0.1:{port}" for port in self._routes]
        path = self._folder / f"{name}.conf"
        path.write_text(
            f"""
server_name: {name}
listen: "127.0.0.1:{self._ports[index]}"
jetstream {{ store_dir: {json.dumps(str(self._folder / name))} }}
cluster {{ name: c, listen: "127.0.0.1:{self._routes[index]}", routes: {json.dumps(routes)} }}
"""
        )
        self._processes[index] = await asyncio.create_subprocess_exec(
            servers.nats_server_binary(), "-c", str(path), "-l", str(self._folder / f"{name}.log"),
            stdout=DEVNULL, stderr=DEVNULL,
        )  # fmt: skip

    async def kill(self, index: int) -> None:
        """kill -9."""
        process = self._processes[index]
        assert process is not None
        process.kill()
        await process.wait()
        self._processes[index] = None

    async def stop(self) -> None:
        for process in self._processes:
            if process is not None:
                await servers.stop(process, grace_s=5)

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
    cluster = Cluster(folder)
    try:
        for index in range(SIZE):
            await cluster.start(index)
        await cluster.until_ready()
        yield cluster
    finally:
        await cluster.stop()
