"""A reshare that no node hears: tried again in its time, and surely nothing was begun."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from initiator.core.events import format_time, parse_time
from tests.support.harness import Bench, bench, daemon, settings_for


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("unheard")) as ready:
        yield ready


async def test_it_is_tried_again_in_its_time_and_nothing_was_begun(server: Bench) -> None:
    session = secrets.token_hex(8)
    fields = {
        "session_id": session,
        "node_ids": ["node0", "node1", "node2"],
        "new_threshold": 1,
        "key_type": "secp256k1",
        "wallet_id": "w1",
        "expires_at": format_time(time.time() + 5.0),
    }
    async with daemon(settings_for(server.url)), daemon(settings_for(server.url)):
        await server.submit("reshare", fields)
        failed = await server.until("reshare", session, "failed", timeout_s=15)
        assert (failed["code"], failed["outcome"]) == ("NODES_ABSENT", "none")
        retrying = [event for event in server.events("reshare", session) if event["state"] == "retrying"]
        sent = [event for event in server.events("reshare", session) if event["state"] == "publishing"]
        assert 1 <= len(retrying) <= 3
        for before, after in zip(retrying, sent[1:], strict=False):
            assert parse_time(after["time"]) >= parse_time(before["not_before"]) - 0.01
        assert await server.all_acked()
