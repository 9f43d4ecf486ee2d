"""For the nodes' side and auditors: a verdict, and why, for whatever bytes claim to be an event of the initiator."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import message
from initiator.core.message import AuthorizerSignature
from initiator.core.model import KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.core.spki import fingerprint, p256_public_key
from initiator.errors import Code, HaltError
from initiator.verify import Algorithm, PublicKey, Verdict, verify_event

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "mpcium.json").read_text("utf-8"))
Sign = Callable[[bytes], bytes]


def new_key(algorithm: Algorithm) -> tuple[PublicKey, Sign]:
    if algorithm == "ed25519":
        ed25519 = Ed25519PrivateKey.generate()
        return PublicKey(algorithm="ed25519", encoded=ed25519.public_key().public_bytes_raw()), ed25519.sign
    p256 = ec.generate_private_key(ec.SECP256R1())
    return p256_public_key(p256.public_key()), lambda data: p256.sign(data, ec.ECDSA(hashes.SHA256()))


KEYS: dict[Algorithm, tuple[PublicKey, Sign]] = {"p256": new_key("p256"), "ed25519": new_key("ed25519")}
KEY, SIGN_WITH = KEYS["p256"]
REQUESTS: dict[str, Request] = {
    "keygen": KeygenRequest(wallet_id="w1"),
    "sign": SignRequest(
        key_type=KeyType.SECP256K1,
        wallet_id="w1",
        network_internal_code="n",
        tx_id="t1",
        tx=bytes(range(1, 33)),
        derivation_path=(44, 60),
    ),
    "reshare": ReshareRequest(
        session_id="s1", node_ids=("n0", "n1"), new_threshold=1, key_type=KeyType.ED25519, wallet_id="w1"
    ),
}
IDS = {"keygen": "w1", "sign": "t1", "reshare": "s1"}
operations = pytest.mark.parametrize("operation", REQUESTS)
algorithms = pytest.mark.parametrize("algorithm", ["p256", "ed25519"])


def event(operation: str, algorithm: Algorithm = "p256", authorizers: dict[str, Sign] | None = None) -> bytes:
    """An event as the initiator publishes it."""
    request, sign = REQUESTS[operation], KEYS[algorithm][1]
    signature = sign(message.signed_bytes(request))
    signed = message.authorizer_bytes(request, signature)
    return message.event_bytes(
        request,
        signature,
        [AuthorizerSignature(authorizer_id=name, signature=by(signed)) for name, by in (authorizers or {}).items()],
    )


def changed(data: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(data) | fields).encode()


def verdict_of(operation: str, data: bytes) -> Verdict:
    return verify_event(KEY, operation, data)


def invalid(operation: str, field: str, reason: str) -> Verdict:
    """Readable, and not signed."""
    return Verdict(valid=False, readable=True, reason=reason, field=field, operation_id=IDS[operation],
                   key_fingerprint=fingerprint(KEY))  # fmt: skip


def unreadable(field: str, reason: str) -> Verdict:
    return Verdict(valid=False, readable=False, reason=reason, field=field, key_fingerprint=fingerprint(KEY))


NOT_SIGNED = "does not verify under this key"


# --- valid


@operations
@algorithms
def test_an_event_of_the_initiator_is_valid(operation: str, algorithm: Algorithm) -> None:
    key = KEYS[algorithm][0]
    assert verify_event(key, operation, event(operation, algorithm)) == Verdict(
        valid=True,
        readable=True,
        reason="signed by the initiator",
        key_fingerprint=fingerprint(key),
        operation_id=IDS[operation],
    )


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_events_of_mpciums_own_types_are_valid_and_of_no_other_key(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["event_hex"])
    assert verify_event(VECTORS["public_key_hex"], vector["kind"], data).valid
    assert not verify_event(KEY, vector["kind"], data).valid


@algorithms
def test_the_key_may_be_text_as_in_mpciums_config(algorithm: Algorithm) -> None:
    key = KEYS[algorithm][0]
    for text in (key.hex, f"0x{key.hex}", base64.b64encode(key.encoded).decode()):
        assert verify_event(text, Operation.SIGN, event("sign", algorithm), algorithm=algorithm).valid


@operations
@given(random=st.randoms(use_true_random=False))
def test_order_of_keys_and_white_space_do_not_matter(operation: str, random: Any) -> None:
    items = list(json.loads(event(operation)).items())
    random.shuffle(items)
    assert verdict_of(operation, json.dumps(dict(items), indent=2).encode()).valid


@pytest.mark.parametrize("path", [None, [], [0], [44, 60, 1]])
def test_a_path_is_not_covered_by_the_signature(path: list[int] | None) -> None:
    """The protocol's limit, not ours: whoever relies on a verdict has to know it."""
    assert verdict_of("sign", changed(event("sign"), derivation_path=path)).valid


