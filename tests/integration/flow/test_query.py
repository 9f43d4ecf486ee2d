"""Reads for clients: their own operations, in pages, and nothing sealed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from datetime import UTC, datetime
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
    assert await ask(served, "history", {"op": "keygen", "id": wallet}) == {"events": [], "next": 0}
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
    asked = {"op": "keygen", "id": "w"}
    assert await ask(served, "status", asked, client="bob") == {"event": None}
    assert await ask(served, "history", asked, client="bob") == {"events": [], "next": 0}
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


async def test_history_comes_in_pages_too(tmp_path: Path) -> None:
    async with bench(tmp_path) as server, daemon(settings_for(server.url, query={"page_size": 3})):
        await server.wallet("w")
        first = await ask(server, "history", {"op": "keygen", "id": "w"})
        assert [event["state"] for event in first["events"]] == ["accepted", "signed", "published"]
        second = await ask(server, "history", {"op": "keygen", "id": "w", "after": first["next"]})
        assert [event["state"] for event in second["events"]] == ["completed"]
        last = await ask(server, "history", {"op": "keygen", "id": "w", "after": second["next"]})
        assert last == {"events": [], "next": second["next"]}


async def test_whether_a_request_was_refused_can_be_asked(served: Bench) -> None:
    refused = await served.submit("sign", sign_request("w", tx_id="keygen"))
    await served.rejection(refused)
    asked = {"op": "sign", "id": "keygen", "request_seq": refused}
    answer = await ask(served, "status", asked)
    assert answer["event"] is None
    assert (answer["rejection"]["state"], answer["rejection"]["request_seq"]) == ("rejected", refused)
    assert (await ask(served, "status", asked | {"request_seq": refused + 1}))["rejection"] is None
    assert (await ask(served, "status", asked, client="bob"))["rejection"] is None


async def test_events_from_a_moment_on(served: Bench) -> None:
    await served.wallet(f"w{secrets.token_hex(4)}")
    await asyncio.sleep(0.02)
    moment = datetime.now(UTC).isoformat()
    wallet = f"w{secrets.token_hex(4)}"
    await served.wallet(wallet)
    found = (await ask(served, "events", {"since": moment}))["events"]
    assert {event["id"] for event in found} == {wallet}
    assert len(found) == 4
    everything = (await ask(served, "events", {"since": "1d"}))["events"]
    assert everything == (await ask(served, "events", {"after": 0}))["events"]
    later = (await ask(served, "events", {"since": moment, "after": found[1]["sequence"]}))["events"]
    assert later == found[2:]
    assert (await ask(served, "events", {"since": "2999-01-01T00:00:00Z"}))["events"] == []


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
    ("events", {"since": "yesterday"}, "INVALID_FIELD", "since"),
    ("events", {"since": None}, "INVALID_FIELD", "since"),
    ("events", {"afterwards": 1}, "UNKNOWN_FIELD", "afterwards"),
    ("history", {"op": "keygen", "id": "w", "since": "1h"}, "UNKNOWN_FIELD", "since"),
    ("status", {"op": "keygen", "id": "w", "request_seq": -1}, "INVALID_FIELD", "request_seq"),
    ("status", {"op": "keygen", "id": "w", "client": "bob"}, "UNKNOWN_FIELD", "client"),
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
