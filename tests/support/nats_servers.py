"""One nats-server, or several as a JetStream cluster, on loopback; each is killed and started again at will."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from pathlib import Path

from initiator.dev import servers

Config = Callable[[int, str], str]


def plain(index: int, place: str) -> str:
    """The configuration of a server that everybody may use."""
    return f"server_name: n{index}\n{place}"


class NatsServers:
    """Servers by their index.

    Args:
        count: with more than one they form a cluster.
        config: a server's configuration, from its index and the part that says where it listens and stores.
    """

    def __init__(self, folder: Path, count: int, config: Config = plain) -> None:
        self._folder = folder
        self._config = config
        self.ports = [servers.free_port() for _ in range(count)]
        self._routes = [servers.free_port() for _ in range(count)]
        self._processes: list[Process | None] = [None] * count

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"nats://127.0.0.1:{port}" for port in self.ports)

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [child.pid for child in self._processes if child is not None]

    def _place(self, index: int) -> str:
        store = json.dumps(str(self._folder / f"n{index}"))
        place = f'listen: "127.0.0.1:{self.ports[index]}"\njetstream {{ store_dir: {store}, max_file_store: 1TB }}'
        if len(self.ports) > 1:
            routes = json.dumps([f"nats-route://127.0.0.1:{port}" for port in self._routes])
            # no_advertise: or clients would learn a way around what stands between
            listen = f'listen: "127.0.0.1:{self._routes[index]}"'
            place += f"\ncluster {{ name: c, {listen}, routes: {routes}, no_advertise: true }}"
        return place

    async def start_all(self) -> None:
        for index in range(len(self.ports)):
            await self.start(index)

    async def start(self, index: int) -> None:
        path = self._folder / f"n{index}.conf"
        path.touch(mode=0o600)
        path.write_text(self._config(index, self._place(index)))
        self._processes[index] = await asyncio.create_subprocess_exec(
            servers.nats_server_binary(), "-c", str(path), "-l", str(self._folder / f"n{index}.log"),
            stdout=DEVNULL, stderr=DEVNULL,
        )  # fmt: skip

    async def kill(self, index: int) -> None:
        """kill -9."""
        child = self._processes[index]
        assert child is not None
        child.kill()
        await child.wait()
        self._processes[index] = None

    async def stop(self) -> None:
        for child in self._processes:
            if child is not None:
                await servers.stop(child, grace_s=5)
