"""mpcium's bytes, byte for byte: against bytes of its own Go types, and against a reading of Go's rules of our own."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import message
from initiator.core.message import AuthorizerSignature
from initiator.core.model import KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.errors import Code, RejectError

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "vectors" / "mpcium.json").read_text("utf-8"))[
    "vectors"
]

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from('<>&"\\\n\x00\x7f\u2028漢😀{}:,'))
BYTES = st.binary(max_size=80)
KEY_TYPES = st.sampled_from(KeyType)
PATHS = st.none() | st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple)
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    st.builds(KeygenRequest, wallet_id=TEXT),
    st.builds(SignRequest, key_type=KEY_TYPES, wallet_id=TEXT, network_internal_code=TEXT, tx_id=TEXT, tx=BYTES,
              derivation_path=PATHS),
    st.builds(ReshareRequest, session_id=TEXT, node_ids=st.lists(TEXT, max_size=4).map(tuple),
              new_threshold=st.integers(-(2**63), 2**63 - 1), key_type=KEY_TYPES, wallet_id=TEXT),
)  # fmt: skip
AUTHORIZERS = st.lists(st.builds(AuthorizerSignature, authorizer_id=TEXT, signature=BYTES), max_size=3)


# --- bytes of mpcium's own types


def request_of(vector: dict[str, Any]) -> Request:
    fields = dict(vector["input"])
    fields.pop("authorizer_signatures", None)
    match vector["kind"]:
        case "keygen":
            return KeygenRequest(**fields)
        case "sign":
            fields["tx"] = bytes.fromhex(fields.pop("tx_hex"))
            path = fields.pop("derivation_path")
            fields["derivation_path"] = None if path is None else tuple(path)
            return SignRequest(**fields | {"key_type": KeyType(fields["key_type"])})
        case _:
            nodes = fields.pop("node_ids")
            fields["node_ids"] = None if nodes is None else tuple(nodes)
            return ReshareRequest(**fields | {"key_type": KeyType(fields["key_type"])})


def authorizers_of(vector: dict[str, Any]) -> list[AuthorizerSignature]:
    return [
        AuthorizerSignature(authorizer_id=item["authorizer_id"], signature=base64.b64decode(item["signature"]))
        for item in vector["input"].get("authorizer_signatures") or ()
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_vector_is_reproduced_byte_for_byte(vector: dict[str, Any]) -> None:
    request, signature = request_of(vector), bytes.fromhex(vector["signature_hex"])
    assert message.signed_bytes(request) == bytes.fromhex(vector["raw_hex"])
    assert message.event_bytes(request, signature, authorizers_of(vector)) == bytes.fromhex(vector["event_hex"])
    assert message.authorizer_bytes(request, signature) == bytes.fromhex(vector["authorizer_raw_hex"])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_vector_reads_back(vector: dict[str, Any]) -> None:
    event = message.parse_event(Operation(vector["kind"]), bytes.fromhex(vector["event_hex"]))
    assert event.request == request_of(vector)
    assert event.signed == bytes.fromhex(vector["raw_hex"])
    assert event.signature == bytes.fromhex(vector["signature_hex"])
    assert list(event.authorizer_signatures) == authorizers_of(vector)


def test_there_are_46_vectors_of_all_kinds() -> None:
    kinds = [vector["kind"] for vector in VECTORS]
    assert (kinds.count("keygen"), kinds.count("sign"), kinds.count("reshare")) == (14, 24, 8)


# --- an independent reading of the rules


def go_json(value: Any) -> str:
    """Any value as Go's json.Marshal writes it; maps in the order given."""
    match value:
        case None:
            return "null"
        case bytes():
            return f'"{base64.b64encode(value).decode("ascii")}"'
        case str():
            return '"' + "".join(map(go_character, value)) + '"'
        case int():
            return str(value)
        case dict():
            return "{" + ",".join(f"{go_json(key)}:{go_json(item)}" for key, item in value.items()) + "}"
        case _:
            return "[" + ",".join(map(go_json, value)) + "]"


def go_character(character: str) -> str:
    short = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    if character in short:
        return short[character]
    return f"\\u{ord(character):04x}" if character < " " or character in "<>&\u2028\u2029" else character


