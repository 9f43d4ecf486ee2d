"""Forks a process for each command that it is asked for: `python -m tests.support.command_server SOCKET`.

Who asks sends its three standard descriptors, then a line of JSON: the words, the environment, the folder. What it
sends after that are numbers of signals for the command, a byte each; the answer is the exit code, and a caller that
hangs up kills it. The server ends when its own standard input does.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

from initiator import cli

LOOK_S = 0.02


def serve(path: str) -> None:
    """Answer until standard input ends."""
    for place, _sentence in cli._COMMANDS.values():
        importlib.import_module(place.partition(":")[0])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(64)
        print("listening", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those ended who look after the commands
        while True:
            ready, _, _ = select.select([listening, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _look_after(connection)
            connection.close()


def _look_after(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(65_536)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become(json.loads(line), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    code = _wait(pid, connection)
    try:
        connection.sendall(f"{code}\n".encode())
    finally:
        os._exit(0)


def _wait(pid: int, connection: socket.socket) -> int:
    """Hand signals on until it has ended; returns its exit code."""
    watched = [connection]
    while True:
        ready, _, _ = select.select(watched, [], [], LOOK_S)
        if ready:
            numbers = connection.recv(64)
            for number in numbers or [signal.SIGKILL]:
                os.kill(pid, number)
            if not numbers:
                watched = []
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


def _become(order: dict[str, Any], descriptors: list[int]) -> None:
    code = 70
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["folder"])
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        sys.argv = ["initiator", *order["words"]]
        sys.modules["__main__"].__package__ = None  # or click takes the program for `python -m` something
        code = _main()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _main() -> int:
    """As Python itself ends."""
    try:
        cli.main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
