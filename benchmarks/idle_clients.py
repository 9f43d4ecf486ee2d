"""What clients cost that ask for nothing: `python benchmarks/idle_clients.py [CLIENTS …]`.

For each number of clients a fresh nats-server and one daemon with a key file, side by side in one run: seconds until
it is ready, and then its processor time over some idle seconds and its resident memory.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nats

from initiator import keyfile
from initiator.dev import servers

IDLE_S = 30.0
COUNTS = (1, 10, 100)


@dataclass(frozen=True)
class Usage:
    """Processor seconds and resident bytes of a process."""

    cpu_s: float
    rss: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return cls((int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))


async def measure(clients: int, folder: Path) -> dict[str, float]:
    """One number of clients."""
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(keyfile.generate("p256")[0])
    port = servers.free_port()
    async with servers.nats_server(servers.NatsProcess().place(folder) + "\n", folder) as url:
        settings = {
            "nats": {"servers": [url]},
            "signer": {"type": "local", "local": {"path": str(key)}},
            "clients": {f"c{number}": {} for number in range(clients)},
            "http": {"port": port},
            "log": {"format": "json"},
        }
        path = folder / "initiator.yaml"
        path.touch(mode=0o600)
        path.write_text(json.dumps(settings))
        began = time.monotonic()
        command = [sys.executable, "-m", "initiator", "--config", str(path), "run"]
        with (folder / "log").open("ab") as log:
            async with servers.process(command, output=log) as child:
                await until_ready(f"http://127.0.0.1:{port}/readyz")
                return {"clients": clients, "ready_s": round(time.monotonic() - began, 2)} | await idle(child.pid, url)


async def until_ready(url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if await asyncio.to_thread(servers.is_ready, url):
                return
            await asyncio.sleep(0.05)


async def idle(daemon: int, url: str) -> dict[str, float]:
    nc = await nats.connect(url)
    await asyncio.sleep(5)  # the pulls are all asked
    before, started = Usage.of(daemon), time.monotonic()
    await asyncio.sleep(IDLE_S)
    after, took = Usage.of(daemon), time.monotonic() - started
    consumers = (await nc.jetstream().stream_info("INITIATOR_REQUESTS")).state.consumer_count
    await nc.close()
    return {
        "durables": consumers,
        "daemon_cpu_percent": round(100 * (after.cpu_s - before.cpu_s) / took, 2),
        "daemon_rss_mb": round(after.rss / 1e6, 1),
    }


async def main() -> None:
    for clients in [int(text) for text in sys.argv[1:]] or COUNTS:
        with tempfile.TemporaryDirectory(prefix="initiator-bench-") as folder:
            print(json.dumps(await measure(clients, Path(folder))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
