"""A node's result, true or not: what the record says then, what is kept as evidence, and that nobody waits for it."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.core.events import State, format_time
from initiator.core.model import Operation
from initiator.record import Record
from tests.support.events import event_of
from tests.support.harness import Bench, sign_request
from tests.support.nats_cluster import connected

pytestmark = pytest.mark.asyncio(loop_scope="module")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def published(bench: Bench, **changes: Any) -> dict[str, Any]:
    """A sign request that is at the nodes."""
    request = sign_request("w", **changes)
    await bench.submit("sign", request)
    await bench.until("sign", request["tx_id"], "published")
    return request


# --- results that nothing can use: kept, acked, and the operation still waits for a true one

UNREADABLE: list[tuple[str, bytes | dict[str, Any], str]] = [
    ("nothing", b"", "result"),
    ("rubbish", b"\x00\xff", "result"),
    ("no map", b"[]", "result"),
    ("cut", b'{"result_type":"success"', "result"),
    ("twice the same key, as Go reads it", b'{"result_type":"success","result_type":"error"}', "wallet_id"),
    ("NaN", b'{"result_type":NaN}', "result"),
    ("deep nesting", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "result"),
    ("no result_type", {"result_type": None}, "result_type"),
    ("another result_type", {"result_type": "maybe"}, "result_type"),
    ("a number for an id", {"tx_id": 5}, "tx_id"),
    ("no wallet", {"wallet_id": None}, "wallet_id"),
    ("no base64", {"signature": "%%%"}, "signature"),
    ("a short signature", {"signature": b64(b"x" * 63)}, "signature"),
    ("no signature", {"signature": None}, "r"),
]


@pytest.mark.parametrize(("body", "field"), [row[1:] for row in UNREADABLE], ids=[row[0] for row in UNREADABLE])
async def test_a_result_that_cannot_be_read_is_kept_and_changes_nothing(
    served: Bench, body: bytes | dict[str, Any], field: str
) -> None:
    request = await published(served)
    true = served.sign_success(request)
    bad = body if isinstance(body, bytes) else json.dumps(true | body).encode()
    before = len(await served.dead("initiator.dead.$results.sign."))
    await served.answer("sign", request["tx_id"], bad)
    await served.answer("sign", request["tx_id"], true)
    final = await served.until("sign", request["tx_id"])
    assert (final["state"], final["verification"]) == ("completed", "verified")
    await served.results_settled()
    (data, headers) = (await served.dead("initiator.dead.$results.sign."))[before]
    assert data == bad
    assert (headers["Initiator-Code"], headers["Initiator-Field"]) == ("RESULT_INVALID", field)
    assert headers["Initiator-Reason"]


# --- successes that are not true

UNTRUE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("signature of another message", {}, {"signature": b64(b"\x01" * 64)}),
    ("another wallet", {}, {"wallet_id": "w2"}),
    ("r beyond the order", {"key_type": "secp256k1"}, {"r": b64(b"\xff" * 32)}),
    ("s of zero", {"key_type": "secp256k1"}, {"s": b64(b"\x00" * 32)}),
    ("another s", {"key_type": "secp256k1"}, {"s": b64(b"\x01" * 32)}),
    ("another recovery id", {"key_type": "secp256k1"}, {}),
    ("under a path, signed by the parent", {"derivation_path": [1]}, {}),
]


@pytest.mark.parametrize(("asked", "untrue"), [row[1:3] for row in UNTRUE], ids=[row[0] for row in UNTRUE])
async def test_a_success_that_is_not_true_fails_and_a_true_one_still_overrides(
    served: Bench, asked: dict[str, Any], untrue: dict[str, Any]
) -> None:
    request = await published(served, **asked)
    true = served.sign_success(request)
    bad = true | untrue
    if asked.get("key_type") == "secp256k1" and not untrue:
        recovery = base64.b64decode(true["signature_recovery"])[0]
        bad["signature_recovery"] = b64(bytes([recovery ^ 1]))
    elif "derivation_path" in asked:
        bad = served.sign_success(request | {"derivation_path": None})
    await served.answer("sign", request["tx_id"], bad)
    failed = await served.until("sign", request["tx_id"], "failed")
    assert (failed["code"], failed["outcome"]) == ("RESULT_INVALID", "unknown")
    assert (await served.dead("initiator.dead.$results.sign."))[-1][0] == json.dumps(bad).encode()
    await served.answer("sign", request["tx_id"], true)
    completed = await served.until("sign", request["tx_id"], "completed")
    assert completed["supersedes"] == {"event_id": failed["event_id"], "outcome": "unknown"}
    assert served.states("sign", request["tx_id"]) == ["accepted", "published", "failed", "completed"]


@pytest.mark.parametrize("key", ["ecdsa_pub_key", "eddsa_pub_key"])
async def test_a_keygen_whose_key_is_no_point_of_its_curve_fails(served: Bench, key: str) -> None:
    wallet = f"w{secrets.token_hex(4)}"
    await served.submit("keygen", {"wallet_id": wallet})
    await served.until("keygen", wallet, "published")
    true = served.keygen_success(wallet)
    size = len(base64.b64decode(true[key]))
    await served.answer("keygen", wallet, true | {key: b64(b"\x02" * size)})
    failed = await served.until("keygen", wallet)
    assert (failed["state"], failed["code"], failed["outcome"]) == ("failed", "RESULT_INVALID", "unknown")


# --- results of nobody, and contradictions


@pytest.mark.parametrize("tx_id", ["tx_unknown", "a b", "x" * 200, "ünknown"])
async def test_a_result_for_an_id_that_we_do_not_know_is_kept_as_an_orphan(served: Bench, tx_id: str) -> None:
    true = served.sign_success(sign_request("w", tx_id=tx_id))
    await served.answer("sign", "complete", true)
    await served.results_settled()
    data, headers = (await served.dead("initiator.dead.$results.sign."))[-1]
    assert (json.loads(data), headers["Initiator-Code"]) == (true, "RESULT_ORPHANED")


async def test_a_success_that_comes_twice_completes_once(served: Bench) -> None:
    request = await published(served)
    for _ in range(3):
        await served.answer("sign", request["tx_id"], served.sign_success(request))
    await served.until("sign", request["tx_id"])
    await served.results_settled()
    assert served.states("sign", request["tx_id"]) == ["accepted", "published", "completed"]


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_a_second_success_with_other_keys_is_seen_to_contradict(served: Bench, encoding: str) -> None:
    wallet = f"w{secrets.token_hex(4)}"
    await served.submit("keygen", {"wallet_id": wallet}, encoding=encoding)
    await served.until("keygen", wallet, "published")
    true = served.keygen_success(wallet)
    other = served.keygen_success(f"{wallet}x")
    forged = true | {name: other[name] for name in ("ecdsa_pub_key", "eddsa_pub_key")}
    await served.answer("keygen", wallet, forged)
    await served.until("keygen", wallet, "completed")
    await served.answer("keygen", wallet, forged)  # the same again contradicts nothing
    await served.answer("keygen", wallet, true)
    await served.results_settled()
    kept = [
        (json.loads(data), headers["Initiator-Code"])
        for data, headers in await served.dead("initiator.dead.$results.keygen.")
        if json.loads(data)["wallet_id"] == wallet
    ]
    assert kept == [(true, "RESULT_INVALID")]
    assert served.states("keygen", wallet)[-1] == "completed"


@pytest.mark.parametrize("code", ["ERROR_UNKNOWN", "ERROR_SESSION_DUPLICATE", "ERROR_NOT_MAJORITY"])
async def test_nothing_follows_a_success(served: Bench, code: str) -> None:
    request = await published(served)
    await served.answer("sign", request["tx_id"], served.sign_success(request))
    await served.until("sign", request["tx_id"])
    await served.answer("sign", request["tx_id"], served.error("sign", request["tx_id"], code, wallet_id="w"))
    await served.results_settled()
    assert served.states("sign", request["tx_id"])[-1] == "completed"


async def test_an_error_is_kept_verbatim_and_a_late_success_overrides_it(served: Bench) -> None:
    request = await published(served)
    error = served.error("sign", request["tx_id"], "ERROR_KEY_NOT_FOUND", "no <such> key: w", wallet_id="w")
    await served.answer("sign", request["tx_id"], error)
    failed = await served.until("sign", request["tx_id"])
    assert {name: failed[name] for name in ("state", "code", "node_code", "reason", "outcome")} == {
        "state": "failed",
        "code": "NODES_ERROR",
        "node_code": "ERROR_KEY_NOT_FOUND",
        "reason": "no <such> key: w",
        "outcome": "unknown",
    }
    await served.answer("sign", request["tx_id"], served.sign_success(request))
    assert (await served.until("sign", request["tx_id"], "completed"))["supersedes"]["outcome"] == "unknown"


async def test_exhausted_deliveries_are_a_failure_although_they_carry_a_signature(served: Bench) -> None:
    request = await published(served)
    true = served.sign_success(request)
    error = served.error("sign", request["tx_id"], "ERROR_MAX_DELIVERY_ATTEMPTS", wallet_id="w")
    await served.answer("sign", request["tx_id"], error | {"signature": true["signature"]})
    assert (await served.until("sign", request["tx_id"]))["code"] == "NODES_ERROR"


async def test_a_duplicates_word_waits_for_the_success_that_may_follow(served: Bench) -> None:
    request = await published(served)
    word = served.error("sign", request["tx_id"], "ERROR_SESSION_DUPLICATE", wallet_id="w")
    await served.answer("sign", request["tx_id"], word)
    await served.results_settled()
    await served.answer("sign", request["tx_id"], served.sign_success(request))
    assert (await served.until("sign", request["tx_id"]))["state"] == "completed"


async def test_a_cluster_that_was_not_ready_is_asked_again_with_the_same_bytes(
    served: Bench,
) -> None:
    request = await published(served)
    tx_id = request["tx_id"]
    await served.answer("sign", tx_id, served.error("sign", tx_id, "ERROR_NOT_MAJORITY", "ready=1", wallet_id="w"))
    retrying = await served.until("sign", tx_id, "retrying")
    assert (retrying["attempt"], retrying["code"], retrying["reason"]) == (2, "NODES_NOT_READY", "ready=1")
    await served.until("sign", tx_id, "published", attempt=2)
    first, second = await served.event_at_nodes("sign", tx_id, 1), await served.event_at_nodes("sign", tx_id, 2)
    assert first[0] == second[0]
    assert first[1]["SessionID"] != second[1]["SessionID"]
    await served.answer("sign", tx_id, served.sign_success(request))
    assert (await served.until("sign", tx_id))["attempt"] == 2


async def test_a_success_that_comes_before_the_next_attempt_makes_that_needless(served: Bench) -> None:
    request = await published(served)
    tx_id = request["tx_id"]
    await served.answer("sign", tx_id, served.error("sign", tx_id, "ERROR_NOT_MAJORITY", "ready=1", wallet_id="w"))
    await served.until("sign", tx_id, "retrying")  # two seconds from now
    await served.answer("sign", tx_id, served.sign_success(request))
    await served.until("sign", tx_id, "completed")
    assert await served.all_acked()
    with pytest.raises(NotFoundError):
        await served.event_at_nodes("sign", tx_id, 2)


async def test_an_answer_that_comes_before_the_publication_is_recorded_is_kept_in_hand(served: Bench) -> None:
    """The replica that published died before it wrote so; another one finds the message, records it, and then knows."""
    connection = await connected(NatsSettings(servers=(served.url,)))
    try:
        record = Record(JetStream(connection))
        tx_id = f"tx{secrets.token_hex(6)}"
        claim = await record.append(event_of(tx_id), None)
        signed = await record.append(event_of(tx_id, State.SIGNED, body={"message": b"{}", "session": "s"}), claim)
        await served.answer("sign", tx_id, served.error("sign", tx_id, "ERROR_UNKNOWN", "early", wallet_id="w"))
        other = await published(served)
        await served.answer("sign", other["tx_id"], served.sign_success(other))
        assert (await served.until("sign", other["tx_id"]))["state"] == "completed"
        assert served.states("sign", tx_id) == ["accepted"]
        await record.append(event_of(tx_id, State.PUBLISHED, body={"published_at": format_time(0.0)}), signed)
        failed = await served.until("sign", tx_id)
        assert (failed["code"], failed["reason"]) == ("NODES_ERROR", "early")
        assert (await record.last(Operation.SIGN, tx_id)) is not None
    finally:
        await connection.close()
