"""nats-server in a container: `nats:2` where it can be pulled, else an image made here around the wheel's binary."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import cache
from pathlib import Path
from typing import Any, cast

import docker
import docker.errors
import requests
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage

from initiator.dev import servers

PULLED, BUILT = "nats:2", "initiator-test-nats:wheel"
_DOCKERFILE = """\
FROM scratch
COPY nats-server /nats-server
ENTRYPOINT ["/nats-server"]
"""


@cache
def no_engine() -> str:
    """Why no container can run here; empty where one can."""
    try:
        client = docker.from_env(timeout=5)
        client.ping()
        client.close()
    except (docker.errors.DockerException, requests.RequestException, OSError):
        return "no container engine answers here (DOCKER_HOST, /var/run/docker.sock)"
    return ""


@cache
def image() -> str:
    """The image to run; made or pulled once."""
    # the engine is on this machine, and Ryuk is one more image to pull: each test removes its own container
    testcontainers_config.ryuk_disabled = True
    client = docker.from_env(timeout=10)
    try:
        for name in (PULLED, BUILT):
            with contextlib.suppress(docker.errors.ImageNotFound):
                client.images.get(name)
                return name
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
            client.images.pull("nats", tag="2")
            return PULLED
    finally:
        client.close()
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(servers.nats_server_binary(), Path(context) / "nats-server")
        (Path(context) / "Dockerfile").write_text(_DOCKERFILE)
        DockerImage(path=context, tag=BUILT, clean_up=False).build()
    return BUILT


class NatsContainer:
    """A `NatsHost` of the development stack; `container` is set while it runs."""

    def __init__(self) -> None:
        self.container: DockerContainer | None = None
        self.port = servers.free_port()

    def place(self, folder: Path) -> str:
        return f'listen: "0.0.0.0:4222"\njetstream {{ store_dir: {json.dumps("/store")} }}'

    def start(self, config: str, folder: Path) -> AbstractAsyncContextManager[str]:
        return self._running(config, folder)

    @contextlib.asynccontextmanager
    async def _running(self, config: str, folder: Path) -> AsyncIterator[str]:
        mounted = folder / "container"
        mounted.mkdir()
        (mounted / "nats.conf").write_text(config)
        container = DockerContainer(await asyncio.to_thread(image), command="-c /etc/nats-test/nats.conf")
        container.with_volume_mapping(str(mounted), "/etc/nats-test", "ro")
        # testcontainers' own call would open the port on every interface
        cast("dict[str, Any]", container.ports)["4222/tcp"] = ("127.0.0.1", self.port)
        await asyncio.to_thread(container.start)
        self.container = container
        try:
            await self._until_open()
            yield f"nats://127.0.0.1:{self.port}"
        finally:
            self.container = None
            await asyncio.to_thread(container.stop)

    async def kill_and_restart(self) -> None:
        """kill -9 of the server in its container, and the same container again: its store stays.

        It stops for a moment first, so that what was on its way to it is surely lost: its peers have sent it.
        """
        assert self.container is not None
        wrapped = self.container.get_wrapped_container()
        await asyncio.to_thread(wrapped.kill, signal="SIGSTOP")
        await asyncio.sleep(0.5)
        await asyncio.to_thread(wrapped.kill)
        await asyncio.to_thread(wrapped.start)
        await self._until_open()

    async def _until_open(self) -> None:
        """The port answers with a greeting (the engine's proxy listens before the server does)."""
        async with asyncio.timeout(servers.START_TIMEOUT_S):
            while True:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    greeting = await reader.readline()
                    writer.close()
                    if greeting.startswith(b"INFO "):
                        return
                await asyncio.sleep(0.05)


def in_ci() -> bool:
    """Where containers were promised, their absence is a failure and no skip."""
    return os.environ.get("INITIATOR_CONTAINERS") == "required"
