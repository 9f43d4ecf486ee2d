"""Identity: two requests are one operation exactly where the nodes would do one thing for one client."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from initiator.core import codec, validate
from initiator.core.identity import request_digest
from initiator.core.message import signed_bytes
from initiator.core.model import ContentType, KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.core.validate import Rules

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
RULES = Rules(max_tx_bytes=200, tx_id_form="no_hyphen", max_expiry_s=86_400.0, max_labels=8)

IDS = st.text("abcXYZ019_-", min_size=1, max_size=12)
TX_IDS = st.text("abcXYZ019_", min_size=1, max_size=12)
CODES = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=12)
HASHES = st.integers(1, 2**255).map(lambda value: value.to_bytes(32, "big"))
PATHS = st.none() | st.lists(st.integers(0, 2**31 - 1), max_size=4)
KEY_TYPES = st.sampled_from([key_type.value for key_type in KeyType])

# fields as a client sends them, `tx` as bytes
FIELDS: dict[Operation, st.SearchStrategy[dict[str, Any]]] = {
    Operation.KEYGEN: st.fixed_dictionaries({"wallet_id": IDS}),
    Operation.SIGN: st.fixed_dictionaries(
        {"key_type": st.just("secp256k1"), "wallet_id": IDS, "network_internal_code": CODES, "tx_id": TX_IDS,
         "tx": HASHES, "derivation_path": PATHS}
    ) | st.fixed_dictionaries(
        {"key_type": st.just("ed25519"), "wallet_id": IDS, "network_internal_code": CODES, "tx_id": TX_IDS,
         "tx": st.binary(min_size=1, max_size=80).filter(lambda tx: tx[0] != 0), "derivation_path": PATHS}
    ),
    Operation.RESHARE: st.fixed_dictionaries(
        {"session_id": IDS, "node_ids": st.lists(IDS, min_size=2, max_size=5, unique=True),
         "new_threshold": st.just(1), "key_type": KEY_TYPES, "wallet_id": IDS}
    ),
}  # fmt: skip
SENT = st.sampled_from(Operation).flatmap(lambda operation: st.tuples(st.just(operation), FIELDS[operation]))
OURS = st.fixed_dictionaries(
    {},
    optional={
        "expires_at": st.none() | st.sampled_from(["2026-01-01T00:00:09Z", "2026-01-01T10:00:00+02:00"]),
        "labels": st.none() | st.dictionaries(IDS, IDS, max_size=3),
    },
)


def as_sent(encoding: ContentType, fields: dict[str, Any], random: Any) -> bytes:
    """One client's spelling of these fields: its own order of keys, its own white space."""
    items = list(fields.items())
    random.shuffle(items)
    if encoding is ContentType.MSGPACK:
        packed: bytes = msgpack.packb(dict(items))
        return packed
    plain = {name: base64.b64encode(value).decode() if name == "tx" else value for name, value in items}
    return json.dumps(plain, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1])).encode()


def received(encoding: ContentType, operation: Operation, data: bytes) -> Request:
    return validate.parse_request(operation, codec.decode(encoding, data), encoding, RULES, NOW)


# --- what does not count


@given(SENT, st.tuples(OURS, OURS), st.randoms(use_true_random=False))
def test_encoding_order_of_keys_expiry_and_labels_do_not_count(
    sent: tuple[Operation, dict[str, Any]], ours: tuple[dict[str, Any], dict[str, Any]], random: Any
) -> None:
    operation, fields = sent
    digests = {
        request_digest("alice", received(encoding, operation, as_sent(encoding, fields | more, random)))
        for encoding in ContentType
        for more in ours
    }
    assert len(digests) == 1


@given(FIELDS[Operation.SIGN])
def test_an_absent_a_null_and_an_empty_path_are_one(fields: dict[str, Any]) -> None:
    absent = {name: value for name, value in fields.items() if name != "derivation_path"}
    spellings = [absent, absent | {"derivation_path": None}, absent | {"derivation_path": []}]
    requests = [validate.parse_request(Operation.SIGN, sent, ContentType.MSGPACK, RULES, NOW) for sent in spellings]
    assert len({request_digest("alice", request) for request in requests}) == 1


# --- what does

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MODEL: dict[str, st.SearchStrategy[Any]] = {
    "wallet_id": TEXT,
    "network_internal_code": TEXT,
    "tx_id": TEXT,
    "session_id": TEXT,
    "tx": st.binary(max_size=40),
    "key_type": st.sampled_from(KeyType),
    "derivation_path": st.none() | st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
    "node_ids": st.lists(TEXT, max_size=4).map(tuple),
    "new_threshold": st.integers(0, 99),
}
NOT_OURS: dict[type[Any], list[str]] = {
    kind: [item.name for item in dataclasses.fields(kind) if item.name not in ("expires_at", "labels")]
    for kind in (KeygenRequest, SignRequest, ReshareRequest)
}
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    *(st.builds(kind, **{name: MODEL[name] for name in names}) for kind, names in NOT_OURS.items())
)


def test_every_field_of_mpciums_is_tried() -> None:
    assert {kind.__name__: names for kind, names in NOT_OURS.items()} == {
        "KeygenRequest": ["wallet_id"],
        "SignRequest": ["key_type", "wallet_id", "network_internal_code", "tx_id", "tx", "derivation_path"],
        "ReshareRequest": ["session_id", "node_ids", "new_threshold", "key_type", "wallet_id"],
    }


