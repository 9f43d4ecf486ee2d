# ruff: noqa: E501 - one row of a table, one line
"""Every decoder, with valid inputs to begin with, the errors that it may raise, and what must be true of a value."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from initiator import keyfile
from initiator.bus.jetstream import parse_headers
from initiator.bus.pull import parse_delivery
from initiator.config.load import load_settings
from initiator.config.signers import LocalKeySettings
from initiator.config.wallets import load_wallets
from initiator.core import codec, deadletter, events, message, spki, subjects, validate
from initiator.core.events import State
from initiator.core.model import ContentType, Operation
from initiator.core.result import parse_result
from initiator.core.signature import Verifier
from initiator.errors import HaltError, RejectError, RetryError
from initiator.kms.region import Region, public_key_of
from initiator.quota import read_until
from initiator.verify import verify_event
from tests.fuzz.mutate import as_json, as_msgpack, change_bytes, change_value
from tests.support.events import event_of

KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = spki.p256_public_key(KEY.public_key())
RULES = validate.Rules(max_tx_bytes=32_768, tx_id_form="uuid_or_no_hyphen", max_expiry_s=86_400, max_labels=16)
ENCODERS = {ContentType.JSON: as_json, ContentType.MSGPACK: as_msgpack}
Errors = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Target:
    """One decoder.

    Attributes:
        decode: calls it, and raises AssertionError where its value cannot be right.
        errors: what it documents to raise.
        seeds: valid inputs.
        structures: valid inputs before their encoding, and the encoding.
        share: how often it comes, against the others.
    """

    name: str
    decode: Callable[[bytes], Any]
    errors: Errors
    seeds: tuple[bytes, ...] = ()
    structures: tuple[Any, ...] = ()
    encode: Callable[[Any], bytes] = as_json
    share: int = 10

    @property
    def holds_payload(self) -> bool:
        """Whether its inputs must not be repeated in an error."""
        return self.name.startswith(("request.", "result.", "event.", "key.", "kms."))

    def draw(self, draw: random.Random) -> bytes:
        """One input."""
        if self.structures and draw.random() < 0.6:
            value = draw.choice(self.structures)
            for _ in range(draw.choice((1, 1, 2, 3))):
                value = change_value(draw, value)
            with contextlib.suppress(ValueError, TypeError, OverflowError):  # no encoder has a form for it
                data = self.encode(value)
                return data if draw.random() < 0.9 else change_bytes(draw, data)
        seeds = self.seeds or tuple(map(self.encode, self.structures))
        return change_bytes(draw, draw.choice(seeds))


# --- requests

_REQUESTS: dict[Operation, list[dict[str, Any]]] = {
    Operation.KEYGEN: [{"wallet_id": "w1", "labels": {"a": "b"}, "expires_at": "2026-01-01T00:10:00Z"}, {"wallet_id": "w-2"}],
    Operation.SIGN: [
        {"key_type": "ed25519", "wallet_id": "w", "network_internal_code": "sol", "tx_id": "t1", "tx": b"\x01pay", "derivation_path": [44, 1]},
        {"key_type": "secp256k1", "wallet_id": "w", "network_internal_code": "eth", "tx_id": "t2", "tx": b"\x01" * 32, "derivation_path": None},
    ],
    Operation.RESHARE: [
        {"session_id": "s", "node_ids": ["node0", "node1"], "new_threshold": 1, "key_type": "ed25519", "wallet_id": "w"}
    ],
}  # fmt: skip
NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: base64.b64encode(v).decode() if isinstance(v, bytes) else v for name, v in fields.items()}


def _request(operation: Operation, encoding: ContentType) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> None:
        request = validate.parse_request(operation, codec.decode(encoding, data), encoding, RULES, NOW)
        message.check_unambiguous(request)
        # whatever is accepted can be told to the nodes, and means the same there
        parsed = message.parse_event(operation, message.event_bytes(request, b"signature"))
        assert message.signed_bytes(parsed.request) == message.signed_bytes(request)

    return decode


def _request_targets() -> list[Target]:
    return [
        Target(
            f"request.{operation}.{encoding.name.lower()}",
            _request(operation, encoding),
            (RejectError,),
            structures=tuple(
                _REQUESTS[operation] if encoding is ContentType.MSGPACK else map(_plain, _REQUESTS[operation])
            ),
            encode=ENCODERS[encoding],
        )
        for operation in Operation
        for encoding in ContentType
    ]


# --- events of the record, signed events, results


def _event(encoding: ContentType) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> None:
        event = events.decode(encoding, data)
        again = events.decode(encoding, events.encode(event))
        assert again == events.decode(encoding, events.encode(again))

    return decode


def _recorded(encoding: ContentType) -> list[dict[str, Any]]:
    states = [
        (State.ACCEPTED, {}),
        (State.FAILED, {"outcome": "none", "code": "X"}),
        (State.PUBLISHED, {"published_at": "1970-01-01T00:00:01.500Z"}),
    ]
    made = (event_of("t", state, content_type=encoding, body=body) for state, body in states)
    return [codec.decode(encoding, events.encode(event)) for event in made]


def _signed_event(operation: Operation) -> dict[str, Any]:
    fields = _REQUESTS[operation][0]
    request = validate.parse_request(operation, dict(fields), ContentType.MSGPACK, RULES, NOW)
    found: dict[str, Any] = json.loads(message.event_bytes(request, b"signature"))
    return found


def _b64(size: int) -> str:
    return base64.b64encode(b"\x07" * size).decode()


_COMMON: dict[str, Any] = {"result_type": "success", "error_code": "", "error_reason": "", "wallet_id": "w"}
_RESULTS = {
    Operation.KEYGEN: [_COMMON | {"ecdsa_pub_key": _b64(64), "eddsa_pub_key": _b64(32)}],
    Operation.SIGN: [
        _COMMON | {"is_timeout": False, "network_internal_code": "n", "tx_id": "t", "r": _b64(32), "s": _b64(32), "signature_recovery": "AQ==", "signature": None},
        _COMMON | {"is_timeout": False, "network_internal_code": "n", "tx_id": "t", "r": None, "s": None, "signature_recovery": None, "signature": _b64(64)},
        _COMMON | {"result_type": "error", "error_code": "ERROR_UNKNOWN", "error_reason": "no", "tx_id": "t", "network_internal_code": "n"},
    ],
    Operation.RESHARE: [_COMMON | {"new_threshold": 1, "key_type": "ed25519", "pub_key": _b64(32)}],
}  # fmt: skip


def _event_targets() -> list[Target]:
    found = [
        Target(
            f"event.{encoding.name.lower()}", _event(encoding), (RejectError,),
            structures=tuple(_recorded(encoding)), encode=ENCODERS[encoding],
        )
        for encoding in ContentType
    ]  # fmt: skip
    for operation in Operation:
        found += [
            Target(
                f"signed_event.{operation}", partial(verify_event, PUBLIC, operation), (),
                structures=(_signed_event(operation),), share=5,
            ),
            Target(
                f"result.{operation}", partial(parse_result, operation), (RejectError,),
                structures=tuple(_RESULTS[operation]),
            ),
        ]  # fmt: skip
    return found


# --- KMS, keys


def _kms_answer(data: bytes) -> None:
    """botocore gives a dictionary with its own metadata, or raises; what else is in it is ours to doubt."""
    answer = {}
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        answer = dict(json.loads(data))
    answer["ResponseMetadata"] = {"RequestId": "r"}
    for name in ("Signature", "PublicKey"):
        if isinstance(answer.get(name), str):
            with contextlib.suppress(ValueError):
                answer[name] = base64.b64decode(answer[name])
    signer = cast("Any", SimpleNamespace(key_id=_ARN, _verifier=Verifier(PUBLIC)))
    with contextlib.suppress(RetryError, HaltError):
        signed = Region._checked(signer, b"message", answer)
        assert Verifier(PUBLIC).verify(b"message", signed.signature)
    if isinstance(answer.get("PublicKey"), bytes):
        public_key_of(answer)


_ARN = "arn:aws:kms:r:1:key/k"
_KMS = {
    "KeyId": _ARN,
    "Signature": base64.b64encode(KEY.sign(b"message", ec.ECDSA(hashes.SHA256()))).decode(),
    "SigningAlgorithm": "ECDSA_SHA_256",
    "PublicKey": base64.b64encode(PUBLIC.encoded).decode(),
    "KeySpec": "ECC_NIST_P256",
    "KeyUsage": "SIGN_VERIFY",
    "SigningAlgorithms": ["ECDSA_SHA_256"],
}


def _signature(data: bytes) -> None:
    assert Verifier(PUBLIC).verify(b"message", data) in (True, False)


def _public_key(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for algorithm in ("p256", "ed25519"):
        with contextlib.suppress(HaltError):
            key = spki.parse_public_key(text, cast("Any", algorithm))
            assert spki.parse_public_key(key.hex, cast("Any", algorithm)) == key


class _Files:
    """A file for what is only read from files."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="initiator-fuzz-")
        self._path = Path(self._folder.name) / "input"
        self._path.touch(mode=0o600)

    def holding(self, data: bytes) -> str:
        self._path.write_bytes(data)
        return str(self._path)


