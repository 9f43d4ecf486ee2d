"""The whole way in, from a header and bytes to a request: what is bad is refused once, by code, field and reason.

Each row is a payload as it may come from NATS. `test_codec` and `test_validate` hold the tables of each step.
"""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import codec, validate
from initiator.core.curves import SECP256K1_N
from initiator.core.model import ContentType, Operation, Request, SignRequest
from initiator.core.validate import Rules
from initiator.errors import Code, RejectError

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
RULES = Rules(max_tx_bytes=1000, tx_id_form="uuid_or_no_hyphen", max_expiry_s=86_400.0, max_labels=16)
MSGPACK, JSON = "application/msgpack", "application/json"
ENCODINGS = {MSGPACK: ContentType.MSGPACK, JSON: ContentType.JSON}

HASH = bytes(range(1, 33))
KEYGEN: dict[str, Any] = {"wallet_id": "w1"}
SIGN: dict[str, Any] = {
    "key_type": "secp256k1",
    "wallet_id": "w1",
    "network_internal_code": "n",
    "tx_id": "t1",
    "tx": HASH,
    "derivation_path": [44, 60],
}
RESHARE: dict[str, Any] = {
    "session_id": "s1",
    "node_ids": ["n0", "n1"],
    "new_threshold": 1,
    "key_type": "ed25519",
    "wallet_id": "w1",
}
GOOD = {"keygen": KEYGEN, "sign": SIGN, "reshare": RESHARE}


def enter(header: str | None, operation: str, payload: bytes) -> Request:
    encoding = codec.content_type(header)
    return validate.parse_request(Operation(operation), codec.decode(encoding, payload), encoding, RULES, NOW)


def refusal(header: str | None, operation: str, payload: bytes) -> tuple[Code, str | None, str]:
    with pytest.raises(RejectError) as caught:
        enter(header, operation, payload)
    return caught.value.code, caught.value.field, caught.value.reason


def packed(fields: dict[Any, Any]) -> bytes:
    data: bytes = msgpack.packb(fields)
    return data


def text(fields: dict[str, Any]) -> bytes:
    plain = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in fields.items()
    }
    return json.dumps(plain).encode()


def in_both(fields: dict[str, Any]) -> dict[str, bytes]:
    return {MSGPACK: packed(fields), JSON: text(fields)}


# --- the good ones, so that each row below is bad for its own reason alone


@pytest.mark.parametrize("operation", GOOD)
def test_the_requests_that_the_rows_start_from_pass_alike_in_both(operation: str) -> None:
    as_msgpack, as_json = (enter(header, operation, data) for header, data in in_both(GOOD[operation]).items())
    assert as_msgpack == as_json
    assert as_msgpack == enter(None, operation, packed(GOOD[operation]))
    assert as_msgpack.operation is Operation(operation)


# --- bytes that are no request

UNDECODABLE, INVALID = Code.UNDECODABLE, Code.INVALID_FIELD
TRUNCATED = "not application/msgpack: truncated"
PAYLOAD = "payload"
KEYGEN_JSON = b'{"wallet_id":"w1"'

