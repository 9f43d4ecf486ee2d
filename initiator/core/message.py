"""mpcium's bytes: what KMS signs, what the nodes receive, what authorizers sign.

Invariant: byte for byte what mpcium's own Go types make of the same values (`tests/vectors/mpcium.json`), for any
text, also for ids that our allow-list refuses. There is no domain separation on the wire, so `check_unambiguous`
proves that a keygen's signed bytes are no other message.

Source: mpcium's `pkg/types` (`Raw()` of each message and the field order of its JSON).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from initiator.core import gojson
from initiator.core.model import KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.errors import Code, RejectError


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizerSignature:
    """One authorizer's signature over `authorizer_bytes`."""

    authorizer_id: str
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedEvent:
    """A signed event read back.

    Attributes:
        signed: the bytes that its signature covers.
    """

    operation: Operation
    request: Request
    signed: bytes
    signature: bytes
    authorizer_signatures: tuple[AuthorizerSignature, ...]


def signed_bytes(request: Request) -> bytes:
    """The exact bytes under the initiator's signature."""
    match request:
        case KeygenRequest():
            return request.wallet_id.encode()
        case SignRequest():
            return f"{{{_sign_fields(request)}}}".encode()
        case ReshareRequest():
            return f"{{{_reshare_fields(request)}}}".encode()


def event_bytes(
    request: Request, signature: bytes, authorizer_signatures: Sequence[AuthorizerSignature] = ()
) -> bytes:
    """The whole message that the nodes receive."""
    parts = []
    match request:
        case KeygenRequest():
            parts = [f'"wallet_id":{gojson.string(request.wallet_id)}', f'"signature":{gojson.data(signature)}']
        case SignRequest():
            path = gojson.integers(request.derivation_path)
            parts = [_sign_fields(request), f'"signature":{gojson.data(signature)}', f'"derivation_path":{path}']
        case ReshareRequest():
            parts = [_reshare_fields(request)]
            if signature:  # `omitempty` upstream
                parts.append(f'"signature":{gojson.data(signature)}')
    if authorizer_signatures:
        parts.append(f'"authorizer_signatures":[{",".join(map(_authorizer, authorizer_signatures))}]')
    return f"{{{','.join(parts)}}}".encode()


def authorizer_bytes(request: Request, signature: bytes) -> bytes:
    """What each authorizer signs: our signature over the message is part of it."""
    initiator_id = request.tx_id if isinstance(request, SignRequest) else request.wallet_id
    raw = gojson.data(signed_bytes(request))
    fields = f'"initiator_id":{gojson.string(initiator_id)},"initiator_raw":{raw}'
    return f'{{{fields},"initiator_sig":{gojson.data(signature)}}}'.encode()


def _sign_fields(request: SignRequest) -> str:
    return (
        f'"key_type":{gojson.string(request.key_type)},"wallet_id":{gojson.string(request.wallet_id)},'
        f'"network_internal_code":{gojson.string(request.network_internal_code)},'
        f'"tx_id":{gojson.string(request.tx_id)},"tx":{gojson.data(request.tx)}'
    )


def _reshare_fields(request: ReshareRequest) -> str:
    return (
        f'"session_id":{gojson.string(request.session_id)},"node_ids":{gojson.strings(request.node_ids)},'
        f'"new_threshold":{request.new_threshold},"key_type":{gojson.string(request.key_type)},'
        f'"wallet_id":{gojson.string(request.wallet_id)}'
    )


def _authorizer(item: AuthorizerSignature) -> str:
    return f'{{"authorizer_id":{gojson.string(item.authorizer_id)},"signature":{gojson.data(item.signature)}}}'


def check_unambiguous(request: Request) -> None:
    """Refuse a keygen whose signed bytes are JSON of any kind of object.

    Keygen-as-sign: KMS signs a wallet_id as it stands, so one that equals the JSON of a sign or reshare message
    would make a signature for that message.

    Raises:
        RejectError: `AMBIGUOUS_MESSAGE`.
    """
    if not isinstance(request, KeygenRequest):
        return
    if "{" in request.wallet_id:
        raise RejectError(
            Code.AMBIGUOUS_MESSAGE, "could be read as another message of the nodes' protocol", field="wallet_id"
        )


