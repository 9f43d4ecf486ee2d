"""The simulated nodes' own reading of mpcium's messages, held against bytes that mpcium's Go types made."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from initiator.dev.nodes import wire
from initiator.dev.nodes.config import NodesConfig
from initiator.dev.nodes.trust import Trust
from initiator.dev.nodes.wire import Message, UnmarshalError

DOCUMENT = json.loads((Path(__file__).parents[2] / "vectors" / "mpcium.json").read_text("utf-8"))
READ: dict[str, Callable[[bytes], Message]] = {
    "keygen": wire.read_keygen,
    "sign": wire.read_sign,
    "reshare": wire.read_reshare,
}


@pytest.mark.parametrize("vector", DOCUMENT["vectors"], ids=lambda vector: vector["name"])
def test_what_a_node_verifies_is_what_mpciums_own_types_sign(vector: dict[str, Any]) -> None:
    message = READ[vector["kind"]](bytes.fromhex(vector["event_hex"]))
    assert message.raw().hex() == vector["raw_hex"]
    assert message.initiator_id == vector["initiator_id"]
    assert wire.authorizer_raw(message).hex() == vector["authorizer_raw_hex"]
    Trust.load(NodesConfig(pubkey=DOCUMENT["public_key_hex"])).check(message)


def test_names_come_in_any_case_and_the_last_one_counts() -> None:
    assert wire.read_keygen(b'{"Wallet_ID":"a","wallet_id":"b","SIGNATURE":"AQ=="}').wallet_id == "b"


def test_null_is_nothing_everywhere() -> None:
    message = wire.read_sign(b'{"key_type":null,"tx":null,"derivation_path":null,"signature":null}')
    assert (message.key_type, message.tx, message.derivation_path, message.signature) == ("", None, (), b"")
    assert wire.read_keygen(b"null").wallet_id == ""


def test_a_null_tx_and_an_empty_one_are_signed_differently() -> None:
    assert wire.read_sign(b'{"tx":null}').raw().endswith(b'"tx":null}')
    assert wire.read_sign(b'{"tx":""}').raw().endswith(b'"tx":""}')


def test_null_node_ids_and_an_empty_list_are_signed_differently() -> None:
    assert b'"node_ids":null' in wire.read_reshare(b"{}").raw()
    assert b'"node_ids":[]' in wire.read_reshare(b'{"node_ids":[]}').raw()


def test_lone_surrogates_become_replacement_characters() -> None:
    assert wire.read_keygen(b'{"wallet_id":"a\\ud800b"}').raw() == "a\ufffdb".encode()


def test_go_escapes_what_html_fears_and_leaves_delete_alone() -> None:
    told = wire.dumps([("a", '<>&\u2028\u2029\b\f\n\r\t\x01\x7f"\\é')])
    expected = r'{"a":"\u003c\u003e\u0026\u2028\u2029\b\f\n\r\t\u0001' + "\x7f" + r"\"\\é" + '"}'
    assert told == expected.encode()


def test_values_take_gos_forms() -> None:
    told = wire.dumps([("n", None), ("t", True), ("i", -3), ("b", b"\xff"), ("e", b""), ("l", ("x", 1))])
    assert told == b'{"n":null,"t":true,"i":-3,"b":"/w==","e":"","l":["x",1]}'
    with pytest.raises(TypeError):
        wire.dumps([("f", 1.5)])


@pytest.mark.parametrize("read", READ.values())
@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"1", b'{"wallet_id":1}', b'{"signature":"*"}', b'{"signature":7}', b"[" * 100_000]
)
def test_what_go_cannot_unmarshal_is_refused(read: Callable[[bytes], Message], data: bytes) -> None:
    with pytest.raises(UnmarshalError):
        read(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"derivation_path": [-1]},
        {"derivation_path": [2**32]},
        {"derivation_path": [1.5]},
        {"derivation_path": ["1"]},
        {"derivation_path": 1},
        {"tx": [1]},
        {"authorizer_signatures": ["x"]},
        {"authorizer_signatures": {}},
    ],
)
def test_a_sign_event_with_a_field_of_another_type_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UnmarshalError):
        wire.read_sign(json.dumps(fields).encode())


@pytest.mark.parametrize("fields", [{"new_threshold": True}, {"new_threshold": 2**63}, {"node_ids": [1]}])
def test_a_reshare_event_with_a_field_of_another_type_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UnmarshalError):
        wire.read_reshare(json.dumps(fields).encode())


def test_the_ids_of_an_unreadable_message_are_still_found() -> None:
    data = b'{"wallet_id":"w","tx_id":"t","derivation_path":["x"],"network_internal_code":5}'
    assert wire.read_ids(data) == {"network_internal_code": "", "wallet_id": "w", "tx_id": "t"}
    assert wire.read_ids(b"{")["wallet_id"] == ""


def test_line_breaks_in_base64_are_passed_over_as_go_does() -> None:
    broken = base64.encodebytes(b"x" * 100).decode()
    assert wire.read_keygen(json.dumps({"signature": broken}).encode()).signature == b"x" * 100
