"""An operator's place: the command line beside a daemon in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initiator.config.schema import Settings
from tests.support import command
from tests.support.environment import environment
from tests.support.harness import Bench

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
JSON = {"Content-Type": "application/json"} | TRACE


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


class Desk:
    """The command line with the daemon's settings, and the bench for everything else."""

    def __init__(self, server: Bench, settings: Settings, folder: Path) -> None:
        self.server = server
        self._config = folder / "initiator.yaml"
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        self.settings = settings
        self._config.write_text(settings.model_dump_json(exclude_unset=True))  # JSON is YAML

    def _words(self, *arguments: str) -> list[str]:
        return ["--config", str(self._config), "dlq", *arguments]

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "initiator", *self._words(*arguments)]

    async def dlq(self, *arguments: str) -> Done:
        done = await asyncio.to_thread(command.run, *self._words(*arguments))
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    async def on_a_terminal(self, answer: str, *arguments: str) -> Done:
        """With a terminal as standard input, and a person who types `answer`."""
        ours, theirs = pty.openpty()
        try:
            os.write(ours, f"{answer}\n".encode())
            done = await asyncio.to_thread(
                subprocess.run, self._command(*arguments), stdin=theirs, capture_output=True, text=True, timeout=60,
                check=False, env=environment(),
            )  # fmt: skip
        finally:
            os.close(ours)
            os.close(theirs)
        return Done(done.returncode, done.stdout, done.stderr)

    async def on_a_screen(self, columns: int, *arguments: str) -> Done:
        """With a terminal of so many columns as standard output."""
        ours, theirs = pty.openpty()
        shown = asyncio.create_task(asyncio.to_thread(_read_all, ours))
        try:
            done = await asyncio.to_thread(
                subprocess.run, self._command(*arguments), stdin=subprocess.DEVNULL, stdout=theirs,
                stderr=subprocess.PIPE, text=True, timeout=60, check=False,
                env=environment() | {"COLUMNS": str(columns)},
            )  # fmt: skip
        finally:
            os.close(theirs)
            out = await shown
            os.close(ours)
        return Done(done.returncode, out.replace("\r\n", "\n"), done.stderr)

    async def bytes_of(self, *arguments: str) -> bytes:
        """What a command wrote into a pipe."""
        done = await asyncio.to_thread(
            subprocess.run, self._command(*arguments), capture_output=True, timeout=60, check=True, env=environment(),
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return bytes(done.stdout)

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        """A request as its sender publishes it; returns its sequence."""
        return (await self.server.js.publish(f"initiator.request.{subject}", data, headers=headers)).seq

    async def refused(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> int:
        """The same, and what becomes of it: the sequence of its dead letter."""
        request = await self.publish(subject, data, headers)
        await self.server.rejection(request, client=subject.partition(".")[0])
        return await self.letter_of(subject, request)

    async def bury(self, subject: str, data: bytes, **headers: str) -> int:
        """A dead letter as the daemon writes it, of a request that was never there; returns its sequence."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await self.server.js.publish(f"initiator.dead.{subject}.{time.time_ns()}", data, headers=named)).seq

    async def letter_of(self, subject: str, request: int) -> int:
        found = await self.server.js.get_last_msg("INITIATOR_DEAD", f"initiator.dead.{subject}.{request}")
        assert found.seq is not None
        return found.seq

    async def orphan(self, op: str) -> None:
        """A result that nobody asked for."""
        known = {"wallet_id": "w", "tx_id": "nobody"} if op == "sign" else {"wallet_id": "nobody"}
        await self.server.answer(op, "nobody", self.server.error(op, "nobody", "ERROR_UNKNOWN", **known))
        await self.server.results_settled()

    async def letters(self) -> int:
        return (await self.server.js.stream_info("INITIATOR_DEAD")).state.messages

    async def empty_queues(self) -> None:
        """Nothing waits any more of what earlier tests began."""
        for client in ("alice", "bob"):
            await self.server.js.purge_stream(f"INITIATOR_REQUESTS_{client}")

    async def requests(self) -> int:
        """How many requests were ever published."""
        queues = [await self.server.js.stream_info(f"INITIATOR_REQUESTS_{client}") for client in ("alice", "bob")]
        return sum(queue.state.last_seq for queue in queues)


def _read_all(terminal: int) -> str:
    read = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(terminal, 65_536):
            read += more
    return read.decode()
