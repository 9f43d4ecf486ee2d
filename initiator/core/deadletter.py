"""Dead letters: the form in which requests that were refused or gave out, and unusable results, are kept and chosen.

Invariants:
- the payload is byte for byte what came;
- the headers say why (code, reason, field), when, and from where; the subject ends in the original's sequence;
- every header of the sender's carries a prefix, so that none passes for ours, and none steers a stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from initiator.core import codec, events, identity, subjects
from initiator.core.events import Event, Outcome
from initiator.core.lifecycle import REOPEN
from initiator.core.model import ContentType, Operation
from initiator.errors import InitiatorError, RejectError

CODE, REASON, FIELD = "Initiator-Code", "Initiator-Reason", "Initiator-Field"
OUTCOME, EVENT = "Initiator-Outcome", "Initiator-Event"  # of an operation that was accepted and gave out
SUBJECT, RECEIVED, TIME = "Initiator-Subject", "Initiator-Received", "Initiator-Time"
ORIGINAL = "Original-"

_VALUE_LIMIT = 1024
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110: a header's name; clients of NATS send no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """Where a message came from before it became a dead letter.

    Attributes:
        received_at: when its stream stored it, Unix seconds; None in letters of versions that did not say.
    """

    subject: str
    headers: Mapping[str, str]
    received_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What a dead letter says besides its payload.

    Attributes:
        sequence: its own, in the stream of dead letters.
        time: when it was stored there, Unix seconds by the server's clock.
        client: who asked; None for a result of the nodes.
        code, reason, field: as in the refusal; empty where there is none.
        outcome, event_id: only of a request that was accepted and gave out: how, and in which event.
        original_sequence: of the request or result in its own stream.
        operation_id: what its payload names, maybe no valid id; None where it names none, or nobody has looked.
    """

    sequence: int
    time: float
    client: str | None
    operation: Operation
    code: str
    reason: str
    field: str
    outcome: str
    event_id: str
    original_sequence: int
    original: Original
    operation_id: str | None = None

    @property
    def is_result(self) -> bool:
        return self.client is None

    def request_headers(self) -> dict[str, str]:
        """The sender's end-to-end headers, for a replay; `Nats-…` ones were for that one publish.

        Where surely nothing was signed, the replay opens the operation again.
        """
        left_out = ("nats-", REOPEN.lower())
        kept = {name: value for name, value in self.original.headers.items() if not name.lower().startswith(left_out)}
        return kept | ({REOPEN: self.event_id} if self.outcome == Outcome.NONE and self.event_id else {})


MAX_KEPT_BYTES = 32_768  # a server takes 64 KiB of headers, ours and the sender's together
_HEADER_BYTES = 4  # colon, space and line end


def headers_of(original: Original, error: InitiatorError, now: float, ended: Event | None = None) -> dict[str, str]:
    """The headers of a new dead letter.

    Args:
        ended: the `failed` event of an operation that gave out.
    """
    kept: dict[str, str] = {}
    left = MAX_KEPT_BYTES
    for name, value in original.headers.items():
        # poison: what no client library would send again, or no server take, must not keep a refusal from being stored
        left -= len(ORIGINAL) + len(name.encode()) + len(value.encode()) + _HEADER_BYTES
        if left >= 0 and _TOKEN.fullmatch(name):
            kept[f"{ORIGINAL}{name}"] = value
    said = {
        CODE: error.code.value,
        REASON: _one_line(error.reason),
        FIELD: _one_line(error.field or ""),
        SUBJECT: original.subject,
        TIME: events.format_time(now),
    }
    if original.received_at is not None:
        said[RECEIVED] = events.format_time(original.received_at)
    if ended is not None and ended.outcome is not None:
        said |= {OUTCOME: ended.outcome.value, EVENT: ended.event_id}
    return kept | said


def read(subject: str, sequence: int, time: float, headers: Mapping[str, str]) -> DeadLetter | None:
    """A stored message as a dead letter; None where it is none of ours."""
    parsed = subjects.parse_dead(subject)
    if parsed is None:
        return None
    sender = {name.removeprefix(ORIGINAL): value for name, value in headers.items() if name.startswith(ORIGINAL)}
    return DeadLetter(
        sequence=sequence,
        time=time,
        client=parsed.client,
        operation=parsed.operation,
        code=headers.get(CODE, ""),
        reason=headers.get(REASON, ""),
        field=headers.get(FIELD, ""),
        outcome=headers.get(OUTCOME, ""),
        event_id=headers.get(EVENT, ""),
        original_sequence=parsed.sequence,
        original=Original(
            subject=headers.get(SUBJECT, ""), headers=sender, received_at=_time_or_none(headers.get(RECEIVED))
        ),
    )


def encoding_of(letter: DeadLetter) -> ContentType:
    """How its payload claims to be written. Raises RejectError for a Content-Type that nobody reads."""
    if letter.is_result:
        return ContentType.JSON  # the nodes write no other
    return codec.content_type(letter.original.headers.get("Content-Type"))


def named_in(letter: DeadLetter, data: bytes) -> str | None:
    """The wallet_id, tx_id or session_id that a payload names: a stranger's text, not checked. None: it names none."""
    try:
        return identity.named(letter.operation, encoding_of(letter), data)
    except RejectError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant; a filter that is not given takes all.

    Attributes:
        operation_id: as the payload names it; only who has the payload can choose by it.
        since, until: Unix seconds; from the first, up to and without the second.
        results: only results of the nodes, which no client asked for.
    """

    client: str | None = None
    operation: Operation | None = None
    operation_id: str | None = None
    code: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None
    results: bool = False

    @property
    def subject_filter(self) -> str:
        """What of it the server can choose by itself."""
        client = subjects.NODE_RESULTS if self.results else self.client or "*"
        return f"initiator.dead.{client}.{self.operation or '*'}.*"

    def takes(self, letter: DeadLetter) -> bool:
        """By all but the id."""
        return (
            (letter.is_result or not self.results)
            and self.client in (None, letter.client)
            and self.operation in (None, letter.operation)
            and self.code in (None, letter.code)
            and self.outcome in (None, letter.outcome)
            and (self.since is None or letter.time >= self.since)
            and (self.until is None or letter.time < self.until)
        )


@dataclass(slots=True)
class Page:
    """The oldest letters of a selection up to a limit, and how many more there are."""

    limit: int
    letters: list[DeadLetter] = field(default_factory=list)
    more: int = 0

    def add(self, letter: DeadLetter) -> None:
        if len(self.letters) < self.limit:
            self.letters.append(letter)
        else:
            self.more += 1


def _time_or_none(text: str | None) -> float | None:
    try:
        return events.parse_time(text) if text else None
    except ValueError:
        return None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_VALUE_LIMIT]
