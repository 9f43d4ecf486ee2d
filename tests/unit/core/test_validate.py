"""Fields in: what passes is exactly what was sent, what does not is named with its reason, alike in both encodings."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest

from initiator.core import validate
from initiator.core.curves import SECP256K1_N
from initiator.core.model import ContentType, KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.core.validate import Rules
from initiator.errors import Code, RejectError

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
RULES = Rules(max_tx_bytes=100, tx_id_form="uuid_or_no_hyphen", max_expiry_s=86_400.0, max_labels=3)
UUID = "0c0e5a3e-0c5d-4a3f-9d0a-7f0e5b1c2d3e"
HASH = bytes(range(1, 33))

KEYGEN: dict[str, Any] = {"wallet_id": "w1"}
SIGN: dict[str, Any] = {
    "key_type": "secp256k1",
    "wallet_id": "w1",
    "network_internal_code": "eth-main",
    "tx_id": "tx1",
    "tx": HASH,
}
ED25519 = SIGN | {"key_type": "ed25519"}
RESHARE: dict[str, Any] = {
    "session_id": "s1",
    "node_ids": ["n0", "n1", "n2"],
    "new_threshold": 2,
    "key_type": "ed25519",
    "wallet_id": "w1",
}
GOOD = {Operation.KEYGEN: KEYGEN, Operation.SIGN: SIGN, Operation.RESHARE: RESHARE}


def sent_as(encoding: ContentType, fields: dict[str, Any]) -> dict[str, Any]:
    """The map that a decoder returns: JSON carries bytes as base64."""
    if encoding is ContentType.MSGPACK:
        return fields
    return {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in fields.items()
    }


def accepted(operation: str, fields: dict[str, Any]) -> Request:
    """The request, which must be the same one in both encodings."""
    as_msgpack, as_json = (
        validate.parse_request(Operation(operation), sent_as(encoding, fields), encoding, RULES, NOW)
        for encoding in ContentType
    )
    assert as_msgpack == as_json
    return as_msgpack


def refusals(operation: str, fields: dict[str, Any]) -> set[tuple[Code, str | None, str]]:
    """What both encodings say; one element where they agree."""
    found = set()
    for encoding in ContentType:
        with pytest.raises(RejectError) as caught:
            validate.parse_request(Operation(operation), sent_as(encoding, fields), encoding, RULES, NOW)
        found.add((caught.value.code, caught.value.field, caught.value.reason))
    return found


# --- what passes


def test_a_keygen_becomes_a_request() -> None:
    assert accepted("keygen", KEYGEN) == KeygenRequest(wallet_id="w1")


def test_a_sign_becomes_a_request_with_all_it_holds() -> None:
    more = {
        "derivation_path": [44, 0, 2**31 - 1],
        "expires_at": "2026-01-01T01:00:00+00:30",
        "labels": {"team": "a"},
    }
    assert accepted("sign", SIGN | more) == SignRequest(
        key_type=KeyType.SECP256K1,
        wallet_id="w1",
        network_internal_code="eth-main",
        tx_id="tx1",
        tx=HASH,
        derivation_path=(44, 0, 2**31 - 1),
        expires_at=NOW + 1800,
        labels={"team": "a"},
    )


def test_a_reshare_becomes_a_request() -> None:
    assert accepted("reshare", RESHARE) == ReshareRequest(
        session_id="s1", node_ids=("n0", "n1", "n2"), new_threshold=2, key_type=KeyType.ED25519, wallet_id="w1"
    )


@pytest.mark.parametrize(
    ("operation", "fields"),
    [
        ("keygen", {"wallet_id": "a"}),
        ("keygen", {"wallet_id": "-_09azAZ" * 8}),
        ("keygen", {"wallet_id": "keygen"}),
        ("keygen", KEYGEN | {"labels": {"k" * 128: "v" * 128, "a": "", "é": "漢😀"}}),
        ("sign", SIGN | {"tx_id": UUID}),
        ("sign", SIGN | {"tx_id": UUID.upper()}),
        ("sign", SIGN | {"tx_id": "x" * 64}),
        ("sign", SIGN | {"tx_id": "keygen1"}),
        ("sign", SIGN | {"tx_id": "0123456789a"}),
        ("sign", SIGN | {"tx_id": "0123456789abc"}),
        ("sign", SIGN | {"tx_id": "0123456789ag"}),
        ("sign", SIGN | {"network_internal_code": ""}),
        ("sign", SIGN | {"network_internal_code": "é 漢<>&😀" + "x" * 57}),
        ("sign", SIGN | {"tx": (1).to_bytes(32, "big")}),
        ("sign", SIGN | {"tx": (SECP256K1_N - 1).to_bytes(32, "big")}),
        ("sign", SIGN | {"derivation_path": [0] * 16}),
        ("sign", ED25519 | {"tx": b"\x01"}),
        ("sign", ED25519 | {"tx": b"\xff" * 100}),
        ("reshare", RESHARE | {"node_ids": ["a", "b"], "new_threshold": 1}),
        ("reshare", RESHARE | {"node_ids": [f"n{i}" for i in range(64)], "new_threshold": 63}),
    ],
)
def test_the_limits_themselves_pass_and_nothing_is_changed(operation: str, fields: dict[str, Any]) -> None:
    request = accepted(operation, fields)
    for name, sent in fields.items():
        assert getattr(request, name) == (tuple(sent) if isinstance(sent, list) else sent)


def test_null_is_no_label_and_no_expiry() -> None:
    assert accepted("keygen", KEYGEN | {"labels": None, "expires_at": None}) == accepted("keygen", KEYGEN)


@pytest.mark.parametrize("path", [None, []])
def test_an_empty_path_is_no_path(path: list[int] | None) -> None:
    assert accepted("sign", SIGN | {"derivation_path": path}) == accepted("sign", SIGN)


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("2026-01-01T00:00:01Z", 1.0),
        ("2026-01-01t00:00:01z", 1.0),
        ("2026-01-01T00:00:00.5Z", 0.5),
        ("2026-01-01T00:00:00.25+00:00", 0.25),
        ("2026-01-01T00:00:00.123456789Z", 0.123456),
        ("2026-01-01T02:00:01+02:00", 1.0),
        ("2025-12-31T12:00:01-12:00", 1.0),
        ("2026-01-02T00:00:00Z", 86_400.0),
    ],
)
def test_an_expiry_is_a_time_with_a_zone(text: str, after_s: float) -> None:
    at = accepted("keygen", KEYGEN | {"expires_at": text}).expires_at
    assert at == pytest.approx(NOW + after_s, abs=1e-6)


# --- what does not, whatever the encoding

Row = tuple[str, dict[str, Any], Code, str, str]
INVALID, MISSING, UNKNOWN = Code.INVALID_FIELD, Code.MISSING_FIELD, Code.UNKNOWN_FIELD
SAFE = "expected 1 to 64 of A-Z a-z 0-9 _ -, got "
TIME = "expected RFC 3339 with a zone, such as 2026-01-31T12:00:00Z"
HARDENED = "hardened levels (2**31 and above) fail on the nodes"
PRINTABLE = "expected up to 64 printable characters"
LABEL = "expected up to 128 printable characters in keys (1 or more) and values"
ORDER = "expected a hash that is not zero and below the order of secp256k1"
RANGE = "expected 1 or more and less than the number of nodes (3), got "
KEYGEN_FIELDS = "no such field; known are wallet_id, expires_at, labels"

NO_TEXT: dict[str, Any] = {"null": None, "bool": True, "int": 7, "float": 1.5, "list": ["w1"], "dict": {"a": "b"}}


def text_rows(operation: str, name: str) -> list[Row]:
    good = GOOD[Operation(operation)]
    return [(operation, good | {name: value}, INVALID, name, f"expected a string, got {kind}")
            for kind, value in NO_TEXT.items()]  # fmt: skip


def id_rows(operation: str, name: str) -> list[Row]:
    """Whatever is no single safe token of NATS, and whatever looks like another id than it is."""
    strange = [".", " ", "*", ">", "/", "$", ":", "~", "\n", "\x00", "\x7f", "\\", '"', "{", "é", "\u2028", "😀"]
    good = GOOD[Operation(operation)]
    return [
        *((operation, good | {name: f"a{character}b"}, INVALID, name, f"{SAFE}the character {character!a}")
          for character in strange),
        (operation, good | {name: ""}, INVALID, name, SAFE + "an empty string"),
        (operation, good | {name: "*"}, INVALID, name, SAFE + "the character '*'"),
        (operation, good | {name: "w1\n"}, INVALID, name, SAFE + "the character '\\n'"),
        (operation, good | {name: "x" * 65}, INVALID, name, SAFE + "65 characters"),
        (operation, good | {name: "." * 5000}, INVALID, name, SAFE + "5000 characters"),
        *text_rows(operation, name),
    ]  # fmt: skip


def integer_rows(operation: str, name: str, field: str, wrap: bool = False) -> list[Row]:
    good = GOOD[Operation(operation)]
    values = {"null": None, "bool": True, "float": 1.0, "str": "1", "list": [1], "dict": {"a": 1}}
    return [
        (operation, good | {name: [0, value] if wrap else value}, INVALID, field, f"expected an integer, got {kind}")
        for kind, value in values.items()
    ]


KEYGEN_ROWS: list[Row] = [
    *id_rows("keygen", "wallet_id"),
    ("keygen", {}, MISSING, "wallet_id", "this field is required"),
    ("keygen", {"wallet": "w1"}, UNKNOWN, "wallet", "no such field; did you mean wallet_id?"),
    ("keygen", KEYGEN | {"walletId": "w1"}, UNKNOWN, "walletId", "no such field; did you mean wallet_id?"),
    ("keygen", KEYGEN | {"WALLET_ID": "w1"}, UNKNOWN, "WALLET_ID", "no such field; did you mean wallet_id?"),
    ("keygen", KEYGEN | {"label": {}}, UNKNOWN, "label", "no such field; did you mean labels?"),
    ("keygen", KEYGEN | {"expires": None}, UNKNOWN, "expires", "no such field; did you mean expires_at?"),
    ("keygen", KEYGEN | {"signature": "x"}, UNKNOWN, "signature", KEYGEN_FIELDS),
    ("keygen", KEYGEN | {"": 1}, UNKNOWN, "", KEYGEN_FIELDS),
    ("keygen", KEYGEN | {"a\nb\x1b": 1}, UNKNOWN, "a\\nb\\x1b", KEYGEN_FIELDS),
    ("keygen", KEYGEN | {"Ω" * 5000: 1}, UNKNOWN, "\\u03a9" * 64, KEYGEN_FIELDS),
]
SIGN_ROWS: list[Row] = [
    *id_rows("sign", "wallet_id"),
    *id_rows("sign", "tx_id"),
    *text_rows("sign", "key_type"),
    *text_rows("sign", "network_internal_code"),
    *integer_rows("sign", "derivation_path", "derivation_path[1]", wrap=True),
    *(("sign", {key: value for key, value in SIGN.items() if key != name}, MISSING, name, "this field is required")
      for name in SIGN),
    ("sign", SIGN | {"tx-id": "t"}, UNKNOWN, "tx-id", "no such field; did you mean tx_id?"),
    ("sign", SIGN | {"node_ids": []}, UNKNOWN, "node_ids", "no such field; known are key_type, wallet_id, "
     "network_internal_code, tx_id, tx, derivation_path, expires_at, labels"),
    ("sign", SIGN | {"key_type": "p256"}, INVALID, "key_type", "expected secp256k1 or ed25519, got 'p256'"),
    ("sign", SIGN | {"key_type": "ED25519"}, INVALID, "key_type", "expected secp256k1 or ed25519, got 'ED25519'"),
    ("sign", SIGN | {"key_type": ""}, INVALID, "key_type", "expected secp256k1 or ed25519, got ''"),
    ("sign", SIGN | {"key_type": "\x1b" + "k" * 99}, INVALID, "key_type",
     "expected secp256k1 or ed25519, got '\\x1b" + "k" * 31 + "'"),
    ("sign", SIGN | {"network_internal_code": "x" * 65}, INVALID, "network_internal_code", PRINTABLE),
    *(("sign", SIGN | {"network_internal_code": f"a{character}"}, INVALID, "network_internal_code", PRINTABLE)
      for character in "\x00\n\x1b\x7f\x85\u2028\u2029\u202e\u2066\u200f"),
    ("sign", SIGN | {"tx_id": "keygen"}, INVALID, "tx_id",
     "`keygen` is reserved: it would collide with the wallet's keygen on the nodes"),
    ("sign", SIGN | {"tx_id": "KeyGen"}, INVALID, "tx_id",
     "`keygen` is reserved: it would collide with the wallet's keygen on the nodes"),
    ("sign", SIGN | {"tx_id": "a-b"}, INVALID, "tx_id", "expected a UUID, or an id without hyphens"),
    ("sign", SIGN | {"tx_id": UUID + "0"}, INVALID, "tx_id", "expected a UUID, or an id without hyphens"),
    ("sign", SIGN | {"tx_id": UUID.replace("-", "_", 1)}, INVALID, "tx_id",
     "expected a UUID, or an id without hyphens"),
    ("sign", SIGN | {"tx_id": "7f0e5b1c2d3e"}, INVALID, "tx_id",
     "12 hex digits could be the end of a UUID (other lengths are fine)"),
    ("sign", SIGN | {"tx": HASH + b"\x00"}, INVALID, "tx", "expected a 32-byte hash for secp256k1, got 33 bytes"),
    ("sign", SIGN | {"tx": HASH[1:]}, INVALID, "tx", "expected a 32-byte hash for secp256k1, got 31 bytes"),
    ("sign", SIGN | {"tx": b""}, INVALID, "tx", "expected a 32-byte hash for secp256k1, got 0 bytes"),
    ("sign", SIGN | {"tx": bytes(32)}, INVALID, "tx", ORDER),
    ("sign", SIGN | {"tx": SECP256K1_N.to_bytes(32, "big")}, INVALID, "tx", ORDER),
    ("sign", SIGN | {"tx": (SECP256K1_N + 1).to_bytes(32, "big")}, INVALID, "tx", ORDER),
    ("sign", SIGN | {"tx": b"\xff" * 32}, INVALID, "tx", ORDER),
    ("sign", ED25519 | {"tx": b""}, INVALID, "tx", "expected 1 to 100 bytes, got 0"),
    ("sign", ED25519 | {"tx": b"x" * 101}, INVALID, "tx", "expected 1 to 100 bytes, got 101"),
    ("sign", ED25519 | {"tx": b"\x00x"}, INVALID, "tx",
     "an ed25519 payload that begins with a zero byte would be signed without it by the nodes"),
    ("sign", SIGN | {"derivation_path": "m/44'"}, INVALID, "derivation_path",
     "expected a list of integers or null, got str"),
    ("sign", SIGN | {"derivation_path": 0}, INVALID, "derivation_path", "expected a list of integers or null, got int"),
    ("sign", SIGN | {"derivation_path": {}}, INVALID, "derivation_path",
     "expected a list of integers or null, got dict"),
    ("sign", SIGN | {"derivation_path": [0] * 17}, INVALID, "derivation_path", "expected at most 16 levels, got 17"),
    ("sign", SIGN | {"derivation_path": [2**31]}, INVALID, "derivation_path[0]", HARDENED),
    ("sign", SIGN | {"derivation_path": [44, 60, 2**31 + 1]}, INVALID, "derivation_path[2]", HARDENED),
    ("sign", SIGN | {"derivation_path": [2**64 - 1]}, INVALID, "derivation_path[0]", HARDENED),
    ("sign", SIGN | {"derivation_path": [0, -1]}, INVALID, "derivation_path[1]", "expected 0 or more"),
]  # fmt: skip
RESHARE_ROWS: list[Row] = [
    *id_rows("reshare", "session_id"),
    *id_rows("reshare", "wallet_id"),
    *text_rows("reshare", "key_type"),
    *integer_rows("reshare", "new_threshold", "new_threshold"),
    *(("reshare", {key: value for key, value in RESHARE.items() if key != name}, MISSING, name,
       "this field is required") for name in RESHARE),
    ("reshare", RESHARE | {"threshold": 1}, UNKNOWN, "threshold", "no such field; did you mean new_threshold?"),
    ("reshare", RESHARE | {"nodes": 1}, UNKNOWN, "nodes", "no such field; did you mean node_ids?"),
    ("reshare", RESHARE | {"new_threshold": 0}, INVALID, "new_threshold", RANGE + "0"),
    ("reshare", RESHARE | {"new_threshold": -1}, INVALID, "new_threshold", RANGE + "-1"),
    ("reshare", RESHARE | {"new_threshold": 3}, INVALID, "new_threshold", RANGE + "3"),
    ("reshare", RESHARE | {"new_threshold": 2**64 - 1}, INVALID, "new_threshold", RANGE + str(2**64 - 1)),
    ("reshare", RESHARE | {"node_ids": "n0,n1"}, INVALID, "node_ids", "expected a list of strings, got str"),
    ("reshare", RESHARE | {"node_ids": None}, INVALID, "node_ids", "expected a list of strings, got null"),
    ("reshare", RESHARE | {"node_ids": {"a": 1, "b": 2}}, INVALID, "node_ids", "expected a list of strings, got dict"),
    ("reshare", RESHARE | {"node_ids": []}, INVALID, "node_ids", "expected 2 to 64 nodes, got 0"),
    ("reshare", RESHARE | {"node_ids": ["a"]}, INVALID, "node_ids", "expected 2 to 64 nodes, got 1"),
    ("reshare", RESHARE | {"node_ids": [f"n{i}" for i in range(65)]}, INVALID, "node_ids",
     "expected 2 to 64 nodes, got 65"),
    ("reshare", RESHARE | {"node_ids": ["a", "b", "a"]}, INVALID, "node_ids", "expected each node once"),
    ("reshare", RESHARE | {"node_ids": ["a", 1]}, INVALID, "node_ids[1]", "expected a string, got int"),
    ("reshare", RESHARE | {"node_ids": ["a", "b", "c.d"]}, INVALID, "node_ids[2]", SAFE + "the character '.'"),
    ("reshare", RESHARE | {"node_ids": ["", "b"]}, INVALID, "node_ids[0]", SAFE + "an empty string"),
]  # fmt: skip
OURS_ROWS: list[Row] = [
    *(("keygen", KEYGEN | {"expires_at": text}, INVALID, "expires_at", TIME)
      for text in ["", "tomorrow", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00:01Z", "20260101T000001Z",
                   "2026-01-01T00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:01,5Z", "2026-01-01T00:00:01+0000",
                   "2026-01-01T00:00:01+00:60", "2026-01-01T00:00:01Z\n", "+2026-01-01T00:00:01Z",
                   "٢٠٢٦-01-01T00:00:01Z", "2026-01-01T00:00:01.Z", "2026-01-01T00:00:01.1234567890Z"]),
    *(("keygen", KEYGEN | {"expires_at": text}, INVALID, "expires_at", "expected a time that exists")
      for text in ["2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "2026-01-01T00:00:60Z"]),
    *(("keygen", KEYGEN | {"expires_at": text}, Code.EXPIRED, "expires_at", "expired before it was read")
      for text in ["2026-01-01T00:00:00Z", "2025-12-31T23:59:59.999999Z", "2026-01-01T01:00:00+01:00",
                   "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z"]),
    *(("keygen", KEYGEN | {"expires_at": text}, INVALID, "expires_at", "expected at most 86400 s from now")
      for text in ["2026-01-02T00:00:00.000001Z", "2026-01-02T00:00:00-00:01", "9999-12-31T23:59:59-23:59"]),
    *(("keygen", KEYGEN | {"expires_at": value}, INVALID, "expires_at", f"expected a string, got {kind}")
      for kind, value in NO_TEXT.items() if value is not None),
    *(("keygen", KEYGEN | {"labels": value}, INVALID, "labels", f"expected a map of strings, got {kind}")
      for kind, value in {"str": "a=b", "list": [], "bool": False, "int": 0}.items()),
    *(("keygen", KEYGEN | {"labels": {"a": value}}, INVALID, "labels", f"expected strings, got {kind} for 'a'")
      for kind, value in NO_TEXT.items()),
    *(("keygen", KEYGEN | {"labels": labels}, INVALID, "labels", LABEL)
      for labels in [{"": "a"}, {"k" * 129: "v"}, {"k": "v" * 129}, {"k\n": "v"}, {"k": "v\x1b[0m"},
                     {"k": "v\u202e"}, {"k\u2066": "v"}]),
    ("keygen", KEYGEN | {"labels": dict.fromkeys("abcd", "x")}, INVALID, "labels", "expected at most 3 labels, got 4"),
    ("keygen", KEYGEN | {"labels": {"\x1b" * 99: 1}}, INVALID, "labels",
     "expected strings, got int for '" + "\\x1b" * 32 + "'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "fields", "code", "field", "reason"), [*KEYGEN_ROWS, *SIGN_ROWS, *RESHARE_ROWS, *OURS_ROWS]
)
def test_a_bad_field_is_refused_by_name_alike_in_both_encodings(
    operation: str, fields: dict[str, Any], code: Code, field: str, reason: str
) -> None:
    assert refusals(operation, fields) == {(code, field, reason)}


def test_the_first_thing_that_is_wrong_is_said() -> None:
    worst = {"tx": b"", "tx_id": "a.b", "unknown": 1}
    assert refusals("sign", worst).pop()[:2] == (Code.UNKNOWN_FIELD, "unknown")
    del worst["unknown"]
    assert refusals("sign", worst).pop()[:2] == (Code.MISSING_FIELD, "key_type")
    assert refusals("sign", SIGN | worst).pop()[:2] == (Code.INVALID_FIELD, "tx_id")


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("more", [{}, {"expires_at": None}])
def test_where_the_record_forgets_a_request_must_expire(operation: Operation, more: dict[str, Any]) -> None:
    forgetful = dataclasses.replace(RULES, must_expire=True)
    fields = GOOD[operation]
    validate.parse_request(operation, fields | more, ContentType.MSGPACK, RULES, NOW)
    with pytest.raises(RejectError) as refused:
        validate.parse_request(operation, fields | more, ContentType.MSGPACK, forgetful, NOW)
    assert (refused.value.code, refused.value.field) == (Code.MISSING_FIELD, "expires_at")
    validate.parse_request(
        operation, fields | {"expires_at": "2026-01-01T01:00:00Z"}, ContentType.MSGPACK, forgetful, NOW
    )
