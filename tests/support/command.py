"""The command line as a process of its own that need not import anything: forked off one that has done so already.

To start Python and import all libraries takes a second of a busy core, the command itself a few milliseconds. What
starting from nothing is part of the matter (daemons, pipes that close, signals at any moment) is tested without this.
"""

from __future__ import annotations

import atexit
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

from tests.support.environment import environment

ROOT = Path(__file__).parents[2]
_STARTING = threading.Lock()
_started: Path | None = None


def run(
    *words: str, env: Mapping[str, str] | None = None, given: bytes = b"", timeout_s: float = 60
) -> CompletedProcess[str]:
    """Run `initiator` with these words to its end.

    Args:
        env: the whole environment; default: that of programs that tests start.
        given: its standard input, from a file.
    """
    with tempfile.TemporaryFile() as taken, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        taken.write(given)
        taken.seek(0)
        order = {"words": words, "env": dict(environment() if env is None else env), "folder": str(Path.cwd())}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(server()))
            socket.send_fds(connection, [b"."], [taken.fileno(), out.fileno(), err.fileno()])
            connection.sendall(json.dumps(order).encode() + b"\n")
            try:
                code = int(connection.makefile().readline())
            except TimeoutError:
                raise TimeoutExpired(["initiator", *words], timeout_s) from None
        for file in (out, err):
            file.seek(0)
        return CompletedProcess(["initiator", *words], code, out.read().decode(), err.read().decode())


def program(folder: Path) -> None:
    """Put a program `initiator` into a folder that does the same for whoever calls it, signals included."""
    launcher = Path(__file__).with_name("command_launcher.py")
    path = folder / "initiator"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I {launcher} {server()} "$@"\n')
    path.chmod(0o700)


def server() -> Path:
    """The socket of the process that forks; it is started once, and ends with this one."""
    global _started
    with _STARTING:
        if _started is None:
            folder = Path(tempfile.mkdtemp(prefix="initiator-command-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            path = folder / "socket"
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.support.command_server", str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment(),
            )  # fmt: skip
            assert child.stdout is not None
            assert child.stdout.readline() == b"listening\n"
            atexit.register(child.kill)
            _started = path
    return _started