def signed_fields(request: SignRequest | ReshareRequest) -> dict[str, Any]:
    names = (
        ["key_type", "wallet_id", "network_internal_code", "tx_id", "tx"]
        if isinstance(request, SignRequest)
        else ["session_id", "node_ids", "new_threshold", "key_type", "wallet_id"]
    )
    return {name: getattr(request, name) for name in names}


def signed_form(request: Request) -> bytes:
    if isinstance(request, KeygenRequest):
        return request.wallet_id.encode()
    return go_json(signed_fields(request)).encode()


def event_form(request: Request, signature: bytes, authorizers: list[AuthorizerSignature]) -> bytes:
    fields: dict[str, Any]
    if isinstance(request, KeygenRequest):
        fields = {"wallet_id": request.wallet_id, "signature": signature}
    elif isinstance(request, SignRequest):
        fields = signed_fields(request) | {"signature": signature, "derivation_path": request.derivation_path}
    else:
        fields = signed_fields(request) | ({"signature": signature} if signature else {})
    if authorizers:
        fields["authorizer_signatures"] = [dataclasses.asdict(item) for item in authorizers]
    return go_json(fields).encode()


@given(REQUESTS)
def test_signed_bytes_follow_gos_rules(request: Request) -> None:
    assert message.signed_bytes(request) == signed_form(request)


@given(REQUESTS, BYTES, AUTHORIZERS)
def test_events_follow_gos_rules(request: Request, signature: bytes, authorizers: list[AuthorizerSignature]) -> None:
    assert message.event_bytes(request, signature, authorizers) == event_form(request, signature, authorizers)


@given(REQUESTS, BYTES)
def test_what_authorizers_sign_follows_gos_rules(request: Request, signature: bytes) -> None:
    name = request.tx_id if isinstance(request, SignRequest) else request.wallet_id
    fields = {"initiator_id": name, "initiator_raw": signed_form(request), "initiator_sig": signature}
    assert message.authorizer_bytes(request, signature) == go_json(fields).encode()


@given(REQUESTS, BYTES, AUTHORIZERS)
def test_an_event_reads_back_as_what_it_was(
    request: Request, signature: bytes, authorizers: list[AuthorizerSignature]
) -> None:
    event = message.parse_event(request.operation, message.event_bytes(request, signature, authorizers))
    assert event == message.ParsedEvent(
        operation=request.operation,
        request=request,
        signed=message.signed_bytes(request),
        signature=signature,
        authorizer_signatures=tuple(authorizers),
    )


@given(REQUESTS, BYTES, st.randoms(use_true_random=False))
def test_the_order_of_keys_and_white_space_do_not_matter(request: Request, signature: bytes, random: Any) -> None:
    items = list(json.loads(message.event_bytes(request, signature)).items())
    random.shuffle(items)
    event = message.parse_event(request.operation, json.dumps(dict(items), indent=1).encode())
    assert event.signed == message.signed_bytes(request)


LONE = "\ud800"


@pytest.mark.parametrize("build", [message.signed_bytes, lambda request: message.event_bytes(request, b"s")])
@pytest.mark.parametrize(
    "request_",
    [
        KeygenRequest(wallet_id=LONE),
        SignRequest(key_type=KeyType.ED25519, wallet_id="w", network_internal_code=LONE, tx_id="t", tx=b"x"),
        ReshareRequest(session_id="s", node_ids=("a", LONE), new_threshold=1, key_type=KeyType.ED25519, wallet_id="w"),
    ],
    ids=["keygen", "sign", "reshare"],
)
def test_what_go_cannot_carry_is_not_built(build: Any, request_: Request) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        build(request_)


# --- no keygen is another message


def refused_as_ambiguous(wallet_id: str) -> bool:
    try:
        message.check_unambiguous(KeygenRequest(wallet_id=wallet_id))
    except RejectError as error:
        return (error.code, error.field) == (Code.AMBIGUOUS_MESSAGE, "wallet_id")
    return False


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] != "keygen"], ids=lambda vector: vector["name"])
@pytest.mark.parametrize("part", ["raw_hex", "event_hex", "authorizer_raw_hex"])
def test_a_wallet_id_that_is_another_message_is_refused(vector: dict[str, Any], part: str) -> None:
    assert refused_as_ambiguous(bytes.fromhex(vector[part]).decode())