@pytest.mark.parametrize("kind", NOT_OURS)
@given(data=st.data())
def test_any_other_value_of_any_field_is_another_operation(kind: type[Any], data: st.DataObject) -> None:
    fields = {name: data.draw(MODEL[name], label=name) for name in NOT_OURS[kind]}
    request: Request = kind(**fields)
    for name in NOT_OURS[kind]:
        changed = dataclasses.replace(request, **{name: data.draw(MODEL[name], label=name)})
        assert same_digest(changed, request) == (normal(changed) == normal(request))


def same_digest(first: Request, second: Request) -> bool:
    return request_digest("alice", first) == request_digest("alice", second)


def normal(request: Request) -> Request:
    if isinstance(request, SignRequest) and not request.derivation_path:
        return dataclasses.replace(request, derivation_path=None)
    return request


@given(REQUESTS, TEXT, TEXT)
def test_another_clients_request_is_another_operation(request: Request, client: str, other: str) -> None:
    assume(client != other)
    assert request_digest(client, request) != request_digest(other, request)


SIGN = SignRequest(
    key_type=KeyType.ED25519, wallet_id="w1", network_internal_code="n", tx_id="t1", tx=b"hello", derivation_path=(1, 2)
)
RESHARE = ReshareRequest(
    session_id="s1", node_ids=("a", "b"), new_threshold=1, key_type=KeyType.ED25519, wallet_id="w1"
)
CLOSE: dict[str, tuple[tuple[str, Request], tuple[str, Request]]] = {
    "a letter that moves from client to wallet": (
        ("ab", KeygenRequest(wallet_id="c")), ("a", KeygenRequest(wallet_id="bc"))),
    "a keygen that is named like a sign's bytes": (
        ("a", dataclasses.replace(SIGN, derivation_path=None)),
        ("a", KeygenRequest(wallet_id=signed_bytes(SIGN).decode()))),
    "a keygen that is named like a reshare's bytes": (
        ("a", RESHARE), ("a", KeygenRequest(wallet_id=signed_bytes(RESHARE).decode()))),
    "levels that run together": (
        ("a", SIGN), ("a", dataclasses.replace(SIGN, derivation_path=(12,)))),
    "levels in another order": (("a", SIGN), ("a", dataclasses.replace(SIGN, derivation_path=(2, 1)))),
    "a level of zero and no level": (
        ("a", dataclasses.replace(SIGN, derivation_path=(0,))), ("a", dataclasses.replace(SIGN, derivation_path=None))),
    "a level of zero more": (("a", SIGN), ("a", dataclasses.replace(SIGN, derivation_path=(1, 2, 0)))),
    "nodes that run together": (("a", RESHARE), ("a", dataclasses.replace(RESHARE, node_ids=('a","b',)))),
    "nodes in another order": (("a", RESHARE), ("a", dataclasses.replace(RESHARE, node_ids=("b", "a")))),
    "one wallet in another case": (("a", KeygenRequest(wallet_id="w")), ("a", KeygenRequest(wallet_id="W"))),
    "one client in another case": (("a", KeygenRequest(wallet_id="w")), ("A", KeygenRequest(wallet_id="w"))),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOSE)
def test_what_is_close_is_not_the_same(name: str) -> None:
    first, second = CLOSE[name]
    assert request_digest(*first) != request_digest(*second)


# --- the form lives on in the record


@pytest.mark.parametrize(
    ("request_", "parts"),
    [
        (KeygenRequest(wallet_id="w1"), [b"keygen", b"w1", b""]),
        (SIGN, [b"sign", signed_bytes(SIGN), b"1,2;"]),
        (dataclasses.replace(SIGN, derivation_path=None), [b"sign", signed_bytes(SIGN), b""]),
        (RESHARE, [b"reshare", signed_bytes(RESHARE), b""]),
    ],
    ids=["keygen", "sign", "sign without a path", "reshare"],
)
def test_a_digest_is_sha_256_over_parts_with_their_lengths(request_: Request, parts: list[bytes]) -> None:
    framed = b"".join(struct.pack(">Q", len(part)) + part for part in [b"initiator-request-v1", b"alice", *parts])
    assert request_digest("alice", request_) == hashlib.sha256(framed).hexdigest()


def test_a_digest_that_is_in_a_record_already_stays_what_it_is() -> None:
    """A change here makes every repeated request of today a conflict after the upgrade: give the form a new name."""
    assert [request_digest("alice", request) for request in (KeygenRequest(wallet_id="w1"), SIGN, RESHARE)] == [
        "b99f875fcfe01a768ab549c87aaa839daf866e7cc8e6b1b772af1873ce28ea71",
        "47a71b17bb8293f4ba119b2505e12134f9fc3736e00118d6e52ba74da8bd21f2",
        "b45a090b87e5ee63e92f94f48f81a53c2847e3eace5155ca96d8b3f767c695f0",
    ]


def test_text_that_no_decoder_lets_in_has_no_digest() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        request_digest("alice", KeygenRequest(wallet_id="\ud800"))
