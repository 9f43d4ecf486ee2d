"""From a decoded map to a request, or a rejection that names the field, what was expected and what came.

Invariants: only known fields, each of its exact type (no coercion, a bool is no int); ids are one safe NATS token;
ids parse uniquely on the nodes' `wallet-tx` session keys; what a value of `model` holds is publishable as it stands.

Decisions where the wire leaves a choice, each read from mpcium's source:
- `derivation_path`: `[]` is null, since the nodes derive only where the path has a level;
- `network_internal_code`: text of our caller's, required but maybe empty; the nodes only log and echo it, so any
  printable text may stand there;
- `node_ids`: at least two, since the nodes want more nodes than the threshold, and that is one or more;
- an ed25519 `tx` does not begin with a zero byte: the nodes hold it as an integer and would sign another message.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from initiator.core.curves import SECP256K1_N
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

TxIdForm: TypeAlias = Literal["uuid_or_no_hyphen", "uuid", "no_hyphen"]

MAX_PATH_LEVELS = 16
MAX_NODES = 64
MAX_CODE_CHARS = 64
MAX_LABEL_CHARS = 128
DIGEST_BYTES = 32

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_UUID_TAIL = re.compile(r"[0-9a-fA-F]{12}")
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
# controls, what reads as a line end or turns the direction of text in a log, and what is no character at all
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_KEY_TYPES = {key_type.value: key_type for key_type in KeyType}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The configurable bounds; see `limits` and `mpcium.tx_id_form` in the settings.

    Attributes:
        max_tx_bytes: largest tx for ed25519.
        tx_id_form: what a tx_id may look like; one form for a whole cluster.
        max_expiry_s: latest expires_at, from now.
        max_labels: labels on one request.
        must_expire: the record forgets final events, so that only its expiry bounds a request's replay.

    Raises:
        ValueError: no such form.
    """

    max_tx_bytes: int
    tx_id_form: TxIdForm
    max_expiry_s: float
    max_labels: int
    must_expire: bool = False

    def __post_init__(self) -> None:
        if self.tx_id_form not in get_args(TxIdForm):  # fail closed: an unknown form would check nothing
            raise ValueError(f"tx_id_form: expected one of {', '.join(get_args(TxIdForm))}")


@dataclass(frozen=True, slots=True)
class _Context:
    encoding: ContentType
    rules: Rules
    now: float
    fields: Mapping[str, Any]


def _bad(field: str, reason: str) -> RejectError:
    return RejectError(Code.INVALID_FIELD, reason, field=field)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(name, f"expected a string, got {_kind(value)}")
    return value


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(name, f"expected an integer, got {_kind(value)}")
    return value


# --- ids


def _id(name: str, value: Any, _context: _Context) -> str:
    text = _text(name, value)
    # injection: one NATS token, no wildcard, nothing that JSON or a subject would read otherwise
    if not ID.fullmatch(text):
        raise _bad(name, f"expected 1 to 64 of A-Z a-z 0-9 _ -, got {_strange(text)}")
    return text


def _strange(text: str) -> str:
    if len(text) > 64:
        return f"{len(text)} characters"
    character = next((character for character in text if not ID.fullmatch(character)), None)
    return "an empty string" if character is None else f"the character {character!a}"


def _tx_id(name: str, value: Any, context: _Context) -> str:
    text = _id(name, value, context)
    if text.lower() == "keygen":
        raise _bad(name, "`keygen` is reserved: it would collide with the wallet's keygen on the nodes")
    # session collision: the nodes' key is `wallet-tx`, so `a` + `b-c` would equal `a-b` + `c`
    form = context.rules.tx_id_form
    is_uuid = _UUID.fullmatch(text) is not None
    if form == "uuid" and not is_uuid:
        raise _bad(name, "expected a UUID (mpcium.tx_id_form: uuid)")
    if form == "no_hyphen" and "-" in text:
        raise _bad(name, "expected no hyphen (mpcium.tx_id_form: no_hyphen)")
    if form == "uuid_or_no_hyphen" and not is_uuid:
        if "-" in text:
            raise _bad(name, "expected a UUID, or an id without hyphens")
        # where both forms live, `a` + a UUID would equal `a-` with the UUID's first groups + its last one
        if _UUID_TAIL.fullmatch(text):
            raise _bad(name, "12 hex digits could be the end of a UUID (other lengths are fine)")
    return text