FILES = _Files()


def _key_file(data: bytes) -> None:
    keyfile.load_local_signer(LocalKeySettings(path=FILES.holding(data)))


def _settings(data: bytes) -> None:
    load_settings(FILES.holding(data), {}, {})


def _environment(data: bytes) -> None:
    name, _, value = data.decode("utf-8", "replace").partition("=")
    load_settings(None, {}, {f"INITIATOR_{name}": value})


def _override(data: bytes) -> None:
    name, _, value = data.decode("utf-8", "replace").partition("=")
    load_settings(None, {name: value}, {})


_PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
_SETTINGS = {
    "nats": {"servers": ["nats://127.0.0.1:4222"], "tls": {"ca_file": "ca"}},
    "signer": {"kms": {"key_id": "mrk-1", "regions": [{"region": "r"}, {"region": "s"}]}},
    "mpcium": {"chain_code": "11" * 32, "event_initiator_pubkey": PUBLIC.hex, "sign": {"in_flight": 3}},
    "clients": {"alice": {"weight": 2, "operations": ["sign"]}},
    "worker": {"ack_wait_s": 9.0, "heartbeat_s": 3.0},
}


def _new_wallet() -> dict[str, str]:
    """Keys that are points of their curves."""
    ecdsa = ec.generate_private_key(ec.SECP256K1()).public_key()
    point = ecdsa.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    eddsa = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    keys = {"ecdsa_pub_key": point, "eddsa_pub_key": eddsa}
    return {name: base64.b64encode(key).decode() for name, key in keys.items()}