def parse_event(operation: Operation, data: bytes) -> ParsedEvent:
    """Read a signed event strictly: every field there, of its type, none unknown or repeated.

    Raises:
        RejectError: `UNDECODABLE`, naming the field.
    """
    fields = _event_object(data)
    optional = {"authorizer_signatures"} | ({"signature"} if operation is Operation.RESHARE else set())
    expected = set(_EVENT_FIELDS[operation]) | {"signature", "authorizer_signatures"}
    for name in sorted(expected - optional - fields.keys()):
        raise _bad(name, "missing")
    for name in sorted(fields.keys() - expected):
        raise _bad(name[:64], "unknown field")
    request = _request_of(operation, fields)
    signature = _base64(fields, "signature") if "signature" in fields else b""
    authorizers = tuple(_authorizer_of(item) for item in fields.get("authorizer_signatures") or ())
    return ParsedEvent(
        operation=operation,
        request=request,
        signed=signed_bytes(request),
        signature=signature or b"",
        authorizer_signatures=authorizers,
    )


_EVENT_FIELDS = {
    Operation.KEYGEN: ("wallet_id",),
    Operation.SIGN: ("key_type", "wallet_id", "network_internal_code", "tx_id", "tx", "derivation_path"),
    Operation.RESHARE: ("session_id", "node_ids", "new_threshold", "key_type", "wallet_id"),
}


def _event_object(data: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("duplicate key")
        return found

    try:
        fields = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise RejectError(Code.UNDECODABLE, f"event: not JSON ({type(error).__name__})") from error
    if not isinstance(fields, dict):
        raise RejectError(Code.UNDECODABLE, "event: expected a JSON object")
    return fields


def _request_of(operation: Operation, fields: dict[str, Any]) -> Request:
    if operation is Operation.KEYGEN:
        return KeygenRequest(wallet_id=_text(fields, "wallet_id"))
    if operation is Operation.SIGN:
        return SignRequest(
            key_type=_key_type(fields),
            wallet_id=_text(fields, "wallet_id"),
            network_internal_code=_text(fields, "network_internal_code"),
            tx_id=_text(fields, "tx_id"),
            tx=_base64(fields, "tx"),  # type: ignore[arg-type]
            derivation_path=_integers(fields, "derivation_path"),
        )
    node_ids = fields["node_ids"]
    if node_ids is not None and (not isinstance(node_ids, list) or not all(isinstance(n, str) for n in node_ids)):
        raise _bad("node_ids", "expected a list of strings or null")
    return ReshareRequest(
        session_id=_text(fields, "session_id"),
        node_ids=None if node_ids is None else tuple(node_ids),  # type: ignore[arg-type]
        new_threshold=_integer(fields["new_threshold"], "new_threshold"),
        key_type=_key_type(fields),
        wallet_id=_text(fields, "wallet_id"),
    )


def _bad(field: str, reason: str) -> RejectError:
    return RejectError(Code.UNDECODABLE, reason, field=field)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise _bad(name, f"expected a string, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _bad(name, "holds a lone surrogate") from error
    return value


def _key_type(fields: dict[str, Any]) -> KeyType:
    text = _text(fields, "key_type")
    try:
        return KeyType(text)
    except ValueError:
        raise _bad("key_type", "expected secp256k1 or ed25519") from None


def _base64(fields: dict[str, Any], name: str) -> bytes | None:
    value = fields[name]
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _bad(name, "expected standard base64 or null") from error


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(name, f"expected an integer, got {type(value).__name__}")
    return value


def _integers(fields: dict[str, Any], name: str) -> tuple[int, ...] | None:
    value = fields[name]
    if value is None:
        return None
    if not isinstance(value, list) or not all(0 <= _integer(item, name) < 2**32 for item in value):
        raise _bad(name, "expected a list of uint32 or null")
    return tuple(value)


def _authorizer_of(item: Any) -> AuthorizerSignature:
    if not isinstance(item, dict) or item.keys() != {"authorizer_id", "signature"}:
        raise _bad("authorizer_signatures", "expected authorizer_id and signature")
    return AuthorizerSignature(authorizer_id=_text(item, "authorizer_id"), signature=_base64(item, "signature") or b"")
