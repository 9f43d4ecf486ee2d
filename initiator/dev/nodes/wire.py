"""mpcium's messages, read and written as Go's encoding/json does: the simulation's own reading of the wire.

Nothing here is shared with the daemon, on purpose: what both sides agree on is then a fact of the wire and not of
one library. A node decodes a message and encodes the signed part anew, so what it verifies is what it understood.

Sources: mpcium's pkg/types and pkg/event; Go's encoding/json.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

Fields: TypeAlias = dict[str, Any]
Pairs: TypeAlias = Iterable[tuple[str, Any]]

_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class UnmarshalError(ValueError):
    """Go's json.Unmarshal would fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizerSignature:
    authorizer_id: str
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Keygen:
    wallet_id: str
    signature: bytes
    authorizer_signatures: tuple[AuthorizerSignature, ...]

    @property
    def initiator_id(self) -> str:
        return self.wallet_id

    def raw(self) -> bytes:
        """The signed bytes: the wallet id alone."""
        return self.wallet_id.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    key_type: str
    wallet_id: str
    network_internal_code: str
    tx_id: str
    tx: bytes | None
    derivation_path: tuple[int, ...]
    signature: bytes
    authorizer_signatures: tuple[AuthorizerSignature, ...]

    @property
    def initiator_id(self) -> str:
        return self.tx_id

    def raw(self) -> bytes:
        """The signed bytes; the derivation path is not among them."""
        names = ("key_type", "wallet_id", "network_internal_code", "tx_id", "tx")
        return dumps((name, getattr(self, name)) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reshare:
    session_id: str
    node_ids: tuple[str, ...] | None
    new_threshold: int
    key_type: str
    wallet_id: str
    signature: bytes
    authorizer_signatures: tuple[AuthorizerSignature, ...]

    @property
    def initiator_id(self) -> str:
        return self.wallet_id

    def raw(self) -> bytes:
        """The signed bytes."""
        names = ("session_id", "node_ids", "new_threshold", "key_type", "wallet_id")
        return dumps((name, getattr(self, name)) for name in names)


Message: TypeAlias = Keygen | Sign | Reshare


def authorizer_raw(message: Message) -> bytes:
    """What an authorizer signs: the initiator's id, signed bytes and signature."""
    return dumps(
        (
            ("initiator_id", message.initiator_id),
            ("initiator_raw", message.raw()),
            ("initiator_sig", message.signature or None),
        )
    )


def read_keygen(data: bytes) -> Keygen:
    fields = loads(data)
    return Keygen(wallet_id=_string(fields, "wallet_id"), **_signatures(fields))


def read_sign(data: bytes) -> Sign:
    fields = loads(data)
    return Sign(
        key_type=_string(fields, "key_type"),
        wallet_id=_string(fields, "wallet_id"),
        network_internal_code=_string(fields, "network_internal_code"),
        tx_id=_string(fields, "tx_id"),
        tx=_bytes(fields, "tx"),
        derivation_path=tuple(_integer(item, "derivation_path", 0, 2**32) for item in _list(fields, "derivation_path")),
        **_signatures(fields),
    )


def read_reshare(data: bytes) -> Reshare:
    fields = loads(data)
    listed = fields.get("node_ids") is not None
    node_ids = tuple(_string({"node_ids": item}, "node_ids") for item in _list(fields, "node_ids"))
    return Reshare(
        session_id=_string(fields, "session_id"),
        node_ids=node_ids if listed else None,
        new_threshold=_integer(fields.get("new_threshold"), "new_threshold", -(2**63), 2**63),
        key_type=_string(fields, "key_type"),
        wallet_id=_string(fields, "wallet_id"),
        **_signatures(fields),
    )


def read_ids(data: bytes) -> dict[str, str]:
    """The ids of a message that may not be readable as a whole: Go fills what it can and reports the rest."""
    try:
        fields = loads(data)
    except UnmarshalError:
        fields = {}
    names = ("network_internal_code", "wallet_id", "tx_id")
    return {name: _string(fields, name) if isinstance(fields.get(name), str) else "" for name in names}


# --- Go's rules


def loads(data: bytes) -> Fields:
    """A JSON object as a Go struct sees it: names in any case, the last of several wins, `null` is nothing."""
    try:
        value = json.loads(data.decode("utf-8", "replace"), parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise UnmarshalError("invalid JSON") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnmarshalError("json: cannot unmarshal into a Go struct")
    return {name.lower(): item for name, item in value.items()}


def dumps(pairs: Pairs) -> bytes:
    """A Go struct as json.Marshal writes it: in the order given, without spaces."""
    body = ",".join(f"{_quote(name)}:{_encode(value)}" for name, value in pairs)
    return f"{{{body}}}".encode()


def _encode(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _quote(value)
        case bytes():
            return f'"{base64.b64encode(value).decode()}"'
        case tuple() | list():
            return f"[{','.join(map(_encode, value))}]"
        case _:
            raise TypeError(f"no Go form for {type(value).__name__}")


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_HTML)


def _constant(name: str) -> Any:
    raise ValueError(name)


def _string(fields: Fields, name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnmarshalError(f"json: cannot unmarshal into field {name} of type string")
    return _LONE_SURROGATE.sub("\ufffd", value)


def _bytes(fields: Fields, name: str) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    try:
        return base64.b64decode(_string(fields, name).replace("\r", "").replace("\n", ""), validate=True)
    except ValueError as error:
        raise UnmarshalError(f"illegal base64 data in field {name}") from error


def _integer(value: Any, name: str, low: int, end: int) -> int:
    if value is None:
        return 0
    if type(value) is not int or not low <= value < end:
        raise UnmarshalError(f"json: cannot unmarshal number into field {name}")
    return value


def _list(fields: Fields, name: str) -> list[Any]:
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnmarshalError(f"json: cannot unmarshal into field {name} of a slice type")
    return value


def _signatures(fields: Fields) -> Fields:
    listed = []
    for item in _list(fields, "authorizer_signatures"):
        if not isinstance(item, dict):
            raise UnmarshalError("json: cannot unmarshal into field authorizer_signatures")
        one = {name.lower(): value for name, value in item.items()}
        listed.append(
            AuthorizerSignature(authorizer_id=_string(one, "authorizer_id"), signature=_bytes(one, "signature") or b"")
        )
    return {"signature": _bytes(fields, "signature") or b"", "authorizer_signatures": tuple(listed)}
