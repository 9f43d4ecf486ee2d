"""What an id costs the server that keeps the record: `python benchmarks/record_memory.py [IDS]`.

Writes the events of that many sign operations, as the daemon would, into a stream of the daemon's own form, and reads
nats-server's resident memory and the stream's size before and after; then once more after a restart of the server.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from initiator.bus.forms import events_form
from initiator.config.schema import Settings
from initiator.core import events
from initiator.core.events import Event, State
from initiator.core.model import ContentType, Operation
from initiator.dev import servers

IDS = 100_000
BATCH = 500


def history(number: int) -> list[Event]:
    """The events of one sign operation, in the sizes of real ones."""
    now, tx_id = 1_767_225_600.0, f"{number:08d}{secrets.token_hex(12)}"
    signed = {
        "message": secrets.token_bytes(420),
        "session": secrets.token_hex(16),
        "digest": secrets.token_hex(32),
        "key_fingerprint": f"SHA256:{secrets.token_hex(21)}",
        "key_id": f"arn:aws:kms:eu-central-1:{'1' * 12}:key/{secrets.token_hex(18)}",
        "kms_request_id": secrets.token_hex(18),
        "reply_as": "application/msgpack",
    }
    completed = {"result": {"wallet_id": "wallet", "signature": secrets.token_bytes(64)}, "verification": "verified"}
    bodies: list[tuple[State, dict[str, Any]]] = [
        (State.ACCEPTED, {}),
        (State.SIGNED, signed),
        (State.PUBLISHED, {"published_at": now}),
        (State.COMPLETED, completed),
    ]
    return [
        Event(
            operation=Operation.SIGN, operation_id=tx_id, client="payments", state=state, attempt=1, time=now,
            request_seq=number, request_digest=secrets.token_hex(32), expires_at=now + 900,
            event_id=secrets.token_hex(8), content_type=ContentType.MSGPACK, body=body,
        )
        for state, body in bodies
    ]  # fmt: skip


async def write(nc: Client, ids: int) -> None:
    for start in range(0, ids, BATCH):
        last = ""
        for number in range(start, min(start + BATCH, ids)):
            for event in history(number):
                ttl = {"Nats-TTL": "never"} if event.final else {}
                await nc.publish(
                    event.subject, events.encode(event), headers={"Content-Type": "application/msgpack"} | ttl
                )
                last = event.subject
        await nc.request(f"{last}.seen", b"", timeout=60)  # as many as are under way at once


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[21]) * os.sysconf("SC_PAGE_SIZE")


async def main() -> None:
    ids = int(sys.argv[1]) if len(sys.argv) > 1 else IDS
    with tempfile.TemporaryDirectory(prefix="initiator-bench-") as name:
        folder = Path(name)
        place = servers.NatsProcess().place(folder).replace("jetstream {", "jetstream { max_file_store: 100GB,")
        empty, size = await fill(folder, place, ids)
        async with servers.nats_server(place, folder) as url:
            nc = await nats.connect(url)
            state = (await nc.jetstream().stream_info("INITIATOR_EVENTS")).state
            await asyncio.sleep(3)
            again = rss(pid_of(folder))
            await nc.close()
    found = {
        "ids": ids,
        "events": state.messages,
        "bytes_on_disk_per_id": round(state.bytes / ids),
        "memory_per_id_while_writing": round((size - empty) / ids),
        "memory_per_id_after_restart": round((again - empty) / ids),
    }
    print(json.dumps(found))


async def fill(folder: Path, place: str, ids: int) -> tuple[int, int]:
    """Resident bytes of the server before and after."""
    async with servers.nats_server(place, folder) as url:
        nc = await nats.connect(url)
        form = events_form(Settings())
        await nc.request("$JS.API.STREAM.CREATE.INITIATOR_EVENTS", json.dumps(form).encode(), timeout=10)
        empty = rss(pid_of(folder))
        await write(nc, ids)
        await asyncio.sleep(3)
        size = rss(pid_of(folder))
        await nc.close()
        return empty, size


def pid_of(folder: Path) -> int:
    newest = max(folder.glob("nats-server_*.ports"), key=lambda path: path.stat().st_mtime)
    return int(newest.stem.partition("_")[2])


if __name__ == "__main__":
    asyncio.run(main())