BYTES: dict[str, tuple[str, str, bytes, Code, str, str]] = {
    "empty, as msgpack": (MSGPACK, "keygen", b"", UNDECODABLE, PAYLOAD, TRUNCATED),
    "empty, as JSON": (JSON, "keygen", b"", UNDECODABLE, PAYLOAD,
                       "not application/json: expecting value at character 0"),
    "msgpack cut in a text": (MSGPACK, "keygen", packed(KEYGEN)[:-1], UNDECODABLE, PAYLOAD, TRUNCATED),
    "msgpack cut in the tx": (MSGPACK, "sign", packed(SIGN)[:-24], UNDECODABLE, PAYLOAD, TRUNCATED),
    "msgpack without its last field": (MSGPACK, "keygen", b"\x82" + packed(KEYGEN)[1:], UNDECODABLE, PAYLOAD,
                                       TRUNCATED),
    "msgpack with more behind it": (MSGPACK, "keygen", packed(KEYGEN) * 2, UNDECODABLE, PAYLOAD,
                                    "not application/msgpack: bytes after the end of the map"),
    "JSON cut": (JSON, "keygen", text(KEYGEN)[:-1], UNDECODABLE, PAYLOAD,
                 "not application/json: expecting ',' delimiter at character 18"),
    "JSON with more behind it": (JSON, "keygen", text(KEYGEN) * 2, UNDECODABLE, PAYLOAD,
                                 "not application/json: extra data at character 19"),
    "JSON called msgpack": (MSGPACK, "keygen", text(KEYGEN), UNDECODABLE, PAYLOAD,
                            "not application/msgpack: bytes after the end of the map"
        "; it looks like JSON: the header Content-Type: application/json says so"),
    "msgpack called JSON": (JSON, "keygen", packed(KEYGEN), UNDECODABLE, PAYLOAD,
                            "not application/json: text that is not UTF-8"),
    "a list of requests": (JSON, "keygen", b"[" + text(KEYGEN) + b"]", UNDECODABLE, PAYLOAD,
                           "expected a map at the top, got list"),
    "wallet_id twice in JSON": (JSON, "keygen", KEYGEN_JSON + b',"wallet_id":"w2"}', UNDECODABLE, PAYLOAD,
                                "the key 'wallet_id' stands there twice"),
    "wallet_id twice, once escaped": (JSON, "keygen", KEYGEN_JSON + b',"wallet\\u005fid":"w1"}', UNDECODABLE, PAYLOAD,
                                      "the key 'wallet_id' stands there twice"),
    "wallet_id twice in msgpack": (MSGPACK, "keygen", b"\x82" + packed(KEYGEN)[1:] * 2, UNDECODABLE, PAYLOAD,
                                   "the key 'wallet_id' stands there twice"),
    "a label twice": (JSON, "keygen", KEYGEN_JSON + b',"labels":{"a":"b","a":"b"}}', UNDECODABLE, PAYLOAD,
                      "the key 'a' stands there twice"),
    "a field with a number for a name": (MSGPACK, "keygen", packed({1: "w1"}), UNDECODABLE, PAYLOAD,
                                         "expected string keys, got int"),
    "a field with bytes for a name": (MSGPACK, "keygen", packed({b"wallet_id": "w1"}), UNDECODABLE, PAYLOAD,
                                      "expected string keys, got bytes"),
    "NaN for a threshold, JSON": (JSON, "reshare", text(RESHARE | {"new_threshold": float("nan")}), UNDECODABLE,
                                  PAYLOAD, "NaN is not a JSON number"),
    "NaN for a threshold, msgpack": (MSGPACK, "reshare", packed(RESHARE | {"new_threshold": float("nan")}),
                                     UNDECODABLE, PAYLOAD, "NaN or infinity"),
    "infinity in a path": (JSON, "sign", text(SIGN | {"derivation_path": [float("inf")]}), UNDECODABLE, PAYLOAD,
                           "Infinity is not a JSON number"),
    "a threshold of 65 bits": (JSON, "reshare", text(RESHARE | {"new_threshold": 2**64}), UNDECODABLE, PAYLOAD,
                               "an integer beyond 64 bits"),
    "a level of 5,000 digits": (JSON, "sign", b'{"derivation_path":[' + b"9" * 5000 + b"]}", UNDECODABLE, PAYLOAD,
                                "an integer beyond 64 bits"),
    "deep nesting, msgpack": (MSGPACK, "sign", b"\x81\xafderivation_path" + b"\x91" * 60_000, UNDECODABLE, PAYLOAD,
                              "nested deeper than 8"),
    "deep nesting, JSON": (JSON, "sign", b'{"derivation_path":' + b"[" * 60_000, UNDECODABLE, PAYLOAD,
                           "nested deeper than 8"),
    "labels in labels": (JSON, "keygen", KEYGEN_JSON + b',"labels":' + b'{"a":' * 9 + b"1" + b"}" * 10, UNDECODABLE,
                         PAYLOAD, "nested deeper than 8"),
    "a lone surrogate in an id": (JSON, "keygen", b'{"wallet_id":"w\\ud800"}', UNDECODABLE, PAYLOAD,
                                  "text with a lone surrogate"),
    "a lone surrogate in a label": (JSON, "keygen", KEYGEN_JSON + b',"labels":{"\\udc00":"x"}}', UNDECODABLE, PAYLOAD,
                                    "text with a lone surrogate"),
    "a surrogate in msgpack": (MSGPACK, "keygen", b"\x81\xa9wallet_id\xa3\xed\xa0\x80", UNDECODABLE, PAYLOAD,
                               "not application/msgpack: text that is not UTF-8"),
    "a list that claims 2**32 items": (MSGPACK, "reshare", b"\x81\xa8node_ids\xdd\xff\xff\xff\xff", UNDECODABLE,
                                       PAYLOAD, "not application/msgpack: a length beyond the payload or 1024 entries"),
    "a tx that claims 4 GiB": (MSGPACK, "sign", b"\x81\xa2tx\xc6\xff\xff\xff\xff", UNDECODABLE, PAYLOAD, TRUNCATED),
    "2,000 labels": (JSON, "keygen", text(KEYGEN | {"labels": {str(i): "" for i in range(2000)}}), UNDECODABLE,
                     PAYLOAD, "more than 1024 entries"),
    "a date of msgpack's own": (MSGPACK, "keygen",
                                packed(KEYGEN | {"expires_at": msgpack.Timestamp(1_767_225_700)}), UNDECODABLE,
                                PAYLOAD, "a value of type Timestamp"),
    "an extension for a tx": (MSGPACK, "sign", packed(SIGN | {"tx": msgpack.ExtType(1, HASH)}), UNDECODABLE, PAYLOAD,
                              "the msgpack extension type 1"),
    "a tx as text in msgpack": (MSGPACK, "sign", packed(SIGN | {"tx": "AQ=="}), INVALID, "tx", "expected bin, got str"),
    "a tx as a list in JSON": (JSON, "sign", text(SIGN | {"tx": list(HASH)}), INVALID, "tx",
                               "expected a string, got list"),
    "a tx in hex": (JSON, "sign", text(SIGN | {"tx": HASH.hex()}), INVALID, "tx",
                    "expected a 32-byte hash for secp256k1, got 48 bytes"),
    "a tx in hex with 0x": (JSON, "sign", text(SIGN | {"tx": f"0x{HASH.hex()}"}), INVALID, "tx",
                            "expected padded standard base64"),
    "a tx in base64 for URLs": (JSON, "sign", text(SIGN | {"tx": base64.urlsafe_b64encode(b"\xfb" * 32).decode()}),
                                INVALID, "tx", "expected padded standard base64"),
    "a tx without padding": (JSON, "sign", text(SIGN | {"tx": base64.b64encode(HASH).decode().rstrip("=")}), INVALID,
                             "tx", "expected padded standard base64"),
    "a tx with stray bits": (JSON, "sign", text(SIGN | {"tx": base64.b64encode(HASH).decode()[:-2] + "B="}), INVALID,
                             "tx", "expected canonical base64 (padded, unused bits zero)"),
    "a tx with a line end": (JSON, "sign", text(SIGN | {"tx": base64.encodebytes(HASH).decode()}), INVALID, "tx",
                             "expected padded standard base64"),
    "an id as bytes": (MSGPACK, "keygen", packed({"wallet_id": b"w1"}), INVALID, "wallet_id",
                       "expected a string, got bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_request_are_refused(name: str) -> None:
    header, operation, payload, code, field, reason = BYTES[name]
    assert refusal(header, operation, payload) == (code, field, reason)


# --- requests that are bad in either encoding alike

SAFE = "expected 1 to 64 of A-Z a-z 0-9 _ -, got "
FIELDS: dict[str, tuple[str, dict[str, Any], Code, str, str]] = {
    "a dot": ("keygen", {"wallet_id": "a.b"}, INVALID, "wallet_id", f"{SAFE}the character '.'"),
    "a space": ("sign", SIGN | {"wallet_id": "a b"}, INVALID, "wallet_id", f"{SAFE}the character ' '"),
    "a wildcard": ("sign", SIGN | {"tx_id": "*"}, INVALID, "tx_id", f"{SAFE}the character '*'"),
    "a full wildcard": ("reshare", RESHARE | {"session_id": ">"}, INVALID, "session_id", f"{SAFE}the character '>'"),
    "a node's name with a dot": ("reshare", RESHARE | {"node_ids": ["n0", "n.1"]}, INVALID, "node_ids[1]",
                                 f"{SAFE}the character '.'"),
    "an id that is a message": ("keygen", {"wallet_id": '{"key_type":"ed25519"}'}, INVALID, "wallet_id",
                                f"{SAFE}the character '{{'"),
    "65 characters": ("keygen", {"wallet_id": "x" * 65}, INVALID, "wallet_id", f"{SAFE}65 characters"),
    "a hash of 33 bytes": ("sign", SIGN | {"tx": b"\x00" + HASH}, INVALID, "tx",
                           "expected a 32-byte hash for secp256k1, got 33 bytes"),
    "a hash at the order": ("sign", SIGN | {"tx": SECP256K1_N.to_bytes(32, "big")}, INVALID, "tx",
                            "expected a hash that is not zero and below the order of secp256k1"),
    "a hash above the order": ("sign", SIGN | {"tx": b"\xff" * 32}, INVALID, "tx",
                               "expected a hash that is not zero and below the order of secp256k1"),
    "a tx over the limit": ("sign", SIGN | {"key_type": "ed25519", "tx": b"x" * 1001}, INVALID, "tx",
                            "expected 1 to 1000 bytes, got 1001"),
    "a hardened level": ("sign", SIGN | {"derivation_path": [2**31 + 44]}, INVALID, "derivation_path[0]",
                         "hardened levels (2**31 and above) fail on the nodes"),
    "a level of 2**63": ("sign", SIGN | {"derivation_path": [0, 2**63]}, INVALID, "derivation_path[1]",
                         "hardened levels (2**31 and above) fail on the nodes"),
    "true for a level": ("sign", SIGN | {"derivation_path": [True]}, INVALID, "derivation_path[0]",
                         "expected an integer, got bool"),
    "true for a threshold": ("reshare", RESHARE | {"new_threshold": True}, INVALID, "new_threshold",
                             "expected an integer, got bool"),
    "1.0 for a threshold": ("reshare", RESHARE | {"new_threshold": 1.0}, INVALID, "new_threshold",
                            "expected an integer, got float"),
    "a threshold of 2**63": ("reshare", RESHARE | {"new_threshold": 2**63}, INVALID, "new_threshold",
                             f"expected 1 or more and less than the number of nodes (2), got {2**63}"),
    "a number for an id": ("keygen", {"wallet_id": 7}, INVALID, "wallet_id", "expected a string, got int"),
    "a field of another operation": ("keygen", KEYGEN | {"session_id": "s"}, Code.UNKNOWN_FIELD, "session_id",
                                     "no such field; known are wallet_id, expires_at, labels"),
    "a name misspelled": ("sign", SIGN | {"derivationPath": []}, Code.UNKNOWN_FIELD, "derivationPath",
                          "no such field; did you mean derivation_path?"),
    "nothing in it": ("keygen", {}, Code.MISSING_FIELD, "wallet_id", "this field is required"),
    "a keygen sent as a sign": ("sign", KEYGEN, Code.MISSING_FIELD, "key_type", "this field is required"),
    "a tx is missing": ("sign", {name: value for name, value in SIGN.items() if name != "tx"}, Code.MISSING_FIELD,
                        "tx", "this field is required"),
    "17 labels": ("keygen", KEYGEN | {"labels": {f"l{i}": "" for i in range(17)}}, INVALID, "labels",
                  "expected at most 16 labels, got 17"),
    "17 levels": ("sign", SIGN | {"derivation_path": [0] * 17}, INVALID, "derivation_path",
                  "expected at most 16 levels, got 17"),
    "too late": ("keygen", KEYGEN | {"expires_at": "2025-12-31T23:59:59Z"}, Code.EXPIRED, "expires_at",
                 "expired before it was read"),
    "too far ahead": ("keygen", KEYGEN | {"expires_at": "2026-02-01T00:00:00Z"}, INVALID, "expires_at",
                      "expected at most 86400 s from now"),
}  # fmt: skip


@pytest.mark.parametrize("header", ENCODINGS)
@pytest.mark.parametrize("name", FIELDS)
def test_a_bad_request_is_refused_in_either_encoding_alike(name: str, header: str) -> None:
    operation, fields, code, field, reason = FIELDS[name]
    assert refusal(header, operation, in_both(fields)[header]) == (code, field, reason)


# --- headers

KNOWN = "expected application/msgpack or application/json, got "


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "''"),
        (" ", "' '"),
        ("json", "'json'"),
        ("text/plain", "'text/plain'"),
        ("application/xml", "'application/xml'"),
        ("application/x-msgpack", "'application/x-msgpack'"),
        ("application/vnd.msgpack", "'application/vnd.msgpack'"),
        ("application/json-seq", "'application/json-seq'"),
        ("application/json, application/msgpack", "'application/json, application/msgpack'"),
        ("charset=utf-8; application/json", "'charset=utf-8; application/json'"),
        ("application/json\x00", "'application/json\\x00'"),
        ("\u0430pplication/json", "'\\u0430pplication/json'"),
        ("x\n\x1b" + "y" * 500, "'x\\n\\x1b" + "y" * 61 + "'"),
    ],
)
def test_a_header_that_names_no_encoding_of_ours_is_refused(header: str, said: str) -> None:
    refused = (Code.UNSUPPORTED_CONTENT_TYPE, "Content-Type", KNOWN + said)
    assert refusal(header, "keygen", packed(KEYGEN)) == refused


