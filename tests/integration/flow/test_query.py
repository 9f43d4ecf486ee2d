"""Reads for clients: their own operations, in pages, and nothing sealed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from nats.errors import NoRespondersError

from tests.support.harness import Bench, bench, daemon, settings_for, sign_request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(bench: Bench, kind: str, body: Any, client: str = "alice") -> dict[str, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await bench.nc.request(f"initiator.query.{client}.{kind}", data, timeout=5)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def test_status_is_the_last_event_and_history_all_of_them(served: Bench) -> None:
    wallet = f"w{secrets.token_hex(4)}"
    assert await ask(served, "status", {"op": "keygen", "id": wallet}) == {"event": None}
    assert await ask(served, "history", {"op": "keygen", "id": wallet}) == {"events": []}
    await served.wallet(wallet)
    status = await ask(served, "status", {"op": "keygen", "id": wallet})
    history = await ask(served, "history", {"op": "keygen", "id": wallet})
    assert status["event"] == history["events"][-1]
    assert [event["state"] for event in history["events"]] == ["accepted", "signed", "published", "completed"]
    sequences = [event["sequence"] for event in history["events"]]
    assert sequences == sorted(sequences)


async def test_of_what_is_sealed_only_the_fact_is_shown(served: Bench) -> None:
    wallet = f"w{secrets.token_hex(4)}"
    await served.wallet(wallet)
    signed = (await ask(served, "history", {"op": "keygen", "id": wallet}))["events"][1]
    assert signed["state"] == "signed"
    assert not {"message", "session", "digest", "key_id", "kms_request_id", "key_fingerprint"} & set(signed)


async def test_another_clients_operation_looks_like_none(served: Bench) -> None:
    for kind in ("status", "history"):
        answer = await ask(served, kind, {"op": "keygen", "id": "w"}, client="bob")
        assert answer in ({"event": None}, {"events": []})
    assert await ask(served, "events", {}, client="bob") == {"events": [], "next": 0}


async def test_events_come_in_pages_that_join_without_a_gap(tmp_path: Path) -> None:
    async with bench(tmp_path) as server, daemon(settings_for(server.url, query={"page_size": 3})):
        wallets = [f"w{secrets.token_hex(4)}" for _ in range(3)]
        for wallet in wallets:
            await server.wallet(wallet)
        refused = await server.submit("sign", sign_request("w", tx_id="keygen"))
        await server.rejection(refused)
        seen: list[dict[str, Any]] = []
        after = 0
        while True:
            page = await ask(server, "events", {"after": after})
            assert len(page["events"]) <= 3
            if not page["events"]:
                assert page["next"] == after
                break
            seen += page["events"]
            after = page["next"]
    ours = [(event["id"], event["state"]) for event in seen if event["id"] in wallets]
    assert ours == [(w, s) for w in wallets for s in ("accepted", "signed", "published", "completed")]
    rejected = [event for event in seen if event["state"] == "rejected"]
    assert [event["request_seq"] for event in rejected] == [refused]
    assert len({event["sequence"] for event in seen}) == len(seen)


BAD: list[tuple[str, Any, str, str]] = [
    ("status", b"rubbish", "UNDECODABLE", "payload"),
    ("status", b"[]", "UNDECODABLE", "payload"),
    ("status", {}, "INVALID_FIELD", "op"),
    ("status", {"op": "burn", "id": "w"}, "INVALID_FIELD", "op"),
    ("status", {"op": ["keygen"], "id": "w"}, "INVALID_FIELD", "op"),
    ("status", {"op": "keygen"}, "INVALID_FIELD", "id"),
    ("status", {"op": "keygen", "id": 5}, "INVALID_FIELD", "id"),
    ("status", {"op": "keygen", "id": "*"}, "INVALID_FIELD", "id"),
    ("history", {"op": "keygen", "id": ">"}, "INVALID_FIELD", "id"),
    ("history", {"op": "keygen", "id": "a.b"}, "INVALID_FIELD", "id"),
    ("history", {"op": "keygen", "id": ""}, "INVALID_FIELD", "id"),
    ("events", {"after": -1}, "INVALID_FIELD", "after"),
    ("events", {"after": True}, "INVALID_FIELD", "after"),
    ("events", {"after": "1"}, "INVALID_FIELD", "after"),
    ("events", {"after": 2**63}, "INVALID_FIELD", "after"),
    ("secrets", {}, "INVALID_SUBJECT", "subject"),
]


@pytest.mark.parametrize(("kind", "body", "code", "field"), BAD)
async def test_a_bad_query_is_told_its_field(served: Bench, kind: str, body: Any, code: str, field: str) -> None:
    error = (await ask(served, kind, body))["error"]
    assert (error["code"], error["field"]) == (code, field)
    assert error["reason"]


async def test_many_queries_at_once_are_all_answered(served: Bench) -> None:
    answers = await asyncio.gather(*(ask(served, "status", {"op": "keygen", "id": "w"}) for _ in range(300)))
    assert {answer["event"]["state"] for answer in answers} == {"completed"}


async def test_without_a_daemon_nobody_answers(tmp_path: Path) -> None:
    async with bench(tmp_path) as server:
        async with daemon(settings_for(server.url)):
            pass
        async with asyncio.timeout(10):
            while not await nobody_answers(server):
                await asyncio.sleep(0.05)  # the server forgets a closed connection in its own time


async def nobody_answers(bench: Bench) -> bool:
    with contextlib.suppress(TimeoutError):
        try:
            await bench.nc.request("initiator.query.alice.status", b"{}", timeout=0.2)
        except NoRespondersError:
            return True
    return False
