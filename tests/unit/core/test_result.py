"""Results of the nodes: what is read, what is refused, and what an error means."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core.model import KeyType, Operation
from initiator.core.result import (
    MAX_REASON_CHARS,
    EcdsaSignature,
    EddsaSignature,
    ErrorClass,
    KeygenKeys,
    NodeResult,
    ReshareKey,
    classify,
    parse_result,
    result_body,
)
from initiator.errors import Code, RejectError

SUCCESS = {"result_type": "success", "error_code": "", "error_reason": ""}


def b64(size: int, fill: int = 7) -> str:
    return base64.b64encode(bytes([fill]) * size).decode()


KEYGEN: dict[str, Any] = SUCCESS | {"wallet_id": "w1", "ecdsa_pub_key": b64(64), "eddsa_pub_key": b64(32)}
_SIGN = SUCCESS | {"is_timeout": False, "network_internal_code": "eth", "wallet_id": "w1", "tx_id": "t1"}
ECDSA: dict[str, Any] = _SIGN | {"r": b64(32), "s": b64(32), "signature_recovery": b64(1, 1), "signature": None}
EDDSA: dict[str, Any] = _SIGN | {"r": None, "s": None, "signature_recovery": None, "signature": b64(64)}
RESHARE: dict[str, Any] = SUCCESS | {"wallet_id": "w1", "new_threshold": 2, "key_type": "ed25519", "pub_key": b64(32)}


def parse(operation: Operation, fields: dict[str, Any]) -> NodeResult:
    return parse_result(operation, json.dumps(fields).encode())


def refusal(operation: Operation, data: bytes) -> tuple[Code, str | None, str]:
    with pytest.raises(RejectError) as caught:
        parse_result(operation, data)
    return caught.value.code, caught.value.field, caught.value.reason


# --- what is read


def test_a_keygen_success_brings_both_public_keys() -> None:
    assert parse(Operation.KEYGEN, KEYGEN) == NodeResult(
        operation=Operation.KEYGEN,
        success=True,
        error_code="",
        error_reason="",
        wallet_id="w1",
        operation_id="w1",
        value=KeygenKeys(ecdsa_pub_key=b"\x07" * 64, eddsa_pub_key=b"\x07" * 32),
    )


def test_an_ecdsa_success_brings_r_s_and_the_recovery_id() -> None:
    assert parse(Operation.SIGN, ECDSA) == NodeResult(
        operation=Operation.SIGN,
        success=True,
        error_code="",
        error_reason="",
        wallet_id="w1",
        operation_id="t1",
        network_internal_code="eth",
        value=EcdsaSignature(r=b"\x07" * 32, s=b"\x07" * 32, recovery=1),
    )


def test_an_eddsa_success_brings_a_signature() -> None:
    assert parse(Operation.SIGN, EDDSA).value == EddsaSignature(signature=b"\x07" * 64)


@pytest.mark.parametrize(("key_type", "size"), [(KeyType.SECP256K1, 64), (KeyType.ED25519, 32)])
def test_a_reshare_success_brings_its_key_and_no_operation_id(key_type: KeyType, size: int) -> None:
    result = parse(Operation.RESHARE, RESHARE | {"key_type": key_type.value, "pub_key": b64(size)})
    assert result.operation_id is None
    assert result.value == ReshareKey(key_type=key_type, pub_key=b"\x07" * size, new_threshold=2)


@pytest.mark.parametrize(
    ("operation", "fields"),
    [(Operation.KEYGEN, KEYGEN), (Operation.SIGN, ECDSA), (Operation.SIGN, EDDSA), (Operation.RESHARE, RESHARE)],
)
def test_fields_that_mpcium_may_add_are_passed_over(operation: Operation, fields: dict[str, Any]) -> None:
    assert parse(operation, fields | {"new": {"deep": [1]}}) == parse(operation, fields)


def test_empty_bytes_count_as_none() -> None:
    assert parse(Operation.SIGN, EDDSA | {"r": "", "s": ""}).value == EddsaSignature(signature=b"\x07" * 64)


def test_the_result_of_exhausted_deliveries_is_an_error_although_it_holds_a_signature() -> None:
    exhausted = _SIGN | {
        "result_type": "error",
        "error_code": "ERROR_MAX_DELIVERY_ATTEMPTS",
        "error_reason": "Signing failed: maximum delivery attempts exceeded",
        "is_timeout": True,
        "signature": b64(71),  # our own initiator signature
    }
    result = parse(Operation.SIGN, exhausted)
    assert (result.success, result.value, result.operation_id) == (False, None, "t1")
    assert result.error_code == "ERROR_MAX_DELIVERY_ATTEMPTS"


@pytest.mark.parametrize("operation", list(Operation))
def test_an_error_keeps_its_words_and_needs_no_value(operation: Operation) -> None:
    error = {"result_type": "error", "error_code": "ERROR_UNKNOWN", "error_reason": "Failed: ünïcode\n"}
    result = parse(operation, error | {"wallet_id": "w1", "tx_id": "t1"})
    assert (result.success, result.error_code, result.error_reason) == (False, "ERROR_UNKNOWN", "Failed: ünïcode\n")


def test_a_success_carries_no_error_words() -> None:
    assert parse(Operation.KEYGEN, KEYGEN | {"error_reason": "left over"}).error_reason == ""


def test_an_error_without_words_is_an_error_without_words() -> None:
    result = parse(Operation.SIGN, {"result_type": "error", "wallet_id": "w1", "tx_id": "t1"})
    assert (result.success, result.error_code, result.error_reason) == (False, "", "")


def test_a_long_reason_is_cut() -> None:
    fields = {"result_type": "error", "error_code": "E", "error_reason": "x" * 5000, "wallet_id": "w", "tx_id": "t"}
    reason = parse(Operation.SIGN, fields).error_reason
    assert len(reason) == MAX_REASON_CHARS
    assert reason.endswith("x…")


def test_a_lone_surrogate_in_the_reason_cannot_break_our_events() -> None:
    data = b'{"result_type":"error","error_code":"E","error_reason":"a\\ud800b","wallet_id":"w","tx_id":"t"}'
    reason = parse_result(Operation.SIGN, data).error_reason
    assert reason == "a?b"
    reason.encode()


# --- what is refused

NOT_RESULTS = [
    (b"", "result"),
    (b"{", "result"),
    (b"null", "result"),
    (b"[]", "result"),
    (b'"success"', "result"),
    (b"\xff\xfe", "result"),
    (b'{"result_type": NaN}', "result"),
    (b'{"new_threshold": ' + b"9" * 5000 + b"}", "result"),
    (b"[" * 100_000, "result"),
    (b'{"a":' * 100_000, "result"),
    (json.dumps(KEYGEN).encode() + b" " * 1_048_577, "result"),
    (b"{}", "result_type"),
]


@pytest.mark.parametrize(("data", "field"), NOT_RESULTS, ids=lambda value: str(value)[:24])
@pytest.mark.parametrize("operation", list(Operation))
def test_what_is_no_result_is_refused(operation: Operation, data: bytes, field: str) -> None:
    assert refusal(operation, data)[:2] == (Code.RESULT_INVALID, field)


NOTHING: list[Any] = [None, "", [], {}]
NOT_BYTES: list[Any] = [None, "", b64(31), b64(33), b64(65), "*", b64(32)[:-1], 1, [7] * 32, True]
NOT_SCALARS: list[Any] = [b64(31), b64(33), "=", 5, ["a"]]
NOT_WORDS: list[Any] = [1, [], {}, False]
_BAD: list[tuple[Operation, dict[str, Any], dict[str, Any], str]] = [
    *[
        (operation, fields, {"result_type": value}, "result_type")
        for operation, fields in ((Operation.KEYGEN, KEYGEN), (Operation.SIGN, ECDSA), (Operation.RESHARE, RESHARE))
        for value in (None, "", "Success", "timeout", 1, True, ["success"])
    ],
    *[(Operation.KEYGEN, KEYGEN, {"wallet_id": value}, "wallet_id") for value in (None, "", 1, "w" * 257, "\ud800")],
    *[(Operation.SIGN, EDDSA, {"tx_id": value}, "tx_id") for value in (None, "", 1, "t" * 257, "\udfff")],
    *[(Operation.RESHARE, RESHARE, {"wallet_id": value}, "wallet_id") for value in NOTHING],
    *[
        (Operation.KEYGEN, KEYGEN, {name: value}, name)
        for name in ("ecdsa_pub_key", "eddsa_pub_key")
        for value in NOT_BYTES
    ],
    *[(Operation.SIGN, ECDSA, {name: value}, name) for name in ("r", "s") for value in NOT_SCALARS],
    (Operation.SIGN, ECDSA, {"r": None}, "r"),
    (Operation.SIGN, ECDSA, {"s": None}, "s"),
    (Operation.SIGN, ECDSA, {"r": None, "s": None, "signature_recovery": None}, "r"),
    *[
        (Operation.SIGN, ECDSA, {"signature_recovery": value}, "signature_recovery")
        for value in (None, "", b64(2, 0), b64(1, 4), b64(1, 255), 1)
    ],
    *[(Operation.SIGN, EDDSA, {"signature": value}, "signature") for value in (b64(63), b64(65), b64(71), "x", 1)],
    *[(Operation.SIGN, EDDSA, {name: b64(32)}, name) for name in ("r", "s", "signature_recovery")],
    *[(Operation.SIGN, ECDSA, {"network_internal_code": value}, "network_internal_code") for value in NOT_WORDS],
    *[
        (Operation.RESHARE, RESHARE, {"key_type": value}, "key_type")
        for value in (None, "", "ecdsa", "ED25519", 1, ["ed25519"])
    ],
    (Operation.RESHARE, RESHARE, {"key_type": "secp256k1"}, "pub_key"),
    *[(Operation.RESHARE, RESHARE, {"pub_key": value}, "pub_key") for value in (None, "", b64(64), b64(33))],
    *[
        (Operation.RESHARE, RESHARE, {"new_threshold": value}, "new_threshold")
        for value in (None, "2", 2.0, True, -1, 65_536, 2**70)
    ],
    *[
        (Operation.KEYGEN, KEYGEN, {"result_type": "error", name: value}, name)
        for name in ("error_code", "error_reason")
        for value in NOT_WORDS
    ],
]


@pytest.mark.parametrize(("operation", "good", "change", "field"), _BAD)
def test_a_bad_field_is_refused_by_name(
    operation: Operation, good: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    parse(operation, good)
    code, named, _ = refusal(operation, json.dumps(good | change).encode())
    assert (code, named) == (Code.RESULT_INVALID, field)


@pytest.mark.parametrize("name", ["result_type", "wallet_id", "ecdsa_pub_key", "eddsa_pub_key"])
def test_a_missing_field_is_refused_by_name(name: str) -> None:
    fields = {key: value for key, value in KEYGEN.items() if key != name}
    assert refusal(Operation.KEYGEN, json.dumps(fields).encode())[:2] == (Code.RESULT_INVALID, name)


def test_a_refusal_says_expected_and_got_but_shows_no_bytes() -> None:
    reason = refusal(Operation.KEYGEN, json.dumps(KEYGEN | {"eddsa_pub_key": b64(31, 0x41)}).encode())[2]
    assert reason == "expected 32 bytes, got 31"
    bad = json.dumps(KEYGEN | {"eddsa_pub_key": ["secret"]}).encode()
    assert refusal(Operation.KEYGEN, bad)[2] == "expected base64 or null, got a list"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(b64(32)) | st.just(b64(64)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAMES = sorted({*KEYGEN, *ECDSA, *RESHARE})


@given(st.sampled_from(list(Operation)), st.dictionaries(st.sampled_from(NAMES), JSON_VALUES), st.booleans())
def test_any_object_is_read_or_refused_and_nothing_else(
    operation: Operation, fields: dict[str, Any], success: bool
) -> None:
    fields |= {"result_type": "success" if success else "error"}
    refused: RejectError | None = None
    try:
        result = parse(operation, fields)
    except RejectError as error:
        refused = error
    if refused is not None:
        assert refused.code is Code.RESULT_INVALID
        assert refused.field
        return
    assert result.success == success
    assert (result.value is not None) == success
    assert len(result.error_reason) <= MAX_REASON_CHARS
    dataclasses.astuple(result)[3].encode()


@given(st.sampled_from(list(Operation)), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(operation: Operation, data: bytes) -> None:
    with pytest.raises(RejectError):
        parse_result(operation, data)


# --- what an error means

DUPLICATE = "Duplicate session: duplicate signing request detected for walletID=output-1 txID=t"
EXISTS = "Failed to create EdDSA key generation session: Key already exists: send-1"


@pytest.mark.parametrize(
    ("operation", "code", "reason", "expected"),
    [
        (Operation.KEYGEN, "ERROR_CLUSTER_NOT_READY", "", ErrorClass.RETRY_BEFORE_SESSION),
        (Operation.SIGN, "ERROR_NOT_MAJORITY", "", ErrorClass.RETRY_BEFORE_SESSION),
        (Operation.SIGN, "ERROR_CLUSTER_NOT_READY", "", ErrorClass.RETRY_BEFORE_SESSION),
        (Operation.RESHARE, "ERROR_NOT_MAJORITY", "", ErrorClass.FINAL),
        (Operation.RESHARE, "ERROR_CLUSTER_NOT_READY", "", ErrorClass.FINAL),
        (Operation.SIGN, "ERROR_SESSION_DUPLICATE", "", ErrorClass.PROVISIONAL),
        (Operation.KEYGEN, "ERROR_KEY_ALREADY_EXISTS", "", ErrorClass.PROVISIONAL),
        (Operation.KEYGEN, "ERROR_SESSION_DUPLICATE", "", ErrorClass.PROVISIONAL),
        (Operation.SIGN, "ERROR_STORAGE_WRITE", DUPLICATE, ErrorClass.PROVISIONAL),
        (Operation.KEYGEN, "ERROR_PEER_UNAVAILABLE", EXISTS, ErrorClass.PROVISIONAL),
        (Operation.SIGN, "ERROR_STORAGE_WRITE", "failed to save: Duplicate session: x", ErrorClass.FINAL),
        (Operation.SIGN, "ERROR_KEY_NOT_FOUND", "", ErrorClass.FINAL),
        (Operation.SIGN, "ERROR_INSUFFICIENT_PARTICIPANTS", "", ErrorClass.FINAL),
        (Operation.SIGN, "ERROR_MAX_DELIVERY_ATTEMPTS", "", ErrorClass.FINAL),
        (Operation.SIGN, "ERROR_NETWORK_TIMEOUT", "", ErrorClass.FINAL),
        (Operation.SIGN, "", "", ErrorClass.FINAL),
        (Operation.SIGN, "NOT_MAJORITY", "", ErrorClass.FINAL),
        (Operation.SIGN, "ERROR_A_NEW_ONE", "", ErrorClass.FINAL),
    ],
)
def test_an_error_is_retried_held_or_final(operation: Operation, code: str, reason: str, expected: ErrorClass) -> None:
    assert classify(operation, code, reason) is expected


# --- what our events carry


@pytest.mark.parametrize(
    ("operation", "fields", "body"),
    [
        (Operation.KEYGEN, KEYGEN, {"ecdsa_pub_key": b"\x07" * 64, "eddsa_pub_key": b"\x07" * 32}),
        (Operation.SIGN, ECDSA, {"r": b"\x07" * 32, "s": b"\x07" * 32, "signature_recovery": 1}),
        (Operation.SIGN, EDDSA, {"signature": b"\x07" * 64}),
        (Operation.RESHARE, RESHARE, {"key_type": "ed25519", "pub_key": b"\x07" * 32, "new_threshold": 2}),
        (Operation.SIGN, _SIGN | {"result_type": "error", "signature": b64(71)}, {}),
    ],
)
def test_a_result_goes_into_our_event_under_mpciums_names(
    operation: Operation, fields: dict[str, Any], body: dict[str, Any]
) -> None:
    assert result_body(parse(operation, fields).value) == body
