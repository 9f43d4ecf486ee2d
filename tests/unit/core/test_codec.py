"""Payloads in: one strict meaning in two encodings, whatever the bytes. Payloads out: what went in."""

from __future__ import annotations

import base64
import contextlib
import json
import tracemalloc
from types import MappingProxyType
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from initiator.core import codec
from initiator.core.model import ContentType
from initiator.errors import Code, RejectError

MSGPACK, JSON = ContentType.MSGPACK, ContentType.JSON

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
SCALARS = st.none() | st.booleans() | INTEGERS | TEXT
LISTS = st.lists(SCALARS, max_size=4)
VALUES = SCALARS | LISTS | st.lists(LISTS, max_size=3) | st.dictionaries(TEXT, SCALARS | LISTS, max_size=4)
BODIES = st.dictionaries(TEXT, VALUES, max_size=6)


def refusal(encoding: ContentType, data: bytes) -> str:
    with pytest.raises(RejectError) as caught:
        codec.decode(encoding, data)
    assert (caught.value.code, caught.value.field) == (Code.UNDECODABLE, "payload")
    return caught.value.reason


# --- content types


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        (None, MSGPACK),
        ("application/msgpack", MSGPACK),
        ("application/json", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/json;charset=UTF-8", JSON),
        ("  Application/JSON  ", JSON),
        ("application/msgpack ;x=y", MSGPACK),
    ],
)
def test_a_header_names_the_encoding(header: str | None, encoding: ContentType) -> None:
    assert codec.content_type(header) is encoding


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        ";",
        "json",
        "text/json",
        "application/x-msgpack",
        "application/jsonx",
        "application/json, text/plain",
        "é",
    ],
)
def test_another_header_is_refused(header: str) -> None:
    with pytest.raises(RejectError) as caught:
        codec.content_type(header)
    assert (caught.value.code, caught.value.field) == (Code.UNSUPPORTED_CONTENT_TYPE, "Content-Type")
    assert caught.value.reason.startswith("expected application/msgpack or application/json, got ")


def test_a_long_strange_header_is_quoted_in_part_and_on_one_line() -> None:
    with pytest.raises(RejectError) as caught:
        codec.content_type("a\n\x1b" + "b" * 10_000)
    assert "\n" not in caught.value.reason
    assert "\x1b" not in caught.value.reason
    assert len(caught.value.reason) < 200


# --- bad input

TOO_MANY = "not application/msgpack: a length beyond the payload or 1024 entries"
NO_NAME = "not application/json: expecting property name enclosed in double quotes at character 1"

HINT = "; it looks like JSON: the header Content-Type: application/json says so"
BAD_MSGPACK: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "not application/msgpack: truncated"),
    ("map without its entry", b"\x81", "not application/msgpack: truncated"),
    ("map without a value", b"\x81\xa1a", "not application/msgpack: truncated"),
    ("cut text", b"\x81\xa1a\xa5abc", "not application/msgpack: truncated"),
    ("a byte that msgpack never uses", b"\xc1", "not application/msgpack: malformed"),
    ("null at the top", b"\xc0", "expected a map at the top, got null"),
    ("list at the top", b"\x90", "expected a map at the top, got list"),
    ("text at the top", b"\xa1a", "expected a map at the top, got str"),
    ("integer at the top", b"\x05", "expected a map at the top, got int"),
    ("bytes after the map", b"\x80\xc0", "not application/msgpack: bytes after the end of the map"),
    ("two maps", b"\x80\x80", "not application/msgpack: bytes after the end of the map"),
    ("a key twice", b"\x82\xa1a\x01\xa1a\x01", "the key 'a' stands there twice"),
    ("a key twice, lengths spelled differently", b"\x82\xa1a\x01\xd9\x01a\x01", "the key 'a' stands there twice"),
    ("a key twice, further in", b"\x81\xa1a\x82\xa1b\x01\xa1b\x02", "the key 'b' stands there twice"),
    ("integer key", b"\x81\x01\x01", "expected string keys, got int"),
    ("bytes as a key", b"\x81\xc4\x01a\x01", "expected string keys, got bytes"),
    ("null as a key", b"\x81\xc0\x01", "expected string keys, got null"),
    ("list as a key", b"\x81\x90\x01", "expected string keys, got list"),
    ("map as a key", b"\x81\x80\x01", "expected string keys, got dict"),
    ("timestamp", b"\x81\xa1a\xd6\xff\x00\x00\x00\x01", "a value of type Timestamp"),
    ("extension", b"\x81\xa1a\xd4\x05x", "the msgpack extension type 5"),
    ("NaN", b"\x81\xa1a\xcb\x7f\xf8" + bytes(6), "NaN or infinity"),
    ("infinity", b"\x81\xa1a\xca\x7f\x80\x00\x00", "NaN or infinity"),
    ("invalid UTF-8", b"\x81\xa1a\xa1\xff", "not application/msgpack: text that is not UTF-8"),
    ("invalid UTF-8 in a key", b"\x81\xa1\xff\x01", "not application/msgpack: text that is not UTF-8"),
    ("a surrogate in UTF-8", b"\x81\xa1a\xa3\xed\xa0\x80", "not application/msgpack: text that is not UTF-8"),
    ("map of 4 billion entries", b"\xdf\xff\xff\xff\xff", TOO_MANY),
    ("list of 4 billion entries", b"\x81\xa1a\xdd\xff\xff\xff\xff", TOO_MANY),
    ("text of 4 GiB", b"\x81\xa1a\xdb\xff\xff\xff\xff", "not application/msgpack: truncated"),
    ("bin of 4 GiB", b"\x81\xa1a\xc6\xff\xff\xff\xff", "not application/msgpack: truncated"),
    ("1,025 entries", b"\x81\xa1a\xdc\x04\x01" + b"\x01" * 1025, TOO_MANY),
    ("nested 9 deep", b"\x81\xa1a" * 9 + b"\x01", "nested deeper than 8"),
    ("nested 9 deep with lists", b"\x81\xa1a" + b"\x91" * 8 + b"\x01", "nested deeper than 8"),
    ("nested 10,000 deep", b"\x81\xa1a" * 10_000 + b"\x01", "nested deeper than 8"),
    ("JSON", b'{"a":1}', f"not application/msgpack: bytes after the end of the map{HINT}"),
]  # fmt: skip