@given(REQUESTS.filter(lambda request: not isinstance(request, KeygenRequest)))
def test_no_message_of_ours_passes_as_a_wallet_id(request: Request) -> None:
    assert refused_as_ambiguous(message.signed_bytes(request).decode())


@given(TEXT | st.sampled_from(["{}", ' {"a":1}', "\t{}\n", "\ufeff{}", "[{}]"]))
def test_what_reads_as_a_json_object_is_refused(wallet_id: str) -> None:
    try:
        is_object = isinstance(json.loads(wallet_id.lstrip("\ufeff")), dict)
    except ValueError:
        is_object = False
    assert refused_as_ambiguous(wallet_id) or not is_object


@pytest.mark.parametrize("wallet_id", ["w1", "ad24f678-b04b-4149-bcf6-bf9c90df8e63", "a" * 64, "_", "-"])
def test_ordinary_ids_are_unambiguous(wallet_id: str) -> None:
    message.check_unambiguous(KeygenRequest(wallet_id=wallet_id))


def test_sign_and_reshare_are_unambiguous_by_their_first_key() -> None:
    sign = SignRequest(key_type=KeyType.ED25519, wallet_id="{", network_internal_code="", tx_id="{", tx=b"{")
    reshare = ReshareRequest(session_id="{", node_ids=(), new_threshold=1, key_type=KeyType.ED25519, wallet_id="{")
    message.check_unambiguous(sign)
    message.check_unambiguous(reshare)
    assert message.signed_bytes(sign).startswith(b'{"key_type":')
    assert message.signed_bytes(reshare).startswith(b'{"session_id":')


# --- bad events

AUTHORIZED = "authorizer_signatures"
FIRST = "authorizer_signatures[0]"
NO_STRING = "expected a string, got int"
NO_BASE64 = "expected canonical standard base64 or null"
NO_AUTHORIZER = "expected authorizer_id and signature"
KEYGEN: dict[str, Any] = {"wallet_id": "w", "signature": "AQ=="}
SIGN = KEYGEN | {
    "key_type": "ed25519",
    "network_internal_code": "n",
    "tx_id": "t",
    "tx": "AQ==",
    "derivation_path": None,
}
RESHARE = KEYGEN | {"key_type": "ed25519", "session_id": "s", "node_ids": ["a", "b"], "new_threshold": 1}
EVENTS: dict[str, dict[str, Any]] = {"keygen": KEYGEN, "sign": SIGN, "reshare": RESHARE}
BAD_FIELDS: list[tuple[str, str, Any, str, str]] = [
    ("keygen", "wallet_id", 1, "wallet_id", "expected a string, got int"),
    ("keygen", "wallet_id", None, "wallet_id", "expected a string, got null"),
    ("keygen", "signature", "?", "signature", NO_BASE64),
    ("keygen", "signature", "AQ", "signature", NO_BASE64),
    ("keygen", "signature", "AR==", "signature", NO_BASE64),
    ("keygen", "signature", "AQ==\n", "signature", NO_BASE64),
    ("keygen", "signature", "-_==", "signature", NO_BASE64),
    ("keygen", "signature", "é===", "signature", NO_BASE64),
    ("keygen", "signature", [1], "signature", NO_BASE64),
    ("keygen", "Wallet_ID", "x", "Wallet_ID", "not a field of a keygen event"),
    ("keygen", "tx_id", "x", "tx_id", "not a field of a keygen event"),
    ("keygen", "new\nline\x1b", "x", "new\\nline\\x1b", "not a field of a keygen event"),
    ("keygen", AUTHORIZED, 5, AUTHORIZED, "expected a list or null, got int"),
    ("keygen", AUTHORIZED, False, AUTHORIZED, "expected a list or null, got bool"),
    ("keygen", AUTHORIZED, {}, AUTHORIZED, "expected a list or null, got dict"),
    ("keygen", AUTHORIZED, ["a"], FIRST, NO_AUTHORIZER),
    ("keygen", AUTHORIZED, [{"authorizer_id": "a"}], FIRST, NO_AUTHORIZER),
    ("keygen", AUTHORIZED, [{"authorizer_id": 1, "signature": ""}], FIRST + ".authorizer_id", NO_STRING),
    ("keygen", AUTHORIZED, [{"authorizer_id": "a", "signature": 1}], FIRST + ".signature", NO_BASE64),
    ("sign", "key_type", "p256", "key_type", "expected secp256k1 or ed25519, got 'p256'"),
    ("sign", "key_type", 1, "key_type", "expected a string, got int"),
    ("sign", "tx", [1], "tx", NO_BASE64),
    ("sign", "tx_id", True, "tx_id", "expected a string, got bool"),
    ("sign", "network_internal_code", 1, "network_internal_code", "expected a string, got int"),
    ("sign", "derivation_path", "m/0", "derivation_path", "expected a list of uint32 or null, got str"),
    ("sign", "derivation_path", [0, True], "derivation_path[1]", "expected an integer, got bool"),
    ("sign", "derivation_path", [1.0], "derivation_path[0]", "expected an integer, got float"),
    ("sign", "derivation_path", [-1], "derivation_path[0]", "expected at least 0 and less than 4294967296"),
    ("sign", "derivation_path", [2**32], "derivation_path[0]", "expected at least 0 and less than 4294967296"),
    ("reshare", "node_ids", "a", "node_ids", "expected a list of strings or null"),
    ("reshare", "node_ids", ["a", 1], "node_ids", "expected a list of strings or null"),
    ("reshare", "new_threshold", True, "new_threshold", "expected an integer, got bool"),
    ("reshare", "new_threshold", "1", "new_threshold", "expected an integer, got str"),
    ("reshare", "new_threshold", 1.0, "new_threshold", "expected an integer, got float"),
    ("reshare", "new_threshold", 2**63, "new_threshold", f"expected at least {-(2**63)} and less than {2**63}"),
    ("reshare", "session_id", None, "session_id", "expected a string, got null"),
]  # fmt: skip


