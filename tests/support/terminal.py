"""A reader's terminal: what a page says is typed into a shell, and what comes is held against what the page shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Self

from tests.support import command
from tests.support.environment import environment
from tests.support.pages import ROOT

TIMEOUT_S = 120.0
BIN = Path(sys.executable).parent

# What differs from run to run; all else must come as it is shown. The first that fits counts.
_VARIES = {
    r"…": r".*",
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?Z?": r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?",
    r"SHA256:[A-Za-z0-9+/]{43}": r"SHA256:[A-Za-z0-9+/]{43}",
    r"U[A-Z2-7]{55}": r"U[A-Z2-7]{55}",  # an NKey
    r"(?<![A-Za-z0-9])(?=[a-f]*\d)[0-9a-f]{6,}(?![A-Za-z0-9])": r"[0-9a-f]{6,}",
    r"(?<!\w)\d+(?:\.\d+)*(?!\w)": r"\d+(\.\d+)*",
    r"[ \t]+": r"[ \t]+",
}
_ANY = re.compile("|".join(f"({pattern})" for pattern in _VARIES))


def pattern_of(shown: str) -> str:
    """What output must match that a page shows as `shown`: times, numbers, keys and spaces may differ, and `…` is
    anything; as a line of its own any number of lines."""
    return "".join(r"(.*\n)*" if line.strip() == "…" else f"{_line(line.rstrip())}\n" for line in shown.splitlines())


def _line(text: str) -> str:
    found, end, becomes = "", 0, list(_VARIES.values())
    for match in _ANY.finditer(text):
        assert match.lastindex is not None
        found += re.escape(text[end : match.start()]) + becomes[match.lastindex - 1]
        end = match.end()
    return found + re.escape(text[end:])


def fits(shown: str, output: str) -> bool:
    """Whether `output` is what the page shows."""
    lines = "".join(f"{line.rstrip()}\n" for line in output.splitlines())
    return re.fullmatch(pattern_of(shown), lines) is not None


class _Typed:
    """One command, on a terminal of its own."""

    def __init__(self, script: str, folder: Path, env: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 300, 0, 0))
        self.process = subprocess.Popen(
            ["bash", "-c", script], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._bytes = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the last one who held the other end is gone
            while data := os.read(self._ours, 65_536):
                self._bytes.extend(data)

    @property
    def output(self) -> str:
        return self._bytes.decode(errors="replace").replace("\r\n", "\n")

    @property
    def ended(self) -> bool:
        """Whether it has ended. It stays a zombie until `end`, so that nobody else can get its process group's id."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> int:
        until = time.monotonic() + TIMEOUT_S
        while not self.ended:
            assert time.monotonic() < until, f"it does not end:\n{self.output}"
            time.sleep(0.02)
        self._reader.join(2)  # what runs on in the background keeps the terminal open
        result = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        assert result is not None
        return result.si_status

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + TIMEOUT_S
        while text not in self.output:
            assert not self.ended, f"it ended:\n{self.output}"
            assert time.monotonic() < until, f"no {text!r} came:\n{self.output}"
            time.sleep(0.05)

    def end(self) -> None:
        """SIGTERM, and SIGKILL for who does not listen; also for what runs on in the background."""
        os.killpg(self.process.pid, signal.SIGTERM)
        until = time.monotonic() + 30
        while not self.ended and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        os.close(self._ours)


class Terminal:
    """A folder that looks like a checkout with its `.venv`, a home of its own, and a shell that keeps its variables.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[_Typed] = []
        self._running: dict[str, _Typed] = {}
        self._variables = folder / ".variables"
        self._variables.touch()
        (folder / "bin").mkdir()
        command.program(folder / "bin")
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "docs").symlink_to(ROOT / "docs")
        (folder / "deploy").symlink_to(ROOT / "deploy")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for typed in reversed(self._all):
            typed.end()

    def type(self, command: str) -> tuple[int, str]:
        """Exit code and output."""
        typed = self._start(f"{command}\ncode=$?\nexport -p > {self._variables}\nexit $code")
        return typed.wait(), typed.output

    def leave_running(self, command: str, until: str) -> str:
        """Start it, and go on when it has said `until`; returns what it has said so far."""
        typed = self._start(f"exec {command}")
        typed.wait_for(until)
        self._running[command] = typed
        return typed.output

    def running(self) -> dict[str, bool]:
        """What was left running, and whether it still does."""
        return {command: not typed.ended for command, typed in self._running.items()}

    def _start(self, script: str) -> _Typed:
        env = {name: value for name, value in environment().items() if not name.startswith(("AWS_", "XDG_", "NATS_"))}
        home = {"HOME": str(self.folder), "TERM": "dumb", "PATH": f"{self.folder / 'bin'}:{BIN}:{env['PATH']}"}
        typed = _Typed(f". {self._variables}\n{script}", self.folder, env | home)
        self._all.append(typed)
        return typed