# --- invalid

TAMPERED: list[tuple[str, str, Any]] = [
    ("sign", "wallet_id", "w2"),
    ("sign", "key_type", "ed25519"),
    ("sign", "network_internal_code", "m"),
    ("sign", "network_internal_code", ""),
    ("sign", "tx", base64.b64encode(bytes(range(2, 34))).decode()),
    ("sign", "tx", None),
    ("reshare", "wallet_id", "w2"),
    ("reshare", "node_ids", ["n1", "n0"]),
    ("reshare", "node_ids", ["n0", "n1", "n2"]),
    ("reshare", "node_ids", None),
    ("reshare", "new_threshold", 2),
    ("reshare", "key_type", "secp256k1"),
]


@pytest.mark.parametrize(("operation", "name", "value"), TAMPERED)
def test_a_field_that_was_tampered_with_is_noticed(operation: str, name: str, value: Any) -> None:
    data = changed(event(operation), **{name: value})
    assert verdict_of(operation, data) == invalid(operation, "signature", NOT_SIGNED)


@pytest.mark.parametrize(("operation", "name"), [("keygen", "wallet_id"), ("sign", "tx_id"), ("reshare", "session_id")])
def test_an_id_that_was_tampered_with_is_noticed_and_is_the_one_that_is_named(operation: str, name: str) -> None:
    found = verdict_of(operation, changed(event(operation), **{name: "other"}))
    assert (found.valid, found.readable, found.operation_id) == (False, True, "other")
    assert (found.field, found.reason) == ("signature", NOT_SIGNED)


