"""The nodes' results, read strictly where we rely on them and tolerantly where mpcium may grow.

Invariant: success or error is decided by `result_type` alone: the result of exhausted deliveries is an error whose
`signature` field holds our own initiator signature.

Source: mpcium's `pkg/event` types.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

from initiator.core.model import KeyType, Operation
from initiator.errors import Code, RejectError

MAX_REASON_LENGTH = 1024


class ErrorClass(Enum):
    """What an error code of the nodes allows; the codes are guesses of theirs, so only these few are relied on."""

    RETRY_BEFORE_SESSION = auto()
    PROVISIONAL = auto()
    FINAL = auto()


_CLASSES = {
    "ERROR_CLUSTER_NOT_READY": ErrorClass.RETRY_BEFORE_SESSION,
    "ERROR_NOT_MAJORITY": ErrorClass.RETRY_BEFORE_SESSION,
    "ERROR_SESSION_DUPLICATE": ErrorClass.PROVISIONAL,
    "ERROR_KEY_ALREADY_EXISTS": ErrorClass.PROVISIONAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeygenKeys:
    """A new wallet's public keys: secp256k1 as X‖Y (64 bytes), Ed25519 (32 bytes)."""

    ecdsa_pub_key: bytes
    eddsa_pub_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EcdsaSignature:
    """r and s of 32 bytes each, and the recovery id."""

    r: bytes
    s: bytes
    recovery: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EddsaSignature:
    """64 bytes."""

    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReshareKey:
    """The wallet's public key after a reshare, as mpcium writes it."""

    key_type: KeyType
    pub_key: bytes
    new_threshold: int


Value: TypeAlias = KeygenKeys | EcdsaSignature | EddsaSignature | ReshareKey


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """One result of the nodes.

    Attributes:
        operation_id: wallet_id or tx_id; None for a reshare, whose session is in the subject alone.
        value: what a success carries, None for an error.
    """

    operation: Operation
    success: bool
    error_code: str
    error_reason: str
    wallet_id: str
    operation_id: str | None
    value: Value | None


def classify(operation: Operation, error_code: str) -> ErrorClass:
    """What follows from an error code."""
    del operation  # the classes are the same for all so far
    return _CLASSES.get(error_code, ErrorClass.FINAL)


def _bad(field: str, reason: str) -> RejectError:
    return RejectError(Code.RESULT_INVALID, reason, field=field)


def parse_result(operation: Operation, data: bytes) -> NodeResult:
    """Read a result.

    Raises:
        RejectError: `RESULT_INVALID`, naming the field.
    """
    fields = _object(data)
    kind = _text(fields, "result_type")
    if kind not in ("success", "error"):
        raise _bad("result_type", "expected success or error")
    success = kind == "success"
    operation_id = None
    if operation is Operation.KEYGEN:
        operation_id = _text(fields, "wallet_id")
    elif operation is Operation.SIGN:
        operation_id = _text(fields, "tx_id")
    return NodeResult(
        operation=operation,
        success=success,
        error_code=_text(fields, "error_code", ""),
        error_reason=_text(fields, "error_reason", "")[:MAX_REASON_LENGTH],
        wallet_id=_text(fields, "wallet_id"),
        operation_id=operation_id,
        value=_VALUES[operation](fields) if success else None,
    )


def _object(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _bad("result", f"not JSON ({type(error).__name__})") from error
    if not isinstance(fields, dict):
        raise _bad("result", "expected a JSON object")
    return fields


def _text(fields: dict[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise _bad(name, f"expected a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _bad(name, "holds a lone surrogate") from error
    return value


def _bytes(fields: dict[str, Any], name: str, *lengths: int) -> bytes:
    value = fields.get(name)
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError) as error:
        raise _bad(name, "expected base64") from error
    if lengths and len(data) not in lengths:
        raise _bad(name, f"expected {' or '.join(map(str, lengths))} bytes, got {len(data)}")
    return data


def _keygen(fields: dict[str, Any]) -> Value:
    return KeygenKeys(
        ecdsa_pub_key=_bytes(fields, "ecdsa_pub_key", 64), eddsa_pub_key=_bytes(fields, "eddsa_pub_key", 32)
    )


def _sign(fields: dict[str, Any]) -> Value:
    signature = _bytes(fields, "signature")
    if signature:
        return EddsaSignature(signature=_bytes(fields, "signature", 64))
    recovery = _bytes(fields, "signature_recovery", 1)[0]
    if recovery > 3:
        raise _bad("signature_recovery", f"expected 0 to 3, got {recovery}")
    return EcdsaSignature(r=_bytes(fields, "r", 32), s=_bytes(fields, "s", 32), recovery=recovery)


def _reshare(fields: dict[str, Any]) -> Value:
    threshold = fields.get("new_threshold")
    if isinstance(threshold, bool) or not isinstance(threshold, int):
        raise _bad("new_threshold", "expected an integer")
    try:
        key_type = KeyType(_text(fields, "key_type"))
    except ValueError:
        raise _bad("key_type", "expected secp256k1 or ed25519") from None
    length = 64 if key_type is KeyType.SECP256K1 else 32
    return ReshareKey(key_type=key_type, pub_key=_bytes(fields, "pub_key", length), new_threshold=threshold)


_VALUES = {Operation.KEYGEN: _keygen, Operation.SIGN: _sign, Operation.RESHARE: _reshare}


def result_body(value: Value) -> dict[str, Any]:
    """A success as our `completed` event carries it, with mpcium's field names; bytes stay bytes."""
    match value:
        case KeygenKeys():
            return {"ecdsa_pub_key": value.ecdsa_pub_key, "eddsa_pub_key": value.eddsa_pub_key}
        case EcdsaSignature():
            return {"r": value.r, "s": value.s, "signature_recovery": value.recovery}
        case EddsaSignature():
            return {"signature": value.signature}
        case ReshareKey():
            return {
                "key_type": value.key_type.value,
                "pub_key": value.pub_key,
                "new_threshold": value.new_threshold,
            }
