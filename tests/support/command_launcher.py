"""Hands a command to `command_server`, with the caller's own descriptors: `command_launcher.py SOCKET WORD…`.

It imports next to nothing: it stands for a program that a shell calls.
"""

import json
import os
import signal
import socket
import sys

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def main() -> int:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: connection.send(bytes([number])))
    socket.send_fds(connection, [b"."], [0, 1, 2])
    order = {"words": sys.argv[2:], "env": dict(os.environ), "folder": os.getcwd()}
    connection.sendall(json.dumps(order).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        answer += connection.recv(64)
    code = int(answer)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
