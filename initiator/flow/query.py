"""Reads for clients: `initiator.query.<client>.{status,history,events}`, answered from the record.

Invariants: a client is told of its own operations only, and an id of somebody else's looks like one that nobody
has; nothing sealed is shown.

Requests and answers are JSON. An empty request body counts as `{}`.
"""

from __future__ import annotations

import json
from typing import Any

from initiator.bus.errors import NotFoundError
from initiator.bus.jetstream import JetStream, Stored
from initiator.config.schema import Settings
from initiator.core import codec, events, subjects
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, RejectError
from initiator.flow.answering import Answering, id_of, operation_of, refuse_unknown
from initiator.flow.clock import Clock
from initiator.record import CONTENT_TYPE, Entry, Record

# replay: the bytes of `signed` never leave the daemon's account, only that it happened
_SHOWN_OF_SEALED = ("op", "id", "client", "state", "attempt", "time", "request_seq", "expires_at", "event_id", "awaits")


PAGE_BYTES = 262_144  # a quarter of nats-server's own max_payload


class QueryService:
    """Answers clients' questions about their operations."""

    def __init__(self, answering: Answering, js: JetStream, record: Record, settings: Settings, clock: Clock) -> None:
        self._answering = answering
        self._js = js
        self._record = record
        self._page_size = settings.query.page_size
        self._clock_skew_s = settings.limits.clock_skew_s
        self._clock = clock

    async def start(self) -> None:
        """Begin to answer; every replica takes its share."""
        # the subject, which NATS guards, says who asks; a `client` in the body would prove nothing
        answers = {"status": self._status, "history": self._history, "events": self._events}
        await self._answering.serve("initiator.query.*.*", answers)

    async def _status(self, client: str, body: dict[str, Any]) -> dict[str, Any]:
        """The last event of one operation, or null; and with `request_seq` what became of that very request.

        `rejection`: with what it was refused, or null. `settled`: nothing more comes of it than this event. A request
        may have been refused for its id: then `request_seq` alone names it.
        """
        refuse_unknown(body, ("op", "id", "request_seq"))
        operation = operation_of(body)
        sequence = _sequence(body, "request_seq")
        answer: dict[str, Any] = {"event": None}
        entry: Entry | None = None
        if "id" in body or "request_seq" not in body:
            entry = await self._own(client, operation, id_of(body))
        if "request_seq" in body:
            refused = await self._record.refusal(client, operation, sequence)
            answer["rejection"] = shown(refused) if refused else None
            if entry is not None:
                answer["settled"] = settled = await self._is_settled(client, entry, sequence)
                # what it ended with is on record before it leaves the queue
                entry = await self._own(client, operation, id_of(body)) if settled else entry
        if entry is not None:
            answer["event"] = shown(entry.stored)
        return answer

    async def _own(self, client: str, operation: Operation, operation_id: str) -> Entry | None:
        entry = await self._record.last(operation, operation_id)
        return entry if entry is not None and entry.event.client == client else None

    async def _is_settled(self, client: str, entry: Entry, sequence: int) -> bool:
        """Whether a request has ended with its operation: it may still wait, to go on after this very failure."""
        if not entry.event.final:
            return False
        if entry.event.request_seq == sequence:
            return True
        try:
            return await self._js.get(subjects.requests_stream(client), sequence) is None
        except NotFoundError:
            return True

    async def _history(self, client: str, body: dict[str, Any]) -> dict[str, Any]:
        """One page of the events of one operation, oldest first; `next` continues there."""
        refuse_unknown(body, ("op", "id", "after"))
        operation, operation_id = operation_of(body), id_of(body)
        return await self._page(subjects.event(client, operation, operation_id, ">"), _sequence(body, "after"))

    async def _events(self, client: str, body: dict[str, Any]) -> dict[str, Any]:
        """One page of a client's events and rejections; `next` continues there.

        Beginning after the sequence `after`, and not before the time `since`.
        """
        refuse_unknown(body, ("after", "since"))
        after, since = _sequence(body, "after"), 0.0
        if "since" in body:
            since = _moment(body, "since", self._clock.now())
            after = max(after, await self._record.first_since(since - self._clock_skew_s) - 1)
        return await self._page(f"initiator.*.{client}.>", after, since)

    async def _page(self, filter_: str, after: int, since: float = 0.0) -> dict[str, Any]:
        page: list[dict[str, Any]] = []
        size = 0
        async for stored in self._record.scan(filter_, after + 1):
            if stored.time < since:  # a leader whose clock is ahead came before one whose clock is behind
                continue
            one = shown(stored)
            size += len(json.dumps(one))
            if page and size > PAGE_BYTES:
                break
            page.append(one)
            if len(page) >= self._page_size:
                break
        return {"events": page, "next": page[-1]["sequence"] if page else after}


def _sequence(body: dict[str, Any], name: str) -> int:
    value = body.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise RejectError(Code.INVALID_FIELD, "expected a sequence of 0 or more", field=name)
    return value


def _moment(body: dict[str, Any], name: str, now: float) -> float:
    try:
        return events.parse_when(str(body[name]), now)
    except ValueError as error:
        raise RejectError(Code.INVALID_FIELD, str(error), field=name) from error


def shown(stored: Stored) -> dict[str, Any]:
    """An event as clients may see it, with its place in the record."""
    fields = codec.decode(codec.content_type(stored.headers.get(CONTENT_TYPE)), stored.data)
    if fields.get("state") in events.SEALED:
        fields = {name: fields[name] for name in _SHOWN_OF_SEALED if name in fields}
    plain: dict[str, Any] = json.loads(codec.encode(ContentType.JSON, fields | {"sequence": stored.sequence}))
    return plain
