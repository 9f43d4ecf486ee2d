"""Daemons that die or freeze at one boundary of their work, forked from one process that imported it all before.

Everything that the daemon does to the outside goes through three calls, which are wrapped here, as are the ways in (a
request, a result); so a new step has its boundaries by itself, under a name that no table of a test knows yet. Not
counted is what changes nothing: reads, answers to queries, management of streams and consumers, pulls and heartbeats.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from initiator import log
from initiator.app import App
from initiator.bus import forms
from initiator.bus.connection import Connection
from initiator.config.load import load_settings
from initiator.flow.clock import SystemClock
from initiator.flow.handler import Handler
from initiator.flow.results import Results
from initiator.keyfile import LocalSigner

EXIT_CODE = 42
RESULT_ACK_WAIT_S = 1.0  # mpcium's is 30 s: what a dead daemon held would take that long to come back
_NAMES = (
    ("initiator.event.", lambda tokens: f"record {tokens[5]}"),
    ("initiator.authorize.", lambda _: "ask authorizer"),
    ("initiator.reject.", lambda _: "record rejected"),
    ("initiator.dead.", lambda _: "bury"),
    ("initiator.slot.", lambda _: "take slot"),
    ("initiator.out.", lambda _: "announce"),
    ("initiator.takeover.", lambda _: None),  # a mark more or less does no harm
    ("initiator.replica.", lambda _: None),  # that it is there
    ("$JS.API.STREAM.PURGE.INITIATOR_SLOTS_", lambda _: "free slot"),
    ("mpc.", lambda _: "publish to nodes"),
    ("mpc:", lambda _: "publish to nodes"),
    ("$JS.API.", lambda _: None),
    ("_INBOX", lambda _: None),
)
_WORDS = {b"+ACK": "ack", b"-NAK": "hand back", b"+WPI": None}
Name = Callable[..., str | None]


def step_of(_connection: Connection, subject: str, data: bytes, *_: Any) -> str | None:
    """What a message to a subject does, in a word or two; None for what changes nothing."""
    if subject.startswith("$JS.ACK."):
        word = _WORDS.get(data, f"say {data!r} on")
        return word and f"{word} {'result' if subject.split('.')[2] == 'mpc' else 'request'}"
    for prefix, name in _NAMES:
        if subject.startswith(prefix):
            return name(subject.split("."))
    return subject


class Boundaries:
    """Notes boundaries (`before` and `after` a step, numbered where a step comes again) and ends or stops at one."""

    def __init__(self, last: str, passed: Path, freeze: bool) -> None:
        self._last = last
        self._freeze = freeze
        self._passed = passed
        self._times: Counter[str] = Counter()

    def _pass(self, name: str) -> None:
        with self._passed.open("a") as file:
            file.write(f"{name}\n")
        if name != self._last:
            return
        if self._freeze:
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            os._exit(EXIT_CODE)

    def wrap(self, name_of: Name, call: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            name = name_of(*args)
            if name is None:
                return await call(*args, **kwargs)
            self._times[name] += 1
            if self._times[name] > 1:
                name = f"{name} {self._times[name]}"
            self._pass(f"before {name}")
            try:
                return await call(*args, **kwargs)
            finally:
                self._pass(f"after {name}")

        return wrapped


def run_daemon(config: str, last: str, passed: str, freeze: bool, ahead_s: float) -> int:
    """A daemon as `initiator run` makes it, with boundaries."""
    boundaries = Boundaries(last, Path(passed), freeze)
    for way_in, name in ((Handler, "handle"), (Results, "_process")):
        step = f"handle {'request' if way_in is Handler else 'result'}"
        wrapped = boundaries.wrap(lambda *_, step=step: step, getattr(way_in, name))
        setattr(way_in, name, wrapped)
    for name in ("publish", "request"):
        setattr(Connection, name, boundaries.wrap(step_of, getattr(Connection, name)))
    form = forms.result_durable_form
    forms.result_durable_form = lambda *args: form(*args) | {"ack_wait": forms.nanoseconds(RESULT_ACK_WAIT_S)}
    sign = boundaries.wrap(lambda *_: "sign", LocalSigner.sign)
    LocalSigner.sign = sign  # type: ignore[method-assign]
    SystemClock.now = lambda self: time.time() + ahead_s  # type: ignore[method-assign]
    settings = load_settings(config, {}, {}).settings
    log.configure(settings.log)
    return asyncio.run(App(settings).run())


# --- forking


def serve() -> None:
    """For each line of JSON on stdin fork a daemon; its id and exit code go to files beside its list of boundaries."""
    for line in sys.stdin:
        order = json.loads(line)
        if os.fork() == 0:
            _watch_over(order)
            os._exit(0)


def _watch_over(order: dict[str, Any]) -> None:
    passed = Path(order["passed"])
    pid = os.fork()
    if pid == 0:
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = 70
        try:
            code = run_daemon(order["config"], order["last"], order["passed"], bool(order["freeze"]), order["ahead_s"])
        finally:
            sys.stderr.flush()
            os._exit(code)
    _write(passed.with_suffix(".pid"), pid)
    _write(passed.with_suffix(".exit"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _write(path: Path, number: int) -> None:
    draft = path.with_name(path.name + "~")
    draft.write_text(str(number))
    draft.rename(path)


class Daemon:
    """One forked daemon, seen from the test."""

    def __init__(self, passed: Path) -> None:
        self._passed = passed

    def boundaries(self) -> list[str]:
        return self._passed.read_text().splitlines() if self._passed.exists() else []

    async def frozen(self) -> None:
        """Wait until the kernel says that it stands still."""
        pid = await self._wait_for(".pid")
        while not _stands_still(pid):
            await asyncio.sleep(0.01)

    @property
    def has_ended(self) -> bool:
        return self._passed.with_suffix(".exit").exists()

    async def stop(self, number: int) -> int:
        """Send a signal that ends it and wait; returns the exit code."""
        await self.send(number)
        return await self._wait_for(".exit")

    async def send(self, number: int) -> None:
        if not self.has_ended:
            os.kill(await self._wait_for(".pid"), number)

    async def _wait_for(self, suffix: str) -> int:
        while not (text := self._text(suffix)):
            await asyncio.sleep(0.01)
        return int(text)

    def _text(self, suffix: str) -> str:
        path = self._passed.with_suffix(suffix)
        return path.read_text() if path.exists() else ""


def _stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


class Forker:
    """Starts daemons in a hundredth of the time that an import takes."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def start(self, folder: Path, name: str, last: str, *, freeze: bool = False, ahead_s: float = 0.0) -> Daemon:
        """A daemon with `folder/config.json` that ends (or freezes) at a boundary (empty: at none).

        Args:
            ahead_s: how far its clock is ahead of the others'.
        """
        passed = folder / f"{name}.passed"
        order = {
            "config": str(folder / "config.json"),
            "output": str(folder / f"{name}.log"),
            "passed": str(passed),
            "last": last,
            "freeze": freeze,
            "ahead_s": ahead_s,
        }
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()
        return Daemon(passed)


@asynccontextmanager
async def forker() -> AsyncIterator[Forker]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.support.crashing", stdin=PIPE)
    try:
        yield Forker(process)
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    serve()
