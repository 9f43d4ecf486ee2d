"""What the peer nodes answer: mpcium's result messages, read strictly where we rely on them.

Invariants:
- `result_type` alone decides between success and failure. The result of exhausted deliveries carries our own
  initiator signature in `signature` (wire trap 5), so a signature being there proves nothing.
- a success holds exactly the value that its operation produces, in the lengths that the nodes produce; anything
  else is `RESULT_INVALID`. Unknown fields are passed over: mpcium may add some.
- `error_code` and `error_reason` are kept as they came (bounded in length): they are guesses from substrings that
  include ids, hints for people and not facts.
- nothing here proves that a result is genuine, since results carry no signature: see `initiator.core.wallet`.

Source: mpcium's pkg/event (types, keygen, sign, reshare) and pkg/eventconsumer.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NoReturn, TypeAlias

from initiator.core.model import KeyType, Operation
from initiator.errors import Code, RejectError

MAX_RESULT_BYTES = 1_048_576
MAX_ID_CHARS = 256
MAX_CODE_CHARS = 128
MAX_REASON_CHARS = 1024

PUBLIC_KEY_BYTES = {KeyType.SECP256K1: 64, KeyType.ED25519: 32}
ECDSA_SCALAR_BYTES = 32
EDDSA_SIGNATURE_BYTES = 64
MAX_RECOVERY = 3
MAX_THRESHOLD = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class KeygenKeys:
    """A new wallet's public keys: secp256k1 as X‖Y (64 bytes), Ed25519 as 32 bytes."""

    ecdsa_pub_key: bytes
    eddsa_pub_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EcdsaSignature:
    """r and s (32 bytes each, big-endian) and the recovery id, 0 to 3."""

    r: bytes
    s: bytes
    recovery: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EddsaSignature:
    """An Ed25519 signature, R‖S (64 bytes)."""

    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReshareKey:
    """The key of one type after a reshare; the public key must be the one from before."""

    key_type: KeyType
    pub_key: bytes
    new_threshold: int


Value: TypeAlias = KeygenKeys | EcdsaSignature | EddsaSignature | ReshareKey


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """One result message.

    Attributes:
        error_code: mpcium's code with its `ERROR_` prefix; empty on success.
        error_reason: the node's words, cut at `MAX_REASON_CHARS`; empty on success.
        operation_id: keygen: wallet_id; sign: tx_id; reshare: None, since only the subject names the session.
        network_internal_code: sign only, as the request gave it.
        value: what a success brings; None for a failure.
    """

    operation: Operation
    success: bool
    error_code: str
    error_reason: str
    wallet_id: str
    operation_id: str | None
    network_internal_code: str | None = None
    value: Value | None = None


class ErrorClass(Enum):
    """What an error of the nodes says about the session."""

    RETRY_BEFORE_SESSION = auto()  # the cluster was not ready: surely no session was begun
    PROVISIONAL = auto()  # the success of the same id may still come, or has come (wire trap 10)
    FINAL = auto()


_BEFORE_SESSION = frozenset({"ERROR_CLUSTER_NOT_READY", "ERROR_NOT_MAJORITY"})
_PROVISIONAL = frozenset({"ERROR_SESSION_DUPLICATE", "ERROR_KEY_ALREADY_EXISTS"})
# The nodes guess codes from substrings of a text that holds ids: the duplicate of a wallet `output-1` reads as
# STORAGE_WRITE ("put"). The text before the id is theirs alone, so it says more than the code.
_PROVISIONAL_REASONS = (
    "Duplicate session: ",
    "Duplicate keygen session: ",
    "Failed to create ECDSA key generation session: Key already exists: ",
    "Failed to create EdDSA key generation session: Key already exists: ",
)


def classify(operation: Operation, error_code: str, error_reason: str = "") -> ErrorClass:
    """What an error says. Unknown codes are final.

    Only a node that has begun nothing emits the first class, in so many words and never by guessing. A reshare has
    no such answer, so it is never retried by its code.
    """
    if error_code in _BEFORE_SESSION and operation is not Operation.RESHARE:
        return ErrorClass.RETRY_BEFORE_SESSION
    if error_code in _PROVISIONAL or error_reason.startswith(_PROVISIONAL_REASONS):
        return ErrorClass.PROVISIONAL
    return ErrorClass.FINAL


def parse_result(operation: Operation, data: bytes) -> NodeResult:
    """Read one result message.

    Args:
        operation: what the result's subject says.
        data: the message's payload.

    Raises:
        RejectError: `RESULT_INVALID`, naming the field that is missing, of a wrong type or of a wrong length.
    """
    fields = _decode(data)
    result_type = _text(fields, "result_type")
    if result_type not in ("success", "error"):
        _refuse("result_type", "expected success or error")
    success = result_type == "success"
    return NodeResult(
        operation=operation,
        success=success,
        error_code="" if success else _words(fields, "error_code", MAX_CODE_CHARS),
        error_reason="" if success else _words(fields, "error_reason", MAX_REASON_CHARS),
        wallet_id=_id(fields, "wallet_id"),
        operation_id=None if operation is Operation.RESHARE else _id(fields, _ID_FIELDS[operation]),
        network_internal_code=_words(fields, "network_internal_code", MAX_ID_CHARS)
        if operation is Operation.SIGN
        else None,
        value=_VALUES[operation](fields) if success else None,
    )


