"""Everything that a run left behind, read from the streams and written as lines of JSON for the judge.

Shares no code with the product: subjects and streams by their names, events by their encoding.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

from tests.chaos.profile import QUEUES

OWN = (
    *QUEUES,
    "INITIATOR_EVENTS",
    "INITIATOR_SLOTS_KEYGEN",
    "INITIATOR_SLOTS_SIGN",
    "INITIATOR_SLOTS_RESHARE",
)
NODES = ("mpc-keygen", "mpc-signing", "mpc")


async def dump(urls: Sequence[str], own: Mapping[str, str], nodes: Mapping[str, str], folder: Path) -> None:
    """Write `<stream>.jsonl` for every stream: subject, sequence, time, headers (base64), data (base64)."""
    for login, streams in ((own, OWN), (nodes, NODES)):
        nc = await nats.connect(list(urls), max_reconnect_attempts=60, **login)
        try:
            for stream in streams:
                lines = await _read(nc, stream)
                (folder / f"{stream}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        finally:
            await nc.close()


async def _read(nc: Client, stream: str) -> list[dict[str, Any]]:
    """All messages of a stream, one by one."""
    found, sequence = [], 1
    while (message := await _next(nc, stream, sequence)) is not None:
        found.append(message)
        sequence = int(message["seq"]) + 1
    return found


async def _next(nc: Client, stream: str, sequence: int) -> dict[str, Any] | None:
    body = json.dumps({"seq": sequence, "next_by_subj": ">"}).encode()
    for _ in range(30):
        try:
            answer = json.loads((await nc.request(f"$JS.API.STREAM.MSG.GET.{stream}", body, timeout=5)).data)
        except NatsError:
            await asyncio.sleep(0.5)
            continue
        if "message" in answer:
            message: dict[str, Any] = answer["message"]
            return message
        if answer["error"].get("err_code") == 10037:  # no message found
            return None
        await asyncio.sleep(0.5)
    raise RuntimeError(f"{stream} cannot be read")