BAD_JSON: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "not application/json: expecting value at character 0"),
    ("an open map", b'{"a":1', "not application/json: expecting ',' delimiter at character 6"),
    ("open text", b'{"a":"b', "not application/json: unterminated string starting at character 5"),
    ("null at the top", b"null", "expected a map at the top, got null"),
    ("list at the top", b"[]", "expected a map at the top, got list"),
    ("text at the top", b'"a"', "expected a map at the top, got str"),
    ("bytes after the map", b"{} {}", "not application/json: extra data at character 3"),
    ("a key twice", b'{"a":1,"a":1}', "the key 'a' stands there twice"),
    ("a key twice, once escaped", b'{"a":1,"\\u0061":2}', "the key 'a' stands there twice"),
    ("a key twice, further in", b'{"a":[{"b":1,"b":2}]}', "the key 'b' stands there twice"),
    ("single quotes", b"{'a':1}", NO_NAME),
    ("NaN", b'{"a":NaN}', "NaN is not a JSON number"),
    ("infinity", b'{"a":-Infinity}', "-Infinity is not a JSON number"),
    ("a float beyond floats", b'{"a":1e999}', "NaN or infinity"),
    ("an integer of 65 bits", b'{"a":18446744073709551616}', "an integer beyond 64 bits"),
    ("a negative one of 65 bits", b'{"a":-18446744073709551616}', "an integer beyond 64 bits"),
    ("an integer of 5,000 digits", b'{"a":' + b"9" * 5000 + b"}", "an integer beyond 64 bits"),
    ("a leading zero", b'{"a":01}', "not application/json: expecting ',' delimiter at character 6"),
    ("a lone high surrogate", b'{"a":"\\ud800"}', "text with a lone surrogate"),
    ("a lone low surrogate in a key", b'{"\\udc00":1}', "text with a lone surrogate"),
    ("a lone surrogate further in", b'{"a":[{"b":"x\\uDBFFy"}]}', "text with a lone surrogate"),
    ("surrogates in the wrong order", b'{"a":"\\udc00\\ud800"}', "text with a lone surrogate"),
    ("a surrogate in UTF-8", b'{"a":"\xed\xa0\x80"}', "not application/json: text that is not UTF-8"),
    ("invalid UTF-8", b'{"a":"\xff"}', "not application/json: text that is not UTF-8"),
    ("UTF-16", '{"a":1}'.encode("utf-16"), "not application/json: text that is not UTF-8"),
    ("a byte order mark", b"\xef\xbb\xbf{}", "not application/json: expecting value at character 0"),
    ("a raw control", b'{"a":"\x01"}', "not application/json: invalid control character at character 6"),
    ("an unknown escape", b'{"a":"\\q"}', "not application/json: invalid \\escape at character 6"),
    ("nested 9 deep", b'{"a":' * 9 + b"1" + b"}" * 9, "nested deeper than 8"),
    ("nested 9 deep with lists", b'{"a":' + b"[" * 8 + b"]" * 8 + b"}", "nested deeper than 8"),
    ("nested 100,000 deep", b'{"a":' * 100_000, "nested deeper than 8"),
    ("1,025 entries", b'{"a":[' + b"1," * 1024 + b"1]}", "more than 1024 entries"),
    ("msgpack", msgpack.packb({"a": b"\xff"}), "not application/json: text that is not UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in BAD_MSGPACK], ids=[row[0] for row in BAD_MSGPACK])
def test_bad_msgpack_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    assert refusal(MSGPACK, data) == reason


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in BAD_JSON], ids=[row[0] for row in BAD_JSON])
def test_bad_json_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    assert refusal(JSON, data) == reason


