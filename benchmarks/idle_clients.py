"""What clients cost that ask for nothing: `python benchmarks/idle_clients.py [--replicas 3] [CLIENTS …]`.

For each number of clients a fresh nats-server (or a cluster of three) and one daemon with a key file, side by side in
one run: seconds until it is ready, and then processor time over some idle seconds and resident memory, of the daemon
and of one server.
"""

from __future__ import annotations

import argparse
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
from tests.support.nats_servers import NatsServers

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


async def measure(clients: int, replicas: int, folder: Path) -> dict[str, float]:
    """One number of clients, on one server or a cluster of three."""
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(keyfile.generate("p256")[0])
    port = servers.free_port()
    nats_servers = NatsServers(folder, replicas)
    try:
        await nats_servers.start_all()
        settings = {
            "nats": {"servers": nats_servers.urls},
            "signer": {"type": "local", "local": {"path": str(key)}},
            "streams": {"replicas": replicas},
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
                ready = {"clients": clients, "replicas": replicas, "ready_s": round(time.monotonic() - began, 2)}
                return ready | await idle(child.pid, nats_servers)
    finally:
        await nats_servers.stop()


async def until_ready(url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if await asyncio.to_thread(servers.is_ready, url):
                return
            await asyncio.sleep(0.05)


async def idle(daemon: int, nats_servers: NatsServers) -> dict[str, float]:
    await asyncio.sleep(5)  # the pulls are all asked
    server = nats_servers.pids[0]
    before, started = (Usage.of(daemon), Usage.of(server)), time.monotonic()
    await asyncio.sleep(IDLE_S)
    after, took = (Usage.of(daemon), Usage.of(server)), time.monotonic() - started
    daemon_s, server_s = (later.cpu_s - earlier.cpu_s for earlier, later in zip(before, after, strict=True))
    nc = await nats.connect(list(nats_servers.urls))
    info = await nc.jetstream().account_info()
    await nc.close()
    return {
        "streams": info.streams,
        "durables": info.consumers,
        "daemon_cpu_percent": round(100 * daemon_s / took, 2),
        "daemon_rss_mb": round(after[0].rss / 1e6, 1),
        "server_cpu_percent": round(100 * server_s / took, 2),
        "server_rss_mb": round(after[1].rss / 1e6, 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clients", nargs="*", type=int, default=COUNTS)
    parser.add_argument("--replicas", type=int, choices=(1, 3), default=1)
    asked = parser.parse_args()
    for clients in asked.clients:
        with tempfile.TemporaryDirectory(prefix="initiator-bench-") as folder:
            print(json.dumps(await measure(clients, asked.replicas, Path(folder))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
