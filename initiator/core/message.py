"""mpcium's bytes: what KMS signs, what the nodes receive, what authorizers sign.

Invariant: byte for byte what mpcium's own Go types make of the same values (`tests/vectors/mpcium.json`), for any
text, also for ids that our allow-list refuses. There is no domain separation on the wire, so `check_unambiguous`
proves that a keygen's signed bytes are no other message; those of sign and reshare differ in their first key.

Source: mpcium's `pkg/types` (`Raw()` of each message and the field order of its JSON).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from initiator.core import codec, gojson
from initiator.core.model import (
    ContentType,
    KeygenRequest,
    KeyType,
    Operation,
    Request,
    ReshareRequest,
    SignRequest,
)
from initiator.errors import Code, RejectError


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizerSignature:
    """One authorizer's signature over `authorizer_bytes`."""

    authorizer_id: str
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedEvent:
    """A signed event read back, by the types and not by the rules of `validate`: its ids may be any text.

    Attributes:
        request: without expiry and labels, which never reach the nodes.
        signed: the bytes that its signature covers, made anew from the fields as a node does.
        signature: empty where the event has none.
    """

    operation: Operation
    request: Request
    signed: bytes
    signature: bytes
    authorizer_signatures: tuple[AuthorizerSignature, ...]


def signed_bytes(request: Request) -> bytes:
    """The exact bytes under the initiator's signature.

    Raises:
        ValueError: text with a lone surrogate, which `codec.decode` lets nobody send.
    """
    match request:
        case KeygenRequest():
            return request.wallet_id.encode()
        case SignRequest():
            return f"{{{_sign_fields(request)}}}".encode()
        case ReshareRequest():
            return f"{{{_reshare_fields(request)}}}".encode()


def event_bytes(request: Request, signature: bytes, authorizer_signatures: Sequence[AuthorizerSignature] = ()) -> bytes:
    """The whole message that the nodes receive.

    Raises:
        ValueError: as `signed_bytes`.
    """
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
    """What each authorizer signs: our signature over the message is part of it, so it must never be made again.

    Raises:
        ValueError: as `signed_bytes`.
    """
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
    """Refuse a keygen whose signed bytes could be another message.

    Keygen-as-sign: KMS signs a wallet_id as it stands, so one that equals the JSON of a sign or reshare message
    would make a signature for that message. Each of those is a JSON object, and no object goes without a brace.

    Raises:
        RejectError: `AMBIGUOUS_MESSAGE`.
    """
    if isinstance(request, KeygenRequest) and "{" in request.wallet_id:
        raise RejectError(
            Code.AMBIGUOUS_MESSAGE, "could be read as another message of the nodes' protocol", field="wallet_id"
        )


# --- reading an event back


_EVENT_FIELDS = {
    Operation.KEYGEN: frozenset({"wallet_id", "signature"}),
    Operation.SIGN: frozenset({"key_type", "wallet_id", "network_internal_code", "tx_id", "tx", "signature"}),
    Operation.RESHARE: frozenset({"session_id", "node_ids", "new_threshold", "key_type", "wallet_id"}),
}
_OPTIONAL_FIELDS = {
    Operation.KEYGEN: frozenset({"authorizer_signatures"}),
    Operation.SIGN: frozenset({"derivation_path", "authorizer_signatures"}),  # other clients omit a null path
    Operation.RESHARE: frozenset({"signature", "authorizer_signatures"}),  # `omitempty` upstream
}


