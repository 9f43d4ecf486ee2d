"""Reads for clients: `initiator.query.<client>.{status,history,events}`, answered from the record.

Invariants: a client is told of its own operations only, and an id of somebody else's looks like one that nobody
has; nothing sealed is shown; queries are answered concurrently, a bounded number at once; an error that nobody
foresaw answers `INTERNAL` and leaks nothing.

Requests and answers are JSON. An empty request body counts as `{}`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from initiator.bus.connection import Connection, Message
from initiator.bus.jetstream import Stored
from initiator.config.schema import QuerySettings
from initiator.core import codec, events, subjects
from initiator.core.events import State
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, InitiatorError, RejectError
from initiator.log import get_logger
from initiator.record import CONTENT_TYPE, Record

log = get_logger()
QUEUE_GROUP = "initiator-query"
# replay: the bytes of `signed` never leave the daemon's account, only that it happened
_SHOWN_OF_SEALED = ("op", "id", "client", "state", "attempt", "time", "request_seq", "expires_at", "event_id")


class QueryService:
    """Answers clients' questions about their operations."""

    def __init__(self, connection: Connection, record: Record, settings: QuerySettings) -> None:
        self._connection = connection
        self._record = record
        self._page_size = settings.page_size
        self._places = asyncio.Semaphore(settings.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = {"status": self._status, "history": self._history, "events": self._events}

    async def start(self) -> None:
        """Begin to answer; every replica takes its share."""
        await self._connection.subscribe("initiator.query.*.*", self._on_query, queue=QUEUE_GROUP)

    async def _on_query(self, message: Message) -> None:
        if not message.reply:
            return
        await self._places.acquire()
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._places.release()

    async def _answer(self, message: Message) -> None:
        # the subject, which NATS guards, says who asks; a `client` in the body would prove nothing
        _, _, client, kind = message.subject.split(".")
        try:
            answer = await self._answers_for(kind)(client, _body(message.data))
        except InitiatorError as error:
            answer = {"error": {"code": error.code.value, "reason": error.reason, "field": error.field}}
        except Exception as error:
            log.exception("query.failed", kind=kind, client=client, error_type=type(error).__name__)
            answer = {"error": {"code": "INTERNAL", "reason": "see the daemon's log", "field": None}}
        try:
            data = json.dumps(answer, separators=(",", ":")).encode()
            await self._connection.publish(message.reply, data, {"Content-Type": ContentType.JSON.value})
        except InitiatorError as error:
            log.warning("query.unanswered", kind=kind, client=client, code=error.code.value)

    def _answers_for(self, kind: str) -> Any:
        try:
            return self._answers[kind]
        except KeyError:
            raise RejectError(Code.INVALID_SUBJECT, f"expected {', '.join(self._answers)}", field="subject") from None

    async def _status(self, client: str, body: dict[str, Any]) -> dict[str, Any]:
        """The last event of one operation, or `{"event": null}`."""
        operation, operation_id = _operation(body), _id(body)
        entry = await self._record.last(operation, operation_id)
        if entry is None or entry.event.client != client:
            return {"event": None}
        return {"event": _shown(entry.stored)}

    async def _history(self, client: str, body: dict[str, Any]) -> dict[str, Any]:
        """All events of one operation, oldest first."""
        operation, operation_id = _operation(body), _id(body)
        return {"events": await self._page(subjects.event(client, operation, operation_id, ">"), 1)}

    async def _events(self, client: str, body: dict[str, Any]) -> dict[str, Any]:
        """One page of a client's events and rejections after the stream sequence `after`; `next` continues there."""
        after = body.get("after", 0)
        if isinstance(after, bool) or not isinstance(after, int) or not 0 <= after < 2**63:
            raise RejectError(Code.INVALID_FIELD, "expected a sequence of 0 or more", field="after")
        found = await self._page(f"initiator.*.{client}.>", after + 1)
        return {"events": found, "next": found[-1]["sequence"] if found else after}

    async def _page(self, filter_: str, sequence: int) -> list[dict[str, Any]]:
        page: list[dict[str, Any]] = []
        async for stored in self._record.scan(filter_, sequence):
            page.append(_shown(stored))
            if len(page) >= self._page_size:
                break
        return page


def _shown(stored: Stored) -> dict[str, Any]:
    """An event as clients may see it, with its place in the record."""
    fields = codec.decode(codec.content_type(stored.headers.get(CONTENT_TYPE)), stored.data)
    if fields.get("state") == State.SIGNED:
        fields = {name: fields[name] for name in _SHOWN_OF_SEALED}
    plain: dict[str, Any] = json.loads(codec.encode(ContentType.JSON, fields | {"sequence": stored.sequence}))
    return plain


def _body(data: bytes) -> dict[str, Any]:
    return codec.decode(ContentType.JSON, data) if data else {}


def _operation(body: dict[str, Any]) -> Operation:
    try:
        return Operation(str(body.get("op")))
    except ValueError:
        raise RejectError(Code.INVALID_FIELD, "expected keygen, sign or reshare", field="op") from None


def _id(body: dict[str, Any]) -> str:
    operation_id = body.get("id")
    # injection: an id with a wildcard would read across clients
    if not isinstance(operation_id, str) or not events.is_id(operation_id):
        raise RejectError(Code.INVALID_FIELD, "expected an operation id", field="id")
    return operation_id
