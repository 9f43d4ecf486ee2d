"""mpcium's bytes, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from initiator.core import message
from initiator.core.message import AuthorizerSignature
from initiator.core.model import KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.core.signature import Verifier
from initiator.core.spki import parse_public_key
from initiator.errors import Code, RejectError
from initiator.verify import verify_event

DOCUMENT = json.loads((Path(__file__).parents[2] / "vectors" / "mpcium.json").read_text())
VECTORS = DOCUMENT["vectors"]


def request_of(vector: dict[str, Any]) -> Request:
    fields = dict(vector["input"])
    fields.pop("authorizer_signatures", None)
    if vector["kind"] == "keygen":
        return KeygenRequest(**fields)
    key_type = KeyType(fields.pop("key_type"))
    if vector["kind"] == "sign":
        path = fields.pop("derivation_path")
        tx = bytes.fromhex(fields.pop("tx_hex"))
        return SignRequest(key_type=key_type, tx=tx, derivation_path=None if path is None else tuple(path), **fields)
    nodes = fields.pop("node_ids")
    return ReshareRequest(key_type=key_type, node_ids=None if nodes is None else tuple(nodes), **fields)  # type: ignore[arg-type]


def authorizers_of(vector: dict[str, Any]) -> list[AuthorizerSignature]:
    import base64

    return [
        AuthorizerSignature(authorizer_id=item["authorizer_id"], signature=base64.b64decode(item["signature"]))
        for item in vector["input"].get("authorizer_signatures") or ()
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_every_vector_is_reproduced_byte_for_byte(vector: dict[str, Any]) -> None:
    request, signature = request_of(vector), bytes.fromhex(vector["signature_hex"])
    assert message.signed_bytes(request).hex() == vector["raw_hex"]
    assert message.event_bytes(request, signature, authorizers_of(vector)).hex() == vector["event_hex"]
    assert message.authorizer_bytes(request, signature).hex() == vector["authorizer_raw_hex"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_every_vector_reads_back_and_verifies(vector: dict[str, Any]) -> None:
    event = message.parse_event(Operation(vector["kind"]), bytes.fromhex(vector["event_hex"]))
    assert event.request == request_of(vector)
    assert event.signed.hex() == vector["raw_hex"]
    assert list(event.authorizer_signatures) == authorizers_of(vector)
    key = parse_public_key(DOCUMENT["public_key_hex"])
    assert Verifier(key).verify(event.signed, event.signature)
    assert verify_event(DOCUMENT["public_key_hex"], vector["kind"], bytes.fromhex(vector["event_hex"])).valid


def test_there_are_46_vectors() -> None:
    assert len(VECTORS) == 46


@pytest.mark.parametrize("name", ["wallet_id", "network_internal_code", "tx_id", "tx", "key_type"])
def test_a_changed_field_does_not_verify(name: str) -> None:
    vector = next(v for v in VECTORS if v["kind"] == "sign" and v["input"]["tx_hex"])
    fields = json.loads(bytes.fromhex(vector["event_hex"]))
    other = {"tx": "AAAA", "key_type": {"secp256k1": "ed25519", "ed25519": "secp256k1"}[fields["key_type"]]}
    fields[name] = other.get(name, "other")
    verdict = verify_event(DOCUMENT["public_key_hex"], "sign", json.dumps(fields).encode())
    assert not verdict.valid
    assert verdict.reason == "signature: does not verify under this key"


def test_a_wallet_id_that_is_another_message_is_refused() -> None:
    sign = next(v for v in VECTORS if v["kind"] == "sign")
    with pytest.raises(RejectError) as caught:
        message.check_unambiguous(KeygenRequest(wallet_id=bytes.fromhex(sign["raw_hex"]).decode()))
    assert (caught.value.code, caught.value.field) == (Code.AMBIGUOUS_MESSAGE, "wallet_id")


@pytest.mark.parametrize(
    ("operation", "data", "field"),
    [
        ("keygen", b"", None),
        ("keygen", b"[]", None),
        ("keygen", b'{"wallet_id":"a","wallet_id":"b","signature":""}', None),
        ("keygen", b'{"wallet_id":"a"}', "signature"),
        ("keygen", b'{"wallet_id":1,"signature":""}', "wallet_id"),
        ("keygen", b'{"wallet_id":"a","signature":"?"}', "signature"),
        ("keygen", b'{"wallet_id":"a","signature":"","more":1}', "more"),
        ("keygen", b'{"wallet_id":"\\ud800","signature":""}', "wallet_id"),
        ("reshare", b'{"session_id":"s","node_ids":"n","new_threshold":1,"key_type":"ed25519","wallet_id":"w"}', "node_ids"),
        (
            "reshare",
            b'{"session_id":"s","node_ids":[],"new_threshold":true,"key_type":"ed25519","wallet_id":"w"}',
            "new_threshold",
        ),
    ],
)
def test_unusable_events_are_refused_with_their_field(operation: str, data: bytes, field: str | None) -> None:
    with pytest.raises(RejectError) as caught:
        message.parse_event(Operation(operation), data)
    assert (caught.value.code, caught.value.field) == (Code.UNDECODABLE, field)
    assert not verify_event(DOCUMENT["public_key_hex"], operation, data).valid
