"""Requests over the wire: joined, refused, asked about."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import msgpack
import nats.errors
import pytest

from initiator.dev.requester import Requester
from initiator.dev.stack import Stack
from initiator.errors import HaltError


def sign_fields(wallet: str, tx_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "key_type": "ed25519",
        "wallet_id": wallet,
        "network_internal_code": "sol",
        "tx_id": tx_id,
        "tx": b"\x01" + os.urandom(40),
        "derivation_path": None,
    } | changes


async def test_a_repeated_request_joins_the_operation_and_gets_its_state(alice: Requester) -> None:
    await alice.submit("keygen", {"wallet_id": "w1"})
    first = await alice.wait_for("keygen", "w1")
    await alice.submit("keygen", {"wallet_id": "w1", "labels": {"try": "2"}}, "json")
    async with asyncio.timeout(5):
        while not any(seen.repeated for seen in alice.seen):
            await asyncio.sleep(0.01)
    repeated = next(seen for seen in alice.seen if seen.repeated)
    assert repeated.body == first.body
    history = await alice.query("history", {"op": "keygen", "id": "w1"})
    assert [event["state"] for event in history["events"]] == ["accepted", "signed", "published", "completed"]


async def test_one_id_never_gets_two_payloads(alice: Requester, bob: Requester) -> None:
    await alice.submit("keygen", {"wallet_id": "w1"})
    await alice.wait_for("keygen", "w1")
    fields = sign_fields("w1", "tx1")
    await alice.submit("sign", fields)
    await alice.wait_for("sign", "tx1")
    for change in ({"derivation_path": [1]}, {"tx": b"\x02"}, {"wallet_id": "w2"}, {"network_internal_code": "x"}):
        sequence = await alice.submit("sign", fields | change)
        refused = await alice.wait_for_rejection("sign", sequence)
        assert (refused.body["code"], refused.body["field"]) == ("CONFLICT", "tx_id")
    sequence = await bob.submit("sign", fields)
    refused = await bob.wait_for_rejection("sign", sequence)
    assert refused.body["code"] == "CONFLICT"
    assert await bob.query("status", {"op": "sign", "id": "tx1"}) == {"event": None}


async def test_sealed_bytes_never_leave_the_daemons_account(alice: Requester) -> None:
    await alice.submit("keygen", {"wallet_id": "w1"})
    await alice.wait_for("keygen", "w1")
    assert [seen.state for seen in alice.seen] == ["accepted", "published", "completed"]
    answers = json.dumps([await alice.query("history", {"op": "keygen", "id": "w1"}), await alice.query("events", {})])
    assert '"signed"' in answers
    for name in ("message", "session", "digest"):
        assert f'"{name}"' not in answers


BAD_REQUESTS: list[tuple[str, bytes, str | None, str, str | None]] = [
    ("keygen", b"", None, "UNDECODABLE", "payload"),
    ("keygen", b"\x81\xa9wallet_id", None, "UNDECODABLE", "payload"),
    ("keygen", msgpack.packb({"wallet_id": "w"}) + b"x", None, "UNDECODABLE", "payload"),
    ("keygen", b'{"wallet_id":"a","wallet_id":"b"}', "application/json", "UNDECODABLE", None),
    ("keygen", b'{"wallet_id":NaN}', "application/json", "UNDECODABLE", None),
    ("keygen", b'{"wallet_id":' + b"9" * 5000 + b"}", "application/json", "UNDECODABLE", None),
    ("keygen", b'{"wallet_id":' + b"[" * 2000 + b"]" * 2000 + b"}", "application/json", "UNDECODABLE", None),
    ("keygen", b'{"wallet_id":"\\ud800"}', "application/json", "UNDECODABLE", None),
    ("keygen", b"{}", "text/plain", "UNSUPPORTED_CONTENT_TYPE", None),
    ("keygen", b"{}", "application/json", "MISSING_FIELD", "wallet_id"),
    ("keygen", b'{"wallet_id":"a.b"}', "application/json", "INVALID_FIELD", "wallet_id"),
    ("keygen", b'{"wallet_id":"a b"}', "application/json", "INVALID_FIELD", "wallet_id"),
    ("keygen", b'{"wallet_id":"*"}', "application/json", "INVALID_FIELD", "wallet_id"),
    ("keygen", b'{"wallet_id":">"}', "application/json", "INVALID_FIELD", "wallet_id"),
    ("keygen", b'{"wallet_id":1}', "application/json", "INVALID_FIELD", "wallet_id"),
    ("keygen", b'{"wallet_id":"w","walet":1}', "application/json", "UNKNOWN_FIELD", "walet"),
    ("keygen", b'{"wallet_id":"w","expires_at":"2020-01-01T00:00:00Z"}', "application/json", "EXPIRED", "expires_at"),
    ("sign", msgpack.packb(sign_fields("w", "t", key_type="secp256k1", tx=b"\x01" * 33)), None, "INVALID_FIELD", "tx"),
    ("sign", msgpack.packb(sign_fields("w", "t", key_type="secp256k1", tx=b"\xff" * 32)), None, "INVALID_FIELD", "tx"),
    ("sign", msgpack.packb(sign_fields("w", "t", tx="text")), None, "INVALID_FIELD", "tx"),
    ("sign", msgpack.packb(sign_fields("w", "keygen")), None, "INVALID_FIELD", "tx_id"),
    ("sign", msgpack.packb(sign_fields("w", "b-c")), None, "INVALID_FIELD", "tx_id"),
    (
        "sign",
        msgpack.packb(sign_fields("w", "t", derivation_path=[2**31])),
        None,
        "INVALID_FIELD",
        "derivation_path[0]",
    ),
    ("sign", msgpack.packb(sign_fields("w", "t", derivation_path=[True])), None, "INVALID_FIELD", "derivation_path[0]"),
]


async def test_a_bad_request_is_refused_once_with_its_field_and_delays_nobody(alice: Requester) -> None:
    expected = {}
    for op, payload, content_type, code, field in BAD_REQUESTS:
        headers = {"Content-Type": content_type} if content_type else {}
        expected[await alice.submit_raw(op, payload, headers)] = (op, code, field)
    await alice.submit("keygen", {"wallet_id": "good"})
    await alice.wait_for("keygen", "good")
    for sequence, (op, code, field) in expected.items():
        refused = await alice.wait_for_rejection(op, sequence)
        assert refused.body["code"] == code, (sequence, refused.body)
        if field is not None:
            assert refused.body["field"] == field
    rejected = [seen.id for seen in alice.seen if seen.state == "rejected"]
    assert sorted(map(int, rejected)) == sorted(expected)


async def test_what_is_too_large_is_refused_at_the_door_and_the_connection_survives(alice: Requester) -> None:
    with pytest.raises(HaltError, match="10054"):
        await alice.submit_raw("keygen", b"x" * 70_000)
    await alice.submit("keygen", {"wallet_id": "w1"})
    assert (await alice.wait_for("keygen", "w1")).state == "completed"


async def test_headers_of_the_senders_own_steer_nothing(alice: Requester) -> None:
    """A `Status` header looks like the server's word to a client library; the others are JetStream's own."""
    for number, headers in enumerate(
        [{"Status": "503"}, {"Status": "408"}, {"Status": "100"}, {"ClientID": "mallory"}]
    ):
        sequence = await alice.submit_raw("keygen", msgpack.packb({"wallet_id": f"w{number}"}), headers)
        assert sequence
        assert (await alice.wait_for("keygen", f"w{number}")).state == "completed"


async def test_one_clients_message_id_swallows_no_other_clients_request(alice: Requester, bob: Requester) -> None:
    headers = {"Nats-Msg-Id": "the same"}
    await alice.submit_raw("keygen", msgpack.packb({"wallet_id": "w_alice"}), headers)
    await asyncio.sleep(0.15)
    await bob.submit_raw("keygen", msgpack.packb({"wallet_id": "w_bob"}), headers)
    assert (await alice.wait_for("keygen", "w_alice")).state == "completed"
    assert (await bob.wait_for("keygen", "w_bob")).state == "completed"


async def test_an_unknown_operation_has_no_responders_and_anothers_subject_is_not_taken(
    alice: Requester,
) -> None:
    with pytest.raises(nats.errors.NoRespondersError):
        await alice.connection.request("initiator.request.alice.drain", b"", timeout=2)
    for subject in ("initiator.request.bob.keygen", "initiator.event.alice.keygen.w"):
        with pytest.raises(nats.errors.TimeoutError):  # what the server refuses it answers with an error of its own
            await alice.connection.request(subject, b"", timeout=0.5)
        assert "permissions violation" in str(alice.connection.last_error).lower()


async def test_bad_queries_get_an_error_that_names_the_field(alice: Requester) -> None:
    for kind, body, field in (
        ("status", {"op": "burn", "id": "w"}, "op"),
        ("status", {"op": "keygen", "id": "*"}, "id"),
        ("history", {"op": "keygen"}, "id"),
        ("events", {"after": -1}, "after"),
        ("secrets", {}, "subject"),
    ):
        answer = await alice.query(kind, body)
        assert answer["error"]["field"] == field


async def test_nothing_secret_reaches_the_daemons_log(alice: Requester, stack: Stack) -> None:
    tx = b"\x01" + b"never log this payload"
    await alice.submit("keygen", {"wallet_id": "w1"})
    await alice.wait_for("keygen", "w1")
    await alice.submit("sign", sign_fields("w1", "tx1", tx=tx))
    await alice.wait_for("sign", "tx1")
    await alice.submit_raw("sign", tx)
    log = stack.daemon_log()
    assert "request.completed" in log
    assert "never log" not in log
    for user in ("initiator", "initiator-nodes", "alice"):
        assert stack.password(user) not in log
