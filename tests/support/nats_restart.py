"""One nats-server that can be killed and started again on its port and store."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from pathlib import Path

from initiator.dev import servers


class RestartableServer:
    """A server process; `extra` are further lines of its configuration."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self._config = folder / "nats.conf"
        self.port = servers.free_port()
        store = json.dumps(str(folder / "jetstream"))
        self._config.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: {store} }}\n{extra}\n')
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            servers.nats_server_binary(), "-c", str(self._config), stdout=DEVNULL, stderr=DEVNULL
        )
        async with asyncio.timeout(servers.START_TIMEOUT_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@contextlib.asynccontextmanager
async def restartable_server(folder: Path, extra: str = "") -> AsyncIterator[RestartableServer]:
    server = RestartableServer(folder, extra)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