def refusal(operation: str, data: bytes) -> tuple[str | None, str]:
    with pytest.raises(RejectError) as caught:
        message.parse_event(Operation(operation), data)
    assert caught.value.code is Code.UNDECODABLE
    return caught.value.field, caught.value.reason


@pytest.mark.parametrize(("operation", "name", "value", "field", "reason"), BAD_FIELDS)
def test_an_event_with_a_bad_field_is_refused(operation: str, name: str, value: Any, field: str, reason: str) -> None:
    assert refusal(operation, json.dumps(EVENTS[operation] | {name: value}).encode()) == (field, reason)


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        *(("keygen", name) for name in KEYGEN),
        *(("sign", name) for name in SIGN if name != "derivation_path"),
        *(("reshare", name) for name in RESHARE if name != "signature"),
    ],
)
def test_an_event_without_a_field_is_refused(operation: str, name: str) -> None:
    fields = {key: value for key, value in EVENTS[operation].items() if key != name}
    assert refusal(operation, json.dumps(fields).encode()) == (name, f"missing in a {operation} event")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"wallet_id":"a","wallet_id":"b","signature":""}',
        b'{"wallet_id":"\\ud800","signature":""}',
        b'{"wallet_id":"\xff","signature":""}',
        b'{"wallet_id":NaN,"signature":""}',
        b"[" * 100_000,
    ],
    ids=["empty", "list", "null", "cut", "key twice", "surrogate", "not UTF-8", "NaN", "deep"],
)
def test_bytes_that_are_no_event_are_refused(data: bytes) -> None:
    assert refusal("keygen", data)[0] == "payload"


def test_what_other_clients_leave_out_may_be_missing() -> None:
    sign = {key: value for key, value in SIGN.items() if key != "derivation_path"}
    request = message.parse_event(Operation.SIGN, json.dumps(sign).encode()).request
    assert isinstance(request, SignRequest)
    assert request.derivation_path is None
    reshare = {key: value for key, value in RESHARE.items() if key != "signature"} | {"authorizer_signatures": None}
    assert message.parse_event(Operation.RESHARE, json.dumps(reshare).encode()).signature == b""