@pytest.mark.parametrize("header", ["application/json; charset=utf-16", "APPLICATION/JSON", " application/json "])
def test_parameters_and_case_of_a_header_change_nothing(header: str) -> None:
    assert enter(header, "keygen", text(KEYGEN)) == enter(JSON, "keygen", text(KEYGEN))
    assert refusal(header, "keygen", packed(KEYGEN))[0] is UNDECODABLE


# --- both encodings mean the same

ODD = st.sampled_from(
    [None, True, False, 0, 1, -1, 2**31, 2**63, 1.0, "", "w1", "a.b", "secp256k1", "ed25519", [], [1], ["a", "b"],
     ["a", "a"], [True], {}, {"a": "b"}, {"a": 1}, "2026-01-01T00:00:01Z"]
)  # fmt: skip
TXS = st.sampled_from([b"", b"x", b"\x00x", HASH, HASH[1:], bytes(32), b"\xff" * 32, b"x" * 1001])
NAMES = [*SIGN, *RESHARE, "expires_at", "labels", "txid", "derivation_paths", ""]
CHANGES = st.dictionaries(st.sampled_from([name for name in NAMES if name != "tx"]), ODD, max_size=2)


def outcome(header: str, operation: str, payload: bytes) -> Request | tuple[Code, str | None, str]:
    try:
        return enter(header, operation, payload)
    except RejectError as error:
        return error.code, error.field, error.reason


@given(st.sampled_from(list(GOOD)), CHANGES, st.sets(st.sampled_from(NAMES), max_size=1), TXS)
def test_both_encodings_accept_and_refuse_alike(
    operation: str, changes: dict[str, Any], without: set[str], tx: bytes
) -> None:
    fields = GOOD[operation] | ({"tx": tx} if operation == "sign" else {}) | changes
    payloads = in_both({name: value for name, value in fields.items() if name not in without})
    assert outcome(MSGPACK, operation, payloads[MSGPACK]) == outcome(JSON, operation, payloads[JSON])


@given(
    st.sampled_from([(header, operation) for header in ENCODINGS for operation in GOOD]),
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3)), min_size=1, max_size=3),
)
def test_a_changed_payload_is_read_or_refused_and_nothing_else(
    way: tuple[str, str], changes: list[tuple[int, bytes]]
) -> None:
    header, operation = way
    payload = in_both(GOOD[operation])[header]
    for at, more in changes:
        payload = payload[:at] + more + payload[at + 1 :]
    with contextlib.suppress(RejectError):
        request = enter(header, operation, payload)
        assert request.operation is Operation(operation)
        assert not isinstance(request, SignRequest) or int.from_bytes(request.tx, "big") > 0