def _key_targets() -> list[Target]:
    return [
        Target("kms.answer", _kms_answer, (HaltError,), structures=(_KMS,), share=3),
        Target("kms.signature", _signature, (), seeds=(base64.b64decode(str(_KMS["Signature"])),), share=3),
        Target("key.public", _public_key, (), seeds=(PUBLIC.hex.encode(), base64.b64encode(PUBLIC.encoded)), share=3),
        Target("key.file", _key_file, (HaltError,), seeds=(_PEM, keyfile.generate("p256")[0].encode()), share=1),
        Target("config.file", _settings, (HaltError,), structures=(_SETTINGS,), share=1),
        Target(
            "config.environment", _environment, (HaltError,), seeds=(b"WORKER__ACK_WAIT_S=60", b"CLIENTS={}"), share=1
        ),
        Target("config.wallets", _wallets, (HaltError,), structures=(_COMMON | _new_wallet(),), share=1),
        Target("limit.message", _limit, (), structures=({"until": 1_767_225_600.5},), share=1),
        Target("config.set", _override, (HaltError,), seeds=(b"log.level=debug", b"nats.servers=[a]"), share=1),
    ]


# --- what comes with a message


def _message(data: bytes) -> Any:
    return cast("Any", SimpleNamespace(reply=data.decode("utf-8", "replace"), headers={}, data=b"", subject="s"))


def _limit(data: bytes) -> None:
    assert math.isfinite(read_until(data))


def _wallets(data: bytes) -> None:
    load_wallets(FILES.holding(data))


def _delivery(data: bytes) -> None:
    with contextlib.suppress(ValueError, OverflowError):  # the server writes it, and nobody else may
        parse_delivery(_message(data))


def _subject(data: bytes) -> None:
    found = subjects.parse_request(data.decode("utf-8", "replace"))
    assert found is None or subjects.request(found.client, found.operation).encode() == data


def _letter(data: bytes) -> None:
    deadletter.read("initiator.dead.alice.sign.7", 1, 1.0, parse_headers(data))


def _when(data: bytes) -> None:
    events.parse_when(data.decode("utf-8", "replace"), NOW)


def _content_type(data: bytes) -> None:
    codec.content_type(data.decode("utf-8", "replace"))


_HEADERS = b"NATS/1.0\r\nInitiator-Code: CONFLICT\r\nInitiator-Time: 2026-01-01T00:00:00.000Z\r\nOriginal-Content-Type: a/b\r\n"


def _message_targets() -> list[Target]:
    ack = b"$JS.ACK.INITIATOR_REQUESTS_alice.alice_sign.1.2.3.1700000000000000000.0"
    return [
        Target("delivery", _delivery, (), seeds=(ack,), share=3),
        Target("subject", _subject, (), seeds=(b"initiator.request.alice.sign",), share=3),
        Target("headers", lambda data: parse_headers(data), (), seeds=(_HEADERS,), share=3),
        Target("dead_letter", _letter, (), seeds=(_HEADERS,), share=3),
        Target("when", _when, (ValueError,), seeds=(b"2h", b"2026-01-01T00:00:00Z"), share=2),
        Target("content_type", _content_type, (RejectError,), seeds=(b"application/json; charset=utf-8",), share=2),
    ]


def all_targets() -> list[Target]:
    return [*_request_targets(), *_event_targets(), *_key_targets(), *_message_targets()]