def parse_event(operation: Operation, data: bytes) -> ParsedEvent:
    """Read a signed event more strictly than the nodes do.

    Go takes keys of any case, the last of two equal ones, and skips those that it does not know: an event that needs
    such mercy could mean one thing to a node and another to an auditor, and is refused.

    Args:
        operation: the event's bytes do not say it.
        data: JSON as published to the nodes; keys in any order.

    Raises:
        RejectError: `UNDECODABLE`, naming the field.
    """
    fields = codec.decode(ContentType.JSON, data)
    required, optional = _EVENT_FIELDS[operation], _OPTIONAL_FIELDS[operation]
    for name in fields:
        if name not in required and name not in optional:
            raise _bad(ascii(name[:64])[1:-1], f"not a field of a {operation} event")
    for name in sorted(required - fields.keys()):
        raise _bad(name, f"missing in a {operation} event")
    request = _request_of(operation, fields)
    return ParsedEvent(
        operation=operation,
        request=request,
        signed=signed_bytes(request),
        signature=_bytes(fields, "signature") or b"",
        authorizer_signatures=_authorizers_of(fields),
    )


def _request_of(operation: Operation, fields: Mapping[str, Any]) -> Request:
    match operation:
        case Operation.KEYGEN:
            return KeygenRequest(wallet_id=_text(fields, "wallet_id"))
        case Operation.SIGN:
            return SignRequest(
                key_type=_key_type(fields),
                wallet_id=_text(fields, "wallet_id"),
                network_internal_code=_text(fields, "network_internal_code"),
                tx_id=_text(fields, "tx_id"),
                tx=_bytes(fields, "tx"),  # type: ignore[arg-type]  # null where Go's slice was nil, and so signed
                derivation_path=_path(fields),
            )
        case Operation.RESHARE:
            return ReshareRequest(
                session_id=_text(fields, "session_id"),
                node_ids=_texts(fields, "node_ids"),  # type: ignore[arg-type]  # null as above
                new_threshold=_integer("new_threshold", fields["new_threshold"], -(2**63), 2**63),
                key_type=_key_type(fields),
                wallet_id=_text(fields, "wallet_id"),
            )


def _bad(field: str, reason: str) -> RejectError:
    return RejectError(Code.UNDECODABLE, reason, field=field)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _text(fields: Mapping[str, Any], name: str, within: str = "") -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise _bad(within + name, f"expected a string, got {_kind(value)}")
    return value


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = fields[name]
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _bad(name, "expected a list of strings or null")
    return tuple(value)


def _key_type(fields: Mapping[str, Any]) -> KeyType:
    text = _text(fields, "key_type")
    try:
        return KeyType(text)
    except ValueError:
        raise _bad("key_type", f"expected {' or '.join(KeyType)}, got {text[:32]!a}") from None


def _bytes(fields: Mapping[str, Any], name: str, within: str = "") -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            data = None
        if data is not None and base64.b64encode(data).decode() == value:
            return data
    raise _bad(within + name, "expected canonical standard base64 or null")


def _integer(name: str, value: Any, lowest: int, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(name, f"expected an integer, got {_kind(value)}")
    if not lowest <= value < limit:
        raise _bad(name, f"expected at least {lowest} and less than {limit}")
    return value


def _path(fields: Mapping[str, Any]) -> tuple[int, ...] | None:
    name = "derivation_path"
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, list):
        raise _bad(name, f"expected a list of uint32 or null, got {_kind(value)}")
    return tuple(_integer(f"{name}[{index}]", item, 0, 2**32) for index, item in enumerate(value))


def _authorizers_of(fields: Mapping[str, Any]) -> tuple[AuthorizerSignature, ...]:
    name = "authorizer_signatures"
    items = fields.get(name)
    if items is None:
        return ()
    if not isinstance(items, list):
        raise _bad(name, f"expected a list or null, got {_kind(items)}")
    found = []
    for index, item in enumerate(items):
        if not isinstance(item, dict) or item.keys() != {"authorizer_id", "signature"}:
            raise _bad(f"{name}[{index}]", "expected authorizer_id and signature")
        within = f"{name}[{index}]."
        authorizer_id = _text(item, "authorizer_id", within)
        found.append(
            AuthorizerSignature(authorizer_id=authorizer_id, signature=_bytes(item, "signature", within) or b"")
        )
    return tuple(found)
