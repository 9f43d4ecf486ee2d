"""Cancelling wins before complete bytes are recorded, and never after."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from typing import Any

import pytest

from initiator.core import events
from tests.support.harness import Bench, ScriptedSigner, daemon, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def cancel(bench: Bench, body: Any, client: str = "alice") -> dict[str, Any]:
    answer = await bench.nc.request(f"initiator.cancel.{client}", json.dumps(body).encode(), timeout=5)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def status(bench: Bench, body: Any, client: str = "alice") -> dict[str, Any]:
    answer = await bench.nc.request(f"initiator.query.{client}.status", json.dumps(body).encode(), timeout=5)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def test_before_the_signature_is_recorded_it_wins_and_nothing_is_published(server: Bench) -> None:
    signer, wallet = ScriptedSigner(0.5), f"w{secrets.token_hex(4)}"
    async with daemon(settings_for(server.url), signer):
        before = await server.published("keygen")
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "accepted")
        answer = await cancel(server, {"op": "keygen", "id": wallet})
        assert answer["cancelled"] is True
        assert (answer["event"]["code"], answer["event"]["outcome"]) == ("CANCELLED", "none")
        again = await cancel(server, {"op": "keygen", "id": wallet})
        assert again["event"] == answer["event"]
        header = {"Initiator-Reopen": answer["event"]["event_id"]}  # whoever cancelled may have asked elsewhere since
        reopen = await server.submit("keygen", {"wallet_id": wallet}, **header)
        assert await server.all_acked()
        settled = await status(server, {"op": "keygen", "id": wallet, "request_seq": reopen})
        assert (settled["settled"], settled["event"]) == (True, again["event"])
        assert server.unrepeated("keygen", wallet) == ["accepted", "failed"]
        assert await server.published("keygen") == before
    assert signer.calls == 1  # it was being asked already; what it said went nowhere


async def test_after_that_it_is_too_late_and_changes_nothing(server: Bench) -> None:
    wallet = f"w{secrets.token_hex(4)}"
    async with daemon(settings_for(server.url)):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        assert (await cancel(server, {"op": "keygen", "id": wallet}))["error"]["code"] == "TOO_LATE"
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet, "completed")
        assert (await cancel(server, {"op": "keygen", "id": wallet}))["error"]["code"] == "TOO_LATE"


async def test_what_may_have_been_signed_is_not_said_to_be_cancelled(server: Bench) -> None:
    wallet = f"w{secrets.token_hex(4)}"
    async with daemon(settings_for(server.url)):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        await server.answer("keygen", wallet, server.error("keygen", wallet, "ERROR_UNKNOWN"))
        assert (await server.until("keygen", wallet, "failed"))["outcome"] == "unknown"
        error = (await cancel(server, {"op": "keygen", "id": wallet}))["error"]
        assert (error["code"], error["reason"]) == ("TOO_LATE", "it has failed, and the nodes may have signed")


async def expired(server: Bench, wallet: str) -> dict[str, Any]:
    """A failure of which surely nothing was signed: KMS was too slow."""
    soon = events.format_time(time.time() + 1.0)
    await server.submit("keygen", {"wallet_id": wallet, "expires_at": soon})
    failed = await server.until("keygen", wallet, "failed")
    assert failed["outcome"] == "none"
    return failed


async def test_a_request_that_waits_is_not_said_to_be_settled(server: Bench) -> None:
    narrow = settings_for(server.url, worker={"ack_wait_s": 30.0, "heartbeat_s": 0.5, "lookahead": 1})
    wallet, other = (f"w{secrets.token_hex(4)}" for _ in range(2))
    async with daemon(narrow, ScriptedSigner(1.5, 2.0)):
        failed = await expired(server, wallet)
        await server.submit("keygen", {"wallet_id": other})
        await server.until("keygen", other, "accepted")
        reopen = await server.submit("keygen", {"wallet_id": wallet}, **{"Initiator-Reopen": failed["event_id"]})
        waits = await status(server, {"op": "keygen", "id": wallet, "request_seq": reopen})
        assert (waits["settled"], waits["event"]["event_id"]) == (False, failed["event_id"])
        await server.until("keygen", wallet, "published", attempt=2)
        goes_on = await status(server, {"op": "keygen", "id": wallet, "request_seq": reopen})
        assert (goes_on["settled"], goes_on["event"]["state"]) == (False, "published")


async def test_cancelling_a_failure_keeps_what_waits_from_going_on_after_it(server: Bench) -> None:
    narrow = settings_for(server.url, worker={"ack_wait_s": 30.0, "heartbeat_s": 0.5, "lookahead": 1})
    wallet, other = (f"w{secrets.token_hex(4)}" for _ in range(2))
    async with daemon(narrow, ScriptedSigner(1.5, 2.0)):
        failed = await expired(server, wallet)
        await server.submit("keygen", {"wallet_id": other})
        await server.until("keygen", other, "accepted")
        await server.submit("keygen", {"wallet_id": wallet}, **{"Initiator-Reopen": failed["event_id"]})
        first = (await cancel(server, {"op": "keygen", "id": wallet}))["event"]
        assert (first["code"], first["event_id"] == failed["event_id"]) == ("CANCELLED", False)
        for _ in range(3):
            assert (await cancel(server, {"op": "keygen", "id": wallet}))["event"] == first
        await server.until("keygen", other, "published")
        await server.submit("keygen", {"wallet_id": wallet}, **{"Initiator-Reopen": first["event_id"]})
        await asyncio.sleep(0.5)
        assert server.unrepeated("keygen", wallet) == ["accepted", "failed", "failed"]


@pytest.mark.parametrize("client", ["alice", "bob"])
async def test_what_is_not_ones_own_is_not_found(server: Bench, client: str) -> None:
    wallet = f"w{secrets.token_hex(4)}"
    async with daemon(settings_for(server.url), ScriptedSigner(0.3)):
        owner = "alice" if client == "bob" else "bob"
        await server.submit("keygen", {"wallet_id": wallet}, client=owner)
        await server.until("keygen", wallet, "accepted")
        error = (await cancel(server, {"op": "keygen", "id": wallet}, client))["error"]
        assert (error["code"], error["field"]) == ("NOT_FOUND", "id")
        await server.until("keygen", wallet, "published")


@pytest.mark.parametrize(
    ("body", "field"), [({}, "op"), ({"op": "keygen"}, "id"), ({"op": "keygen", "id": "*"}, "id"), ([], "payload")]
)
async def test_a_bad_cancellation_is_told_its_field(server: Bench, body: Any, field: str) -> None:
    async with daemon(settings_for(server.url)):
        assert (await cancel(server, body))["error"]["field"] == field
