"""What a limit over all replicas costs: `python -m benchmarks.shared_limit`; the last line is one JSON object.

Replicas, each with a connection of its own, on one server and on a cluster of three: how long a place takes where
calls are rare, and how many writes a second there are where everybody wants more than there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from initiator.bus import streams
from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings, Settings
from initiator.core import subjects
from initiator.dev import servers
from initiator.errors import InitiatorError
from initiator.quota import SharedLimiter
from tests.support.nats_cluster import connected, nats_cluster

REPLICAS, RARE_CALLS, BUSY_S, RATE, CALLERS = 3, 60, 5.0, 900.0, 200


@contextlib.asynccontextmanager
async def replicas(copies: int, folder: Path) -> AsyncIterator[list[JetStream]]:
    """A JetStream for each replica, with the streams made."""
    async with contextlib.AsyncExitStack() as exits:
        if copies == 1:
            url = await exits.enter_async_context(servers.nats_server(servers.NatsProcess().place(folder), folder))
            logins = [NatsSettings(servers=(url,))] * REPLICAS
        else:
            cluster = await exits.enter_async_context(nats_cluster(folder))
            logins = [cluster.settings(index) for index in range(REPLICAS)]
        connections: list[Connection] = [await connected(login) for login in logins]
        found = [JetStream(connection) for connection in connections]
        settings = Settings.model_validate({"clients": {"alice": {}}, "streams": {"replicas": copies}})
        while True:
            with contextlib.suppress(InitiatorError):
                await streams.ensure_own(found[0], settings)
                break
            await asyncio.sleep(0.2)
        yield found
        for connection in connections:
            await connection.close()


async def rare(limiters: list[SharedLimiter]) -> float:
    """Median milliseconds for a place, the replicas in turn, far below the rate."""
    took = []
    for number in range(RARE_CALLS):
        began = time.perf_counter()
        await limiters[number % REPLICAS].acquire()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    return statistics.median(took) * 1000


async def busy(js: JetStream, limiters: list[SharedLimiter]) -> tuple[float, float, float]:
    """Calls a second, writes a second and replica, and the least replica's share of the calls."""
    counts, end = [0] * REPLICAS, time.monotonic() + BUSY_S

    async def caller(number: int) -> None:
        while time.monotonic() < end:
            await limiters[number].acquire()
            counts[number] += time.monotonic() < end

    before = (await streams.info(js, subjects.LIMITS_STREAM) or {})["state"]["last_seq"]
    await asyncio.gather(*(caller(number % REPLICAS) for number in range(CALLERS)))
    after = (await streams.info(js, subjects.LIMITS_STREAM) or {})["state"]["last_seq"]
    return sum(counts) / BUSY_S, (after - before) / BUSY_S / REPLICAS, min(counts) / sum(counts)


async def measure(copies: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with replicas(copies, Path(folder)) as found:
            limiters = [SharedLimiter(js, RATE, 10, clock_skew_s=2.0) for js in found]
            rare_ms = await rare(limiters)
            calls, writes, least = await busy(found[0], limiters)
            return {
                "rare_ms": round(rare_ms, 2),
                "busy_calls_per_s": round(calls, 1),
                "busy_writes_per_s_and_replica": round(writes, 1),
                "busy_least_share": round(least, 3),
            }


async def main() -> None:
    print(json.dumps({"rate": RATE, "replicas": REPLICAS, "r1": await measure(1), "r3": await measure(3)}))


if __name__ == "__main__":
    asyncio.run(main())
