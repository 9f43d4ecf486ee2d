"""The events of an operation: the record, the audit trail and what clients see, all the same bytes.

Invariants:
- every event names its operation, id, client, attempt, time and the digest of what was asked, so that the last
  event alone decides what may follow;
- an `event_id` is unique to one intended write: found in the record it proves that this write took effect;
- the bytes of `authorizing` and `signed` are worth a replay: these live on subjects that are never republished.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from initiator.core import codec, subjects
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, RejectError


class State(StrEnum):
    """What an event says about its operation."""

    ACCEPTED = "accepted"
    AUTHORIZING = "authorizing"
    SIGNED = "signed"
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"


FINAL = frozenset({State.COMPLETED, State.FAILED})
SEALED = frozenset({State.AUTHORIZING, State.SIGNED})
"""States whose events hold our signature: never republished."""


class Outcome(StrEnum):
    """What a failed operation's caller may do."""

    NONE = "none"  # surely nothing was or will be signed: may be retried under any id
    UNKNOWN = "unknown"  # the nodes may have signed or may yet: never retry under another id


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of one operation.

    Attributes:
        attempt: number of the publication to the nodes that it belongs to, 1 for the first.
        time: when it was written, Unix seconds by the writer's clock; informative only.
        request_seq: sequence of the request (in the request stream) that claimed the id.
        request_digest: SHA-256 (hex) of what was asked; see `initiator.core.identity`.
        expires_at: the operation's deadline, Unix seconds.
        body: what belongs to this state alone.
    """

    operation: Operation
    operation_id: str
    client: str
    state: State
    attempt: int
    time: float
    request_seq: int
    request_digest: str
    expires_at: float
    event_id: str
    content_type: ContentType
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        token = subjects.sealed(self.state) if self.state in SEALED else self.state.value
        return subjects.event(self.client, self.operation, self.operation_id, token)

    @property
    def final(self) -> bool:
        return self.state in FINAL

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of a `failed` event, None for all others."""
        return Outcome(self.body["outcome"]) if self.state is State.FAILED else None


_LAST_SECOND = 253_370_764_800.0  # 9999-01-01; as far before 1970 it is the year -6059, which no text names
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?")
_UNIT_S = (86_400, 3_600, 60, 1)
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_id(text: str) -> bool:
    """Whether a text from outside can be an operation id at all; anything else must not reach a subject."""
    return _ID.fullmatch(text) is not None


def format_time(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)  # or a time read back would lose one now and then
    return f"{datetime.fromtimestamp(whole, UTC).replace(tzinfo=None).isoformat()}.{milliseconds:03d}Z"


def parse_time(text: str) -> float:
    """Unix seconds; raises ValueError for what is no time, or none that `format_time` could write."""
    seconds = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    if not -_LAST_SECOND < seconds < _LAST_SECOND:
        raise ValueError("expected a time before the year 9999")
    return seconds


def parse_when(text: str, now: float) -> float:
    """Unix seconds of an RFC 3339 time, or of a duration such as `90s`, `2h` or `1d12h` before `now`.

    Raises:
        ValueError: neither, with what was expected.
    """
    duration = _DURATION.fullmatch(text)
    if text and duration:
        return now - sum(int(count) * unit for count, unit in zip(duration.groups(), _UNIT_S, strict=True) if count)
    try:
        at = datetime.fromisoformat(text.upper())
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(
            f"expected RFC 3339 with a zone, such as 2026-01-31T12:00:00Z, or a duration such as 2h or 1d12h, "
            f"got {text[:64]!a}"
        )
    return at.timestamp()


def encode(event: Event) -> bytes:
    """The bytes of an event, in its own content type."""
    return codec.encode(
        event.content_type,
        {
            "op": event.operation.value,
            "id": event.operation_id,
            "client": event.client,
            "state": event.state.value,
            "attempt": event.attempt,
            "time": format_time(event.time),
            "request_seq": event.request_seq,
            "request_digest": event.request_digest,
            "expires_at": format_time(event.expires_at),
            "event_id": event.event_id,
            **event.body,
        },
    )


def decode(content_type: ContentType, data: bytes) -> Event:
    """Read an event back from the record; fields that this version does not know stay in `body`.

    Raises:
        RejectError: these bytes are no event of ours.
    """
    fields = codec.decode(content_type, data)
    try:
        return Event(
            operation=Operation(fields.pop("op")),
            operation_id=fields.pop("id"),
            client=fields.pop("client"),
            state=State(fields.pop("state")),
            attempt=fields.pop("attempt"),
            time=parse_time(fields.pop("time")),
            request_seq=fields.pop("request_seq"),
            request_digest=fields.pop("request_digest"),
            expires_at=parse_time(fields.pop("expires_at")),
            event_id=fields.pop("event_id"),
            content_type=content_type,
            body=fields,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RejectError(Code.UNDECODABLE, f"not an event of this product: {type(error).__name__}") from error