# --- what is asked of the nodes


def _key_type(name: str, value: Any, _context: _Context) -> KeyType:
    found = _KEY_TYPES.get(_text(name, value))
    if found is None:
        raise _bad(name, f"expected {' or '.join(_KEY_TYPES)}, got {value[:32]!a}")
    return found


def _network_code(name: str, value: Any, _context: _Context) -> str:
    text = _text(name, value)
    if len(text) > MAX_CODE_CHARS or _UNPRINTABLE.search(text):
        raise _bad(name, f"expected up to {MAX_CODE_CHARS} printable characters")
    return text


def _tx(name: str, value: Any, context: _Context) -> bytes:
    data = _tx_bytes(name, value, context.encoding)
    if context.fields["key_type"] == KeyType.SECP256K1:
        if len(data) != DIGEST_BYTES:
            raise _bad(name, f"expected a {DIGEST_BYTES}-byte hash for secp256k1, got {len(data)} bytes")
        if not 0 < int.from_bytes(data, "big") < SECP256K1_N:
            raise _bad(name, "expected a hash that is not zero and below the order of secp256k1")
    elif not 1 <= len(data) <= context.rules.max_tx_bytes:
        raise _bad(name, f"expected 1 to {context.rules.max_tx_bytes} bytes, got {len(data)}")
    elif data[0] == 0:
        # another message: the nodes' integer loses leading zeros, so they would sign what nobody asked for
        raise _bad(name, "an ed25519 payload that begins with a zero byte would be signed without it by the nodes")
    return data


def _tx_bytes(name: str, value: Any, encoding: ContentType) -> bytes:
    if encoding is ContentType.MSGPACK:
        if not isinstance(value, bytes):
            raise _bad(name, f"expected bin, got {_kind(value)}")
        return value
    text = _text(name, value)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(name, "expected padded standard base64") from error
    # equivocation: two texts that decode alike must not be two requests
    if base64.b64encode(data).decode() != text:
        raise _bad(name, "expected canonical base64 (padded, unused bits zero)")
    return data


def _path(name: str, value: Any, _context: _Context) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _bad(name, f"expected a list of integers or null, got {_kind(value)}")
    if len(value) > MAX_PATH_LEVELS:
        raise _bad(name, f"expected at most {MAX_PATH_LEVELS} levels, got {len(value)}")
    for index, level in enumerate(value):
        if type(level) is not int or not 0 <= level < 2**31:
            raise _bad_level(f"{name}[{index}]", level)
    return tuple(value) or None


def _bad_level(name: str, level: Any) -> RejectError:
    if _integer(name, level) < 0:
        return _bad(name, "expected 0 or more")
    return _bad(name, "hardened levels (2**31 and above) fail on the nodes")


def _node_ids(name: str, value: Any, context: _Context) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _bad(name, f"expected a list of strings, got {_kind(value)}")
    if not 2 <= len(value) <= MAX_NODES:
        raise _bad(name, f"expected 2 to {MAX_NODES} nodes, got {len(value)}")
    ids = tuple(_id(f"{name}[{index}]", item, context) for index, item in enumerate(value))
    if len(set(ids)) != len(ids):
        raise _bad(name, "expected each node once")
    return ids


def _threshold(name: str, value: Any, context: _Context) -> int:
    threshold = _integer(name, value)
    nodes = len(context.fields["node_ids"])
    if not 1 <= threshold < nodes:
        raise _bad(name, f"expected 1 or more and less than the number of nodes ({nodes}), got {threshold}")
    return threshold


# --- what is asked of us


def _expires_at(name: str, value: Any, context: _Context) -> float | None:
    if value is None:
        return None
    text = _text(name, value)
    if not _RFC3339.fullmatch(text):
        raise _bad(name, "expected RFC 3339 with a zone, such as 2026-01-31T12:00:00Z")
    try:
        at = datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError) as error:
        raise _bad(name, "expected a time that exists") from error
    if at <= context.now:
        raise RejectError(Code.EXPIRED, "expired before it was read", field=name)
    if at > context.now + context.rules.max_expiry_s:
        raise _bad(name, f"expected at most {context.rules.max_expiry_s:g} s from now")
    return at


