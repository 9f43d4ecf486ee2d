"""`initiator dev`, as somebody uses it for a day: its daemon dies, and a second one is started beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.environment import environment


@contextlib.asynccontextmanager
async def dev(state: Path) -> AsyncIterator[tuple[Process, str]]:
    """A running one, and what it said until it was ready."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-m", "initiator", "dev", "--kms", "local",
        stdout=PIPE, stderr=asyncio.subprocess.STDOUT, env=environment() | {"XDG_STATE_HOME": str(state)},
    )  # fmt: skip
    try:
        yield child, await said_until(child, "Ctrl-C ends everything")
    finally:
        child.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(child.wait(), 30) == 0


async def said_until(child: Process, words: str) -> str:
    assert child.stdout is not None
    seen = ""
    async with asyncio.timeout(60):
        while words not in seen:
            line = await child.stdout.readline()
            assert line, seen
            seen += line.decode()
    return seen


async def request(state: Path, *arguments: str) -> dict[str, str]:
    command = [sys.executable, "-m", "initiator", *arguments]
    child = await asyncio.create_subprocess_exec(
        *command, stdout=PIPE, env=environment() | {"XDG_STATE_HOME": str(state)}
    )
    output, _ = await asyncio.wait_for(child.communicate(), 60)
    found: dict[str, str] = json.loads(output)
    return found


async def test_its_daemon_is_started_again_and_knows_everything(tmp_path: Path) -> None:
    async with dev(tmp_path) as (child, said):
        made = await request(tmp_path, "request", "keygen", "--wallet-id", "w1", "--wait", "--json")
        assert made["state"] == "completed"
        found = re.search(r"daemon +pid (\d+);", said)
        assert found
        os.kill(int(found[1]), signal.SIGKILL)
        again = await said_until(child, "ready; the daemon is pid")
        assert "the daemon ended (SIGKILL); it is started again" in again
        assert (await request(tmp_path, "status", "keygen", "w1", "--json"))["state"] == "completed"


async def test_a_second_one_takes_no_commands_from_the_first(tmp_path: Path) -> None:
    async with dev(tmp_path):
        await request(tmp_path, "request", "keygen", "--wallet-id", "w1", "--wait", "--json")
        async with dev(tmp_path) as (_, said):
            own = re.search(r"unless they name this one with --context (\S+)", said)
            assert own
            assert (await request(tmp_path, "status", "keygen", "w1"))["state"] == "completed"
            assert (await request(tmp_path, "status", "keygen", "w1", "--context", own[1]))["state"] == "unknown"
        assert (await request(tmp_path, "status", "keygen", "w1"))["state"] == "completed"


def exists(folder: str) -> bool:
    return Path(folder).exists()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not shutil.which("setpriv"), reason="util-linux's setpriv is not on this machine")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
async def test_nothing_of_it_stays_when_its_terminal_or_itself_goes(tmp_path: Path, number: signal.Signals) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-m", "initiator", "dev", "--kms", "local",
        stdout=PIPE, stderr=asyncio.subprocess.STDOUT, env=environment() | {"XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    said = await said_until(child, "Ctrl-C ends everything")
    below = children(child.pid)
    assert len(below) == 3  # nats-server, the nodes, the daemon
    child.send_signal(number)
    await asyncio.wait_for(child.wait(), 30)
    async with asyncio.timeout(30):
        while any(alive(pid) for pid in below):
            await asyncio.sleep(0.1)
    folder = re.search(r"its settings +(\S+)/initiator.yaml", said)
    assert folder
    assert number == signal.SIGKILL or not exists(folder[1])
    shutil.rmtree(folder[1], ignore_errors=True)
