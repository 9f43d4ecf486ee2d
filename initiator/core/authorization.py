"""Asking authorizers, and their answers: what travels between the daemon and them.

An authorizer signs what mpcium's nodes verify: `message.authorizer_bytes`, which hold our own signature. It is shown
more than it signs: client, path, deadline, labels and the requester's own signature are covered by neither, so what an
authorizer says yes to rests on our word for these; the requester's signature is there to be checked.

Request on `initiator.authorize.<authorizer>.<op>.<id>`, again and again until it is answered or over; answer as a NATS
request on `initiator.authorized.<authorizer>.<op>.<id>`: mpcium's own `{authorizer_id, signature}`, or
`{authorizer_id, denied}`. Whoever holds the operation replies.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from initiator.core import codec, events, message
from initiator.core.message import ParsedEvent
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, RejectError

VERSION = 1
MAX_REASON_CHARS = 256
_ID = re.compile(r"[a-z0-9_-]{1,64}")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def is_authorizer(text: str) -> bool:
    """Whether a text can be an authorizer's id: mpcium's are in lower case, ours are also one token of a subject."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What one authorizer is asked.

    Attributes:
        message: the event as the nodes will receive it, but for authorizers' signatures.
        expires_at: when the daemon gives up, Unix seconds.
        requester: the client's own signature and what it covers besides; None: it has none.
        policy: version and rule that let the client have this.
        missing: whose answers are not there yet.
    """

    authorizer_id: str
    operation: Operation
    operation_id: str
    client: str
    message: bytes
    expires_at: float
    labels: Mapping[str, str] = field(default_factory=dict)
    requester: Mapping[str, Any] | None = None
    policy: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def parsed(self) -> ParsedEvent:
        """The event in it; raises RejectError."""
        return message.parse_event(self.operation, self.message)

    def to_sign(self) -> bytes:
        """The bytes that the authorizer signs, as mpcium's nodes verify them; raises RejectError."""
        parsed = self.parsed()
        return message.authorizer_bytes(parsed.request, parsed.signature)


def encode_asking(asking: Asking) -> bytes:
    """As JSON; bytes in base64."""
    return codec.encode(
        ContentType.JSON,
        {
            "version": VERSION,
            "authorizer_id": asking.authorizer_id,
            "op": asking.operation.value,
            "id": asking.operation_id,
            "client": asking.client,
            "message": asking.message,
            "expires_at": events.format_time(asking.expires_at),
            "labels": dict(asking.labels),
            "requester": dict(asking.requester) if asking.requester is not None else None,
            "policy": dict(asking.policy),
            "missing": list(asking.missing),
        },
    )


def decode_asking(data: bytes) -> Asking:
    """Read what an authorizer is asked; fields that this version does not know are ignored.

    Raises:
        RejectError: it is none.
    """
    fields = codec.decode(ContentType.JSON, data)
    try:
        if fields["version"] != VERSION:
            raise _bad("version", f"expected {VERSION}")
        requester = fields["requester"]
        return Asking(
            authorizer_id=_text(fields, "authorizer_id"),
            operation=Operation(fields["op"]),
            operation_id=_text(fields, "id"),
            client=_text(fields, "client"),
            message=base64.b64decode(_text(fields, "message"), validate=True),
            expires_at=events.parse_time(fields["expires_at"]),
            labels={str(key): str(value) for key, value in fields["labels"].items()},
            requester=dict(requester) if requester is not None else None,
            policy={str(key): str(value) for key, value in fields["policy"].items()},
            missing=tuple(str(one) for one in fields["missing"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad("asking", f"not what an authorizer is asked: {type(error).__name__}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """One authorizer's answer: a signature, or why it says no."""

    authorizer_id: str
    signature: bytes = b""
    denied: str | None = None


def encode_answer(answer: Answer) -> bytes:
    """As JSON."""
    said = (
        {"signature": base64.b64encode(answer.signature).decode()}
        if answer.denied is None
        else {"denied": answer.denied}
    )
    return json.dumps({"authorizer_id": answer.authorizer_id} | said).encode()


def is_reason(text: str) -> bool:
    """Whether a denial may give it: 1 to `MAX_REASON_CHARS` printable characters, not all of them blanks."""
    return bool(text.strip()) and len(text) <= MAX_REASON_CHARS and _UNPRINTABLE.search(text) is None


def decode_answer(data: bytes) -> Answer:
    """Read an answer strictly.

    Raises:
        RejectError: `UNDECODABLE`, naming the field.
    """
    fields = codec.decode(ContentType.JSON, data)
    if fields.keys() == {"authorizer_id", "denied"}:
        reason = _text(fields, "denied")
        if not is_reason(reason):
            raise _bad("denied", f"expected 1 to {MAX_REASON_CHARS} printable characters")
        return Answer(_text(fields, "authorizer_id"), denied=reason)
    if fields.keys() != {"authorizer_id", "signature"}:
        raise _bad("answer", "expected authorizer_id and signature, or authorizer_id and denied")
    try:
        signature = base64.b64decode(_text(fields, "signature"), validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if not signature or base64.b64encode(signature).decode() != fields["signature"]:
        raise _bad("signature", "expected canonical base64")
    return Answer(_text(fields, "authorizer_id"), signature)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise _bad(name, f"expected a string, got {type(value).__name__}")
    return value


def _bad(name: str, reason: str) -> RejectError:
    return RejectError(Code.UNDECODABLE, reason, field=name)