def _labels(name: str, value: Any, context: _Context) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad(name, f"expected a map of strings, got {_kind(value)}")
    if len(value) > context.rules.max_labels:
        raise _bad(name, f"expected at most {context.rules.max_labels} labels, got {len(value)}")
    for key, item in value.items():
        if not isinstance(item, str):
            raise _bad(name, f"expected strings, got {_kind(item)} for {key[:32]!a}")
        if not key or max(len(key), len(item)) > MAX_LABEL_CHARS or _UNPRINTABLE.search(key + item):
            raise _bad(name, f"expected up to {MAX_LABEL_CHARS} printable characters in keys (1 or more) and values")
    return dict(value)


_Check = Callable[[str, Any, _Context], Any]
_COMMON: dict[str, _Check] = {"expires_at": _expires_at, "labels": _labels}
_FIELDS: dict[Operation, dict[str, _Check]] = {
    Operation.KEYGEN: {"wallet_id": _id} | _COMMON,
    Operation.SIGN: {
        "key_type": _key_type,
        "wallet_id": _id,
        "network_internal_code": _network_code,
        "tx_id": _tx_id,
        "tx": _tx,
        "derivation_path": _path,
    }
    | _COMMON,
    Operation.RESHARE: {
        "session_id": _id,
        "node_ids": _node_ids,
        "new_threshold": _threshold,
        "key_type": _key_type,
        "wallet_id": _id,
    }
    | _COMMON,
}
OPTIONAL = frozenset({"expires_at", "labels", "derivation_path"})
_MODEL: dict[Operation, Callable[..., Request]] = {
    Operation.KEYGEN: KeygenRequest,
    Operation.SIGN: SignRequest,
    Operation.RESHARE: ReshareRequest,
}


def parse_request(
    operation: Operation, fields: Mapping[str, Any], encoding: ContentType, rules: Rules, now: float
) -> Request:
    """Check a decoded payload and make it a request.

    Args:
        fields: what `codec.decode` returned.
        encoding: how it came: it decides the form of `tx`.
        now: Unix seconds.

    Raises:
        RejectError: `UNKNOWN_FIELD`, `MISSING_FIELD`, `INVALID_FIELD` or `EXPIRED`, naming the field.
    """
    table = _FIELDS[operation]
    for name in fields:
        if name not in table:
            raise _unknown(name, table)
    context = _Context(encoding, rules, now, fields)
    values: dict[str, Any] = {}
    for name, check in table.items():
        if name in fields:
            values[name] = check(name, fields[name], context)
        elif name not in OPTIONAL:
            raise RejectError(Code.MISSING_FIELD, "this field is required", field=name)
    if rules.must_expire and values.get("expires_at") is None:
        reason = (
            "this field is required: the record forgets final events after a while, and a replay must not outlive them"
        )
        raise RejectError(Code.MISSING_FIELD, reason, field="expires_at")
    return _MODEL[operation](**values)


# no form of tx_ids is the widest
_WIDEST = [
    Rules(max_tx_bytes=sys.maxsize, tx_id_form=form, max_expiry_s=sys.maxsize, max_labels=sys.maxsize)
    for form in get_args(TxIdForm)
]


def parse_by_any(operation: Operation, fields: Mapping[str, Any], encoding: ContentType) -> Request:
    """A request by the widest bounds that any daemon may have, whatever the time.

    Raises:
        RejectError: none takes it.
    """
    problems = []
    for rules in _WIDEST:
        try:
            return parse_request(operation, fields, encoding, rules, now=0.0)
        except RejectError as error:
            problems.append(error)
    raise problems[0]


def _unknown(name: str, table: Mapping[str, _Check]) -> RejectError:
    nearest = difflib.get_close_matches(name[:64].lower(), table, n=1)
    known = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(table)}"
    return RejectError(Code.UNKNOWN_FIELD, f"no such field; {known}", field=ascii(name[:64])[1:-1])
