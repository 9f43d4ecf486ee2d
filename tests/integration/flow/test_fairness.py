"""One client's backlog does not make another wait: turns between clients, inside a lane that is full."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import msgpack
import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from tests.support.harness import CHAIN_CODE, Bench, bench, daemon, settings_for, sign_request

BACKLOG, CAP = 10_000, 10


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("fairness")) as ready:
        yield ready


class Nodes:
    """Answer every event after a moment; remember the order in which they came."""

    def __init__(self, server: Bench) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self.order: list[str] = []

    async def on_event(self, message: Msg) -> None:
        tx_id = json.loads(message.data)["tx_id"]
        self.order.append(tx_id)
        task = asyncio.create_task(self._answer(tx_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, tx_id: str) -> None:
        await asyncio.sleep(0.02)
        await self._server.answer("sign", tx_id, self._server.error("sign", tx_id, "ERROR_UNKNOWN", wallet_id="w"))

    async def seen(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.order) < count:
                await asyncio.sleep(0.01)


async def queue(server: Bench, client: str, count: int) -> None:
    """Requests as fast as the queue takes them."""
    headers = {"Content-Type": "application/msgpack"}
    gate = asyncio.Semaphore(200)

    async def one(number: int) -> None:
        async with gate:
            data = msgpack.packb(sign_request("w", tx_id=f"{client}{number}"))
            await server.nc.request(f"initiator.request.{client}.sign", data, timeout=30, headers=headers)

    await asyncio.gather(*(one(number) for number in range(count)))


@contextlib.asynccontextmanager
async def backlog(server: Bench, weights: dict[str, int]) -> AsyncIterator[Nodes]:
    """A daemon at work on 10,000 requests of alice's."""
    clients = {name: {"weight": weight} for name, weight in weights.items()}
    mpcium = {"chain_code": CHAIN_CODE, "sign": {"in_flight": CAP}}
    settings = settings_for(server.url, clients=clients, mpcium=mpcium)
    async with daemon(settings):
        pass  # the streams are there
    nodes = Nodes(server)
    await server.nc.subscribe("mpc.signing_request.*", cb=nodes.on_event)
    await queue(server, "alice", BACKLOG)
    async with daemon(settings):
        await nodes.seen(5 * CAP)
        yield nodes


@pytest.mark.timeout(180)
async def test_a_single_request_passes_a_backlog_of_ten_thousand(server: Bench) -> None:
    async with backlog(server, {"alice": 1, "bob": 1}) as nodes:
        for number in range(5):
            before = len(nodes.order)
            await server.submit("sign", sign_request("w", tx_id=f"single{number}"), client="bob")
            async with asyncio.timeout(30):
                while f"single{number}" not in nodes.order:
                    await asyncio.sleep(0.005)
            waited = nodes.order.index(f"single{number}") - before
            assert waited < 2 * CAP, "the lane has turned over twice"


@pytest.mark.timeout(180)
async def test_weights_share_a_full_lane(server: Bench) -> None:
    async with backlog(server, {"alice": 1, "bob": 3}) as nodes:
        await queue(server, "bob", 200)
        start = len(nodes.order) + 2 * CAP  # what was admitted before him is through
        await nodes.seen(start + 120)
        bobs = sum(tx_id.startswith("bob") for tx_id in nodes.order[start : start + 120])
        assert 75 <= bobs <= 105  # three turns in four
