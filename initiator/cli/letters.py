"""Dead letters for people: one in full, in a line, or as JSON. A terminal obeys control characters, so none gets out.

Payload bytes are never shown: fields by name and size, or by value where asked for; what is to be signed and what
was signed only by digest and length.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from initiator.core import codec, deadletter, events
from initiator.core.deadletter import DeadLetter
from initiator.core.model import Operation
from initiator.core.text import plain
from initiator.errors import InitiatorError, RejectError

NODES = "(nodes)"  # parentheses are in no client name
NOTHING = "-"
_NAME_LIMIT = 64  # of an id
_OTHER_TX_ID = (
    "warning: of each sign request make sure that its sender has not asked again under another tx_id: "
    "one id never signs twice, two ids are two payments"
)
# never as they are: what shall be signed, and what the nodes signed
_DIGESTED = frozenset({"tx", "signature", "r", "s", "signature_recovery"})


def as_json(letter: DeadLetter) -> dict[str, Any]:
    """All that a letter says besides its payload."""
    received = letter.original.received_at
    return {
        "sequence": letter.sequence,
        "time": events.format_time(letter.time),
        "client": letter.client,
        "op": letter.operation.value,
        "id": letter.operation_id,
        "code": letter.code,
        "field": letter.field or None,
        "reason": letter.reason,
        "outcome": letter.outcome or None,
        "original": {
            "subject": letter.original.subject,
            "sequence": letter.original_sequence,
            "time": None if received is None else events.format_time(received),
            "headers": dict(letter.original.headers),
        },
    }


def payload_json(letter: DeadLetter, data: bytes, *, values: bool) -> dict[str, Any]:
    """A payload's size, digest and fields: by kind and size, or by value."""
    shown: dict[str, Any] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    try:
        encoding = deadletter.encoding_of(letter)
        fields = codec.decode(encoding, data)
    except RejectError as error:
        return shown | {"undecodable": error.reason}
    shown["content_type"] = encoding.value
    shown["fields"] = {name: size(value) for name, value in fields.items()}
    if values:
        shown["values"] = {name: _value(name, value) for name, value in fields.items()}
    return shown


def size(value: Any) -> str:
    """Kind and size of a field's value, and nothing of it."""
    match value:
        case bytes():
            return f"{len(value)} bytes"
        case str():
            return f"text, {len(value.encode())} bytes"
        case list():
            return f"list of {len(value)}"
        case dict():
            return f"map of {len(value)}"
        case None:
            return "null"
        case _:
            return {"int": "integer", "float": "number", "bool": "boolean"}[type(value).__name__]


def _value(name: str, value: Any) -> Any:
    """A field as it may be shown; bytes, at any depth, by digest and length."""
    if isinstance(value, bytes) or (name in _DIGESTED and isinstance(value, str)):
        return _digest(value)
    if isinstance(value, dict):
        return {key: _value(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(name, item) for item in value]
    return value


def _digest(value: bytes | str) -> dict[str, Any]:
    """Of the bytes that a text stands for, where it is base64; of the text where it is not."""
    raw = value if isinstance(value, bytes) else value.encode()
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return {"sha256_of_text": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    return {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}


def full(letter: DeadLetter, data: bytes, *, values: bool) -> list[str]:
    """One letter, a line a fact."""
    received = letter.original.received_at
    what = "result" if letter.is_result else "request"
    at = f", received {events.format_time(received)}" if received is not None else ""
    facts = [
        ("sequence", str(letter.sequence)),
        ("time", events.format_time(letter.time)),
        ("client", letter.client or NODES),
        ("op", letter.operation.value),
        ("id", letter.operation_id or NOTHING),
        ("code", letter.code or NOTHING),
        ("field", letter.field or NOTHING),
        ("reason", letter.reason or NOTHING),
        *([("outcome", letter.outcome)] if letter.outcome else []),
        (what, f"sequence {letter.original_sequence} on {letter.original.subject or NOTHING}{at}"),
    ]
    return [
        *(f"{name:<10}{plain(text)}" for name, text in facts),
        "headers" + ("" if letter.original.headers else "   none"),
        *_pairs(letter.original.headers.items()),
        *_payload(payload_json(letter, data, values=values)),
    ]


def _payload(shown: Mapping[str, Any]) -> Iterable[str]:
    about = shown.get("content_type") or f"undecodable: {plain(shown['undecodable'])}"
    yield f"payload   {shown['bytes']} bytes, {about}"
    yield f"  sha256  {shown['sha256']}"
    fields = shown.get("values", shown.get("fields", {}))
    yield from _pairs((name, _text(value)) for name, value in fields.items())


def _text(value: Any) -> str:
    if isinstance(value, dict) and value.keys() in ({"sha256", "bytes"}, {"sha256_of_text", "bytes"}):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return value if isinstance(value, str) else repr(value)


def _pairs(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
    return (f"  {plain(name[:64])}: {plain(text)}" for name, text in pairs)


def about(letter: DeadLetter) -> str:
    """A letter in a line about what becomes of it."""
    name = f" {plain(letter.operation_id[:_NAME_LIMIT])}" if letter.operation_id else ""
    return f"{letter.sequence} ({letter.client or NODES} {letter.operation}{name})"


def plan(letters: Sequence[DeadLetter]) -> list[str]:
    """What a replay of all of these does, before it is agreed to: how many of what."""
    kinds = Counter(
        (letter.client or NODES, letter.operation.value, f"{plain(letter.code)} {_told(letter)}".strip())
        for letter in letters
    )
    widths = [max((len(kind[at]) for kind in kinds), default=0) for at in range(2)]
    size = len(str(len(letters)))
    lines = [
        f"  {count:>{size}}  {client.ljust(widths[0])}  {op.ljust(widths[1])}  {why}"
        for (client, op, why), count in sorted(kinds.items())
    ]
    warned = [_OTHER_TX_ID] if any(letter.operation is Operation.SIGN for letter in letters) else []
    return [f"to be published again, as new requests: {len(letters)}", *lines, *warned]


def _told(letter: DeadLetter) -> str:
    return f"(outcome {plain(letter.outcome)})" if letter.outcome else ""


def refusal(error: InitiatorError) -> str:
    """Why not, in one line."""
    where = f"{error.field}: " if error.field else ""
    return plain(f"{error.code} {where}{error.reason}" + (f" ({error.hint})" if error.hint else ""))