def result_body(value: Value | None) -> dict[str, Any]:
    """What a result adds to our `completed` event, in mpcium's names; bytes stay bytes. A failure adds nothing."""
    match value:
        case KeygenKeys():
            return {"ecdsa_pub_key": value.ecdsa_pub_key, "eddsa_pub_key": value.eddsa_pub_key}
        case EcdsaSignature():
            return {"r": value.r, "s": value.s, "signature_recovery": value.recovery}
        case EddsaSignature():
            return {"signature": value.signature}
        case ReshareKey():
            body = {"key_type": value.key_type.value, "pub_key": value.pub_key}
            return body | {"new_threshold": value.new_threshold}
        case None:
            return {}


# --- the values of a success


def _keygen_keys(fields: Mapping[str, Any]) -> KeygenKeys:
    return KeygenKeys(
        ecdsa_pub_key=_sized(fields, "ecdsa_pub_key", PUBLIC_KEY_BYTES[KeyType.SECP256K1]),
        eddsa_pub_key=_sized(fields, "eddsa_pub_key", PUBLIC_KEY_BYTES[KeyType.ED25519]),
    )


def _signature(fields: Mapping[str, Any]) -> EcdsaSignature | EddsaSignature:
    """The result names no key type: r and s make it ECDSA, a signature makes it EdDSA, both make it rubbish."""
    if _bytes(fields, "signature"):
        for name in ("r", "s", "signature_recovery"):
            if _bytes(fields, name):
                _refuse(name, "expected null beside a signature")
        return EddsaSignature(signature=_sized(fields, "signature", EDDSA_SIGNATURE_BYTES))
    recovery = _sized(fields, "signature_recovery", 1)[0] if _bytes(fields, "r") else 0
    if recovery > MAX_RECOVERY:
        _refuse("signature_recovery", f"expected 0 to {MAX_RECOVERY}, got {recovery}")
    return EcdsaSignature(
        r=_sized(fields, "r", ECDSA_SCALAR_BYTES), s=_sized(fields, "s", ECDSA_SCALAR_BYTES), recovery=recovery
    )


def _reshare_key(fields: Mapping[str, Any]) -> ReshareKey:
    name = _text(fields, "key_type")
    if name not in _KEY_TYPES:
        _refuse("key_type", f"expected {' or '.join(_KEY_TYPES)}")
    key_type = _KEY_TYPES[name]
    threshold = fields.get("new_threshold")
    if type(threshold) is not int:
        _refuse("new_threshold", f"expected an integer, got {_kind(threshold)}")
    if not 0 <= threshold <= MAX_THRESHOLD:
        _refuse("new_threshold", f"expected 0 to {MAX_THRESHOLD}")
    pub_key = _sized(fields, "pub_key", PUBLIC_KEY_BYTES[key_type])
    return ReshareKey(key_type=key_type, pub_key=pub_key, new_threshold=threshold)


_KEY_TYPES = {key_type.value: key_type for key_type in KeyType}
_ID_FIELDS = {Operation.KEYGEN: "wallet_id", Operation.SIGN: "tx_id"}
_VALUES: Mapping[Operation, Callable[[Mapping[str, Any]], Value]] = {
    Operation.KEYGEN: _keygen_keys,
    Operation.SIGN: _signature,
    Operation.RESHARE: _reshare_key,
}


# --- fields


def _decode(data: bytes) -> Mapping[str, Any]:
    if len(data) > MAX_RESULT_BYTES:
        _refuse("result", f"expected at most {MAX_RESULT_BYTES} bytes, got {len(data)}")
    try:
        fields = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and huge integers are ValueErrors
        raise RejectError(Code.RESULT_INVALID, "expected a JSON object", field="result") from error
    if not isinstance(fields, dict):
        _refuse("result", f"expected a JSON object, got {_kind(fields)}")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        _refuse(name, f"expected a string, got {_kind(value)}")
    return value


def _id(fields: Mapping[str, Any], name: str) -> str:
    value = _text(fields, name)
    if not value or len(value) > MAX_ID_CHARS:
        _refuse(name, f"expected 1 to {MAX_ID_CHARS} characters, got {len(value)}")
    if _has_surrogate(value):
        _refuse(name, "expected Unicode text, got a lone surrogate")
    return value


def _words(fields: Mapping[str, Any], name: str, limit: int) -> str:
    """Text for people: optional, cut at `limit`, and always encodable."""
    if fields.get(name) is None:
        return ""
    value = _text(fields, name)
    if len(value) > limit:
        value = value[: limit - 1] + "…"
    # a lone surrogate would make every event that quotes it unencodable
    return value.encode("utf-8", "replace").decode("utf-8") if _has_surrogate(value) else value


def _has_surrogate(value: str) -> bool:
    return not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)


def _bytes(fields: Mapping[str, Any], name: str) -> bytes:
    """Go's []byte: padded standard base64, or null for none."""
    value = fields.get(name)
    if value is None:
        return b""
    if not isinstance(value, str):
        _refuse(name, f"expected base64 or null, got {_kind(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error) as error:
        raise RejectError(Code.RESULT_INVALID, "expected padded standard base64", field=name) from error


def _sized(fields: Mapping[str, Any], name: str, size: int) -> bytes:
    value = _bytes(fields, name)
    if len(value) != size:
        _refuse(name, f"expected {size} {'byte' if size == 1 else 'bytes'}, got {len(value)}")
    return value


def _kind(value: object) -> str:
    """A value's JSON type; never the value itself, which may be a key or a signature."""
    return _KINDS.get(type(value), "nothing")


_KINDS = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


def _refuse(field: str, reason: str) -> NoReturn:
    raise RejectError(Code.RESULT_INVALID, reason, field=field)