@operations
def test_any_changed_byte_of_an_event_is_noticed(operation: str) -> None:
    data = event(operation)
    path = data.find(b'"derivation_path"')
    covered = data if path < 0 else data[:path]
    for at in range(len(covered)):
        found = verdict_of(operation, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert not found.valid, at
        assert found.reason


@operations
@algorithms
def test_another_key_did_not_sign_it(operation: str, algorithm: Algorithm) -> None:
    other = new_key(algorithm)[0]
    found = verify_event(other, operation, event(operation, algorithm))
    assert (found.valid, found.readable, found.field, found.reason) == (False, True, "signature", NOT_SIGNED)
    assert found.key_fingerprint == fingerprint(other) != fingerprint(KEYS[algorithm][0])


@operations
def test_the_other_algorithms_key_did_not_sign_it(operation: str) -> None:
    found = verify_event(KEYS["ed25519"][0], operation, event(operation, "p256"))
    assert (found.valid, found.field, found.reason) == (False, "signature", NOT_SIGNED)


@operations
@pytest.mark.parametrize("signature", [None, ""])
def test_an_event_without_a_signature_is_invalid(operation: str, signature: str | None) -> None:
    data = changed(event(operation), signature=signature)
    assert verdict_of(operation, data) == invalid(operation, "signature", "missing")


def test_a_reshare_whose_signature_was_left_out_is_invalid() -> None:
    data = message.event_bytes(REQUESTS["reshare"], b"")
    assert b"signature" not in data
    assert verdict_of("reshare", data) == invalid("reshare", "signature", "missing")


@operations
@pytest.mark.parametrize("change", [lambda der: der[:-1], lambda der: der + b"\x00", lambda der: bytes(len(der))])
def test_a_signature_in_another_form_is_invalid(operation: str, change: Callable[[bytes], bytes]) -> None:
    data = event(operation)
    signature = base64.b64encode(change(base64.b64decode(json.loads(data)["signature"]))).decode()
    assert verdict_of(operation, changed(data, signature=signature)) == invalid(operation, "signature", NOT_SIGNED)


def test_a_signature_of_another_request_is_invalid() -> None:
    borrowed = json.loads(event("sign"))["signature"]
    assert verdict_of("keygen", changed(event("keygen"), signature=borrowed)).reason == NOT_SIGNED


# --- no event

SIGN_EVENT = event("sign")
KEYGEN_EVENT = event("keygen")
NO_EVENT: dict[str, tuple[str, bytes, str, str]] = {
    "nothing": ("sign", b"", "payload", "not application/json: expecting value at character 0"),
    "cut": ("sign", SIGN_EVENT[:-1], "payload",
            f"not application/json: expecting ',' delimiter at character {len(SIGN_EVENT) - 1}"),
    "more behind it": ("sign", SIGN_EVENT + b"{}", "payload",
                       f"not application/json: extra data at character {len(SIGN_EVENT)}"),
    "a list": ("sign", b"[" + SIGN_EVENT + b"]", "payload", "expected a map at the top, got list"),
    "wallet_id twice": ("keygen", b'{"wallet_id":"evil",' + KEYGEN_EVENT[1:], "payload",
                        "the key 'wallet_id' stands there twice"),
    "signature twice": ("keygen", KEYGEN_EVENT[:-1] + b',"signature":""}', "payload",
                        "the key 'signature' stands there twice"),
    "a key in another case": ("keygen", KEYGEN_EVENT[:-1] + b',"Wallet_ID":"evil"}', "Wallet_ID",
                              "not a field of a keygen event"),
    "a field more": ("sign", changed(SIGN_EVENT, expires_at=None), "expires_at", "not a field of a sign event"),
    "a field less": ("sign", json.dumps({k: v for k, v in json.loads(SIGN_EVENT).items() if k != "tx"}).encode(), "tx",
                     "missing in a sign event"),
    "a number for an id": ("keygen", changed(KEYGEN_EVENT, wallet_id=1), "wallet_id", "expected a string, got int"),
    "a signature that is no base64": ("keygen", changed(KEYGEN_EVENT, signature="?"), "signature",
                                      "expected canonical standard base64 or null"),
    "NaN": ("keygen", changed(KEYGEN_EVENT, wallet_id=float("nan")), "payload", "NaN is not a JSON number"),
    "not UTF-8": ("keygen", KEYGEN_EVENT.replace(b"w1", b"\xff"), "payload",
                  "not application/json: text that is not UTF-8"),
    "lone surrogate": ("keygen", KEYGEN_EVENT.replace(b"w1", b"\\ud800"), "payload", "text with a lone surrogate"),
    "nested deep": ("keygen", b'{"a":' * 50_000, "payload", "nested deeper than 8"),
    "another operation's: keygen": ("keygen", SIGN_EVENT, "key_type", "not a field of a keygen event"),
    "another operation's: sign": ("sign", event("reshare"), "session_id", "not a field of a sign event"),
    "another operation's: reshare": ("reshare", KEYGEN_EVENT, "key_type", "missing in a reshare event"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_EVENT)
def test_what_is_no_such_event_is_unreadable_and_named(name: str) -> None:
    operation, data, field, reason = NO_EVENT[name]
    assert verdict_of(operation, data) == unreadable(field, reason)


@operations
@given(data=st.binary(max_size=60))
def test_rubbish_is_unreadable_and_no_error(operation: str, data: bytes) -> None:
    found = verdict_of(operation, data)
    assert (found.valid, found.readable, found.operation_id, found.authorizers) == (False, False, None, ())


# --- unusable arguments


def test_a_key_in_another_form_is_an_error() -> None:
    with pytest.raises(HaltError) as caught:
        verify_event(KEY.hex[:-2], "sign", SIGN_EVENT)
    assert (caught.value.code, caught.value.field) == (Code.PUBLIC_KEY_INVALID, "event_initiator_pubkey")
    assert caught.value.reason == "expected P-256 SubjectPublicKeyInfo (91 bytes), got one of 90 bytes"


@pytest.mark.parametrize("operation", ["", "signing", "SIGN"])
def test_an_operation_that_does_not_exist_is_an_error(operation: str) -> None:
    with pytest.raises(ValueError, match="is not a valid Operation"):
        verify_event(KEY, operation, SIGN_EVENT)


# --- authorizers

ALICE, BOB = new_key("p256"), new_key("ed25519")
BOTH = {"alice": ALICE[0], "bob": BOB[0]}
AUTHORIZED = event("sign", authorizers={"alice": ALICE[1], "bob": BOB[1]})
BY_ALICE = event("sign", authorizers={"alice": ALICE[1]})


def judged(data: bytes, authorizers: dict[str, Any] | None, required: list[str] | None = None) -> Verdict:
    return verify_event(KEY, "sign", data, authorizers=authorizers, required_authorizers=required)


def summary(found: Verdict) -> tuple[bool, str | None, str, tuple[str, ...]]:
    return found.valid, found.field, found.reason, found.authorizers


@operations
def test_signatures_of_all_authorizers_are_verified(operation: str) -> None:
    data = event(operation, authorizers={"bob": BOB[1], "alice": ALICE[1]})
    found = verify_event(KEY, operation, data, authorizers=BOTH)
    assert summary(found) == (True, None, "signed by the initiator, authorized by bob, alice", ("bob", "alice"))


@pytest.mark.parametrize("vector", [v for v in VECTORS["vectors"] if v["input"].get("authorizer_signatures")],
                         ids=lambda vector: vector["name"])  # fmt: skip
def test_unless_asked_for_they_are_not_looked_at_and_the_verdict_says_so(vector: dict[str, Any]) -> None:
    found = verify_event(VECTORS["public_key_hex"], vector["kind"], bytes.fromhex(vector["event_hex"]))
    reason = "signed by the initiator; the signatures of its authorizers were not checked"
    assert summary(found) == (True, None, reason, ())


def test_keys_of_authorizers_may_be_text_with_their_algorithm() -> None:
    keys = {"alice": (ALICE[0].hex, "p256"), "bob": (BOB[0].hex, "ed25519")}
    assert judged(AUTHORIZED, keys).authorizers == ("alice", "bob")


def test_ids_of_keys_are_lowered_as_the_nodes_config_reader_does() -> None:
    assert judged(BY_ALICE, {"Alice": ALICE[0]}).valid


def test_only_the_required_ones_must_be_there() -> None:
    assert judged(BY_ALICE, BOTH, ["alice"]).valid
    assert judged(BY_ALICE, BOTH, []).valid
    assert judged(SIGN_EVENT, BOTH, []).reason == "signed by the initiator"
    assert judged(SIGN_EVENT, {}).valid


NOT_KNOWN = "is not among the known authorizers"
FIRST, SECOND, LIST = "authorizer_signatures[0]", "authorizer_signatures[1]", "authorizer_signatures"
BAD_AUTHORIZERS: dict[str, tuple[bytes, dict[str, PublicKey], list[str] | None, str, str]] = {
    "none signed": (SIGN_EVENT, BOTH, None, LIST, "missing alice, bob"),
    "one is missing": (BY_ALICE, BOTH, None, LIST, "missing bob"),
    "a required one is missing": (BY_ALICE, BOTH, ["bob"], LIST, "missing bob"),
    "an unknown one signed": (AUTHORIZED, {"alice": ALICE[0]}, None, SECOND, f"'bob' {NOT_KNOWN}"),
    "no one is known": (BY_ALICE, {}, None, FIRST, f"'alice' {NOT_KNOWN}"),
    "an id in upper case": (event("sign", authorizers={"Alice": ALICE[1]}), BOTH, [], FIRST, f"'Alice' {NOT_KNOWN}"),
    "an id that draws on the terminal": (event("sign", authorizers={"\x1b[2J" + "x" * 99: ALICE[1]}), BOTH, [], FIRST,
                                         "'\\x1b[2J" + "x" * 60 + f"' {NOT_KNOWN}"),
    "somebody else signed": (event("sign", authorizers={"alice": BOB[1]}), BOTH, ["alice"], FIRST,
                             "the signature of alice does not verify"),
    "one that is not required is wrong": (event("sign", authorizers={"alice": ALICE[1], "bob": ALICE[1]}), BOTH,
                                          ["alice"], SECOND, "the signature of bob does not verify"),
    "the message alone was signed": (
        event("sign", authorizers={"alice": lambda _: ALICE[1](message.signed_bytes(REQUESTS["sign"]))}), BOTH,
        ["alice"], FIRST, "the signature of alice does not verify"),
    "the initiator signed again afterwards": (
        changed(AUTHORIZED, signature=json.loads(event("sign"))["signature"]), BOTH, None, FIRST,
        "the signature of alice does not verify"),
    "an empty signature": (event("sign", authorizers={"alice": lambda _: b""}), BOTH, ["alice"], FIRST,
                           "the signature of alice does not verify"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_AUTHORIZERS)
def test_an_event_that_is_not_authorized_is_invalid(name: str) -> None:
    data, keys, required, field, reason = BAD_AUTHORIZERS[name]
    assert summary(judged(data, keys, required)) == (False, field, reason, ())
    assert judged(data, None).valid


def test_without_the_initiators_signature_nobody_else_counts() -> None:
    assert summary(judged(changed(AUTHORIZED, tx=None), BOTH)) == (False, "signature", NOT_SIGNED, ())


def test_an_authorizers_key_in_another_form_is_an_error_that_names_him() -> None:
    with pytest.raises(HaltError) as caught:
        judged(AUTHORIZED, {"alice": ALICE[0], "bob": (ALICE[0].hex, "ed25519")})
    assert (caught.value.code, caught.value.field) == (Code.PUBLIC_KEY_INVALID, "authorizers.bob")
    assert caught.value.reason == "expected an Ed25519 public key (32 bytes), got a P-256 public key (91 bytes)"


@pytest.mark.parametrize(
    ("keys", "required", "reason"),
    [
        (BOTH, ["alice", "carol", "dave"], "required_authorizers: no key for carol, dave"),
        (None, ["alice"], "required_authorizers: no key for alice"),
        (BOTH, ["Alice"], "required_authorizers: no key for Alice"),
        ({"alice": ALICE[0], "ALICE": BOB[0]}, None, "authorizers: alice is there twice"),
    ],
    ids=["unknown", "no keys", "upper case", "twice"],
)
def test_what_can_never_be_met_is_an_error_and_no_verdict(
    keys: dict[str, Any] | None, required: list[str] | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        judged(AUTHORIZED, keys, required)