@pytest.mark.parametrize("encoding", list(ContentType))
@given(data=st.binary(max_size=64))
def test_no_bytes_bring_any_other_error(encoding: ContentType, data: bytes) -> None:
    with contextlib.suppress(RejectError):
        assert all(isinstance(key, str) for key in codec.decode(encoding, data))


@pytest.mark.parametrize("encoding", list(ContentType))
@given(body=BODIES, cut=st.integers(1, 10))
def test_a_truncated_payload_is_refused(encoding: ContentType, body: dict[str, Any], cut: int) -> None:
    data = codec.encode(encoding, body)
    refusal(encoding, data[: max(0, len(data) - cut)])


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (MSGPACK, b"\xdc\x04\x00" * 21_845),
        (MSGPACK, b"\xde\x04\x00\xa1a" * 13_107),
        (MSGPACK, b"\x81\xa1a" * 21_845),
        (JSON, b"[" * 65_536),
        (JSON, b'{"a":' * 13_107),
    ],
    ids=["lists that claim 1,024", "maps that claim 1,024", "maps of one", "JSON lists", "JSON maps"],
)
def test_a_bomb_of_64_kib_costs_less_than_16_mib(encoding: ContentType, data: bytes) -> None:
    tracemalloc.start()
    try:
        refusal(encoding, data)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_a_reason_quotes_no_value_and_only_the_start_of_a_key() -> None:
    key = "k" * 5000 + "\n"
    reason = refusal(JSON, json.dumps({"a": 1})[:-1].encode() + f",{json.dumps(key)}:1,{json.dumps(key)}:2}}".encode())
    assert reason == f"the key '{'k' * 64}' stands there twice"
    assert "secret" not in refusal(JSON, b'{"a":"secret\\q"}')
    assert "secret" not in refusal(MSGPACK, b"\x81\xa1a\xa7secret\xff")


# --- the limits themselves are allowed


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 0, 1.5, True, None, "", "\x00", "\u2028", "😀"])
@pytest.mark.parametrize("encoding", list(ContentType))
def test_edge_values_pass(encoding: ContentType, value: Any) -> None:
    found = codec.decode(encoding, codec.encode(encoding, {"a": value}))["a"]
    assert (found, type(found)) == (value, type(value))


def test_depth_8_and_1024_entries_pass() -> None:
    assert codec.decode(MSGPACK, b"\x81\xa1a" * 8 + b"\x01")
    assert codec.decode(JSON, b'{"a":' * 8 + b"1" + b"}" * 8)
    assert len(codec.decode(MSGPACK, b"\x81\xa1a\xdc\x04\x00" + b"\x01" * 1024)["a"]) == 1024
    assert len(codec.decode(JSON, b'{"a":[' + b"1," * 1023 + b"1]}")["a"]) == 1024


def test_an_escaped_pair_of_surrogates_is_one_character() -> None:
    assert codec.decode(JSON, b'{"a":"\\ud83d\\ude00"}') == {"a": "😀"}


# --- encode


@pytest.mark.parametrize("encoding", list(ContentType))
@settings(max_examples=200)
@given(body=BODIES)
def test_what_is_encoded_reads_back(encoding: ContentType, body: dict[str, Any]) -> None:
    found = codec.decode(encoding, codec.encode(encoding, body))
    assert repr(found) == repr(body)  # True is not 1


@given(data=st.binary(max_size=40))
def test_bytes_are_bin_in_msgpack_and_padded_base64_in_json(data: bytes) -> None:
    body = {"tx": data, "in": {"list": [data]}}
    assert codec.decode(MSGPACK, codec.encode(MSGPACK, body)) == body
    text = base64.b64encode(data).decode()
    assert json.loads(codec.encode(JSON, body)) == {"tx": text, "in": {"list": [text]}}


@pytest.mark.parametrize("encoding", list(ContentType))
def test_maps_of_any_kind_and_tuples_are_encoded(encoding: ContentType) -> None:
    body = MappingProxyType({"labels": MappingProxyType({"a": "b"}), "path": (1, 2)})
    assert codec.decode(encoding, codec.encode(encoding, body)) == {"labels": {"a": "b"}, "path": [1, 2]}


def test_json_is_compact_and_raw_utf8() -> None:
    assert codec.encode(JSON, {"a": "é", "b": [1, 2]}) == '{"a":"é","b":[1,2]}'.encode()


@pytest.mark.parametrize("value", [object(), {1, 2}, "\ud800"], ids=["object", "set", "surrogate"])
@pytest.mark.parametrize("encoding", list(ContentType))
def test_what_no_reader_could_take_is_not_encoded(encoding: ContentType, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        codec.encode(encoding, {"a": value})


def test_json_never_holds_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.encode(JSON, {"a": float("nan")})
