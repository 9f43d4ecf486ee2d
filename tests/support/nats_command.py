"""A stand-in for the `nats` command line where it is not installed: `sub` and `req`, as our pages use them.

`req` ends with 1 where nobody answers, or where the answer is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import nats
from nats.aio.msg import Msg


async def main() -> int:
    parser = argparse.ArgumentParser(prog="nats")
    parser.add_argument("-s", "--server", required=True)
    parser.add_argument("--user")
    parser.add_argument("--password")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sub").add_argument("subject")
    req = commands.add_parser("req")
    req.add_argument("subject")
    req.add_argument("body")
    req.add_argument("-H", "--header", action="append", default=[])
    given = parser.parse_args()
    async with await nats.connect(given.server, user=given.user, password=given.password) as nc:
        if given.command == "req":
            headers = dict(header.split(":", 1) for header in given.header)
            answer = await nc.request(given.subject, given.body.encode(), timeout=5, headers=headers or None)
            print(answer.data.decode())
            return 1 if "error" in json.loads(answer.data) else 0

        async def show(message: Msg) -> None:
            print(f"[{message.subject}] {message.data.decode()}", flush=True)

        await nc.subscribe(given.subject, cb=show)
        await asyncio.Event().wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
