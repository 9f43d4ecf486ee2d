"""An authorizer's place: its files, its commands, its service as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.command import run
from tests.support.environment import environment
from tests.support.governed import KEYGEN, Governed, keys_of
from tests.support.harness import Bench


class Place:
    """An authorizer's files, and a daemon that wants its signature."""

    def __init__(self, server: Bench, folder: Path, algorithm: Any = "ed25519") -> None:
        self.folder = folder
        self.governed = Governed(server, folder)
        self.key_file = folder / "risk.key"
        made = command("authorizer", "key", str(self.key_file), "--id", "risk", "--algorithm", algorithm)
        assert made.returncode == 0, made.stderr
        nodes, _, policy = made.stdout.partition("# the daemon's policy")
        # else mpcium's nodes take messages that no authorizer has signed
        assert yaml.safe_load(nodes)["authorization"]["required_authorizers"] == ["risk"]
        shown_ = yaml.safe_load(policy)
        self.authorizers = shown_["authorizers"]
        self.governed.write(
            [KEYGEN | {"authorizers": ["risk"]}], authorizers=self.authorizers, clients=keys_of("alice")
        )
        self.config = folder / "authorizer.yaml"

    def configure(self, rules: list[dict[str, Any]] | None = None, **changes: Any) -> None:
        settings: dict[str, Any] = {
            "authorizer_id": "risk",
            "nats": {"servers": [self.governed.server.url]},
            "key": {"path": str(self.key_file)},
            "event_initiator_pubkey": self.governed.signer.public_key.hex,
            "decisions": str(self.folder / "decisions.db"),
            "log": {"format": "json"},
        }
        if rules is not None:
            policy = self.folder / "own.yaml"
            policy.write_text(json.dumps({"version": 1, "rules": rules, "clients": keys_of("alice")}))
            settings["policy"] = str(policy)
        self.config.write_text(json.dumps(settings | changes))


def command(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return run(*arguments, given=(text or "").encode())


@contextlib.asynccontextmanager
async def served(place: Place) -> AsyncIterator[list[dict[str, Any]]]:
    """The service as a process, and what it logs."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "initiator", "authorizer", "run", "--config", str(place.config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment(),
    )  # fmt: skip
    lines: list[dict[str, Any]] = []
    assert child.stdout is not None
    stdout = child.stdout

    async def read() -> None:
        async for line in stdout:
            lines.append(json.loads(line))

    reader = asyncio.create_task(read())
    try:
        async with asyncio.timeout(60):
            while not any(line["event"] == "authorizer.started" for line in lines):
                await asyncio.sleep(0.02)
        yield lines
    finally:
        os.kill(child.pid, signal.SIGTERM)
        assert await child.wait() == 0
        await reader


async def approve(place: Place, *options: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(command, "authorizer", "approve", "--config", str(place.config), *options, text=text)
