"""Answers to clients' requests on core NATS: concurrent, bounded, and leaking nothing.

Invariants: a bounded number is answered at once; every request with a reply subject gets one JSON answer, an error
with its code, reason and field among them; an error that nobody foresaw answers `INTERNAL` and leaks nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from initiator.bus.connection import Connection, Message
from initiator.core import codec, events
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, InitiatorError, RejectError
from initiator.log import get_logger

log = get_logger()
QUEUE_GROUP = "initiator-query"
Answer = Callable[[list[str], dict[str, Any]], Awaitable[dict[str, Any]]]


class Answering:
    """Serves subjects with functions from the subject's tokens and a JSON body to a JSON answer."""

    def __init__(self, connection: Connection, concurrency: int) -> None:
        self._connection = connection
        self._places = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, subject: str, answer: Answer) -> None:
        """Answer on a subject, sharing it with the other replicas."""

        async def on_message(message: Message) -> None:
            if not message.reply:
                return
            await self._places.acquire()
            task = asyncio.create_task(self._answer(message, answer))
            self._tasks.add(task)
            task.add_done_callback(self._done)

        await self._connection.subscribe(subject, on_message, queue=QUEUE_GROUP)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._places.release()

    async def _answer(self, message: Message, answer: Answer) -> None:
        try:
            body = codec.decode(ContentType.JSON, message.data) if message.data else {}
            said = await answer(message.subject.split("."), body)
        except InitiatorError as error:
            said = {"error": {"code": error.code.value, "reason": error.reason, "field": error.field}}
        except Exception as error:
            log.exception("query.failed", subject=message.subject, error_type=type(error).__name__)
            said = {"error": {"code": "INTERNAL", "reason": "see the daemon's log", "field": None}}
        try:
            data = json.dumps(said, separators=(",", ":")).encode()
            await self._connection.publish(message.reply, data, {"Content-Type": ContentType.JSON.value})
        except InitiatorError as error:
            log.warning("query.unanswered", subject=message.subject, code=error.code.value)


def refuse_unknown(body: Mapping[str, Any], known: Collection[str]) -> None:
    """A misspelt field must not look like one that was heeded; raises RejectError."""
    for name in body:
        if name not in known:
            raise RejectError(
                Code.UNKNOWN_FIELD, f"no such field; known are {', '.join(known)}", field=ascii(name[:64])[1:-1]
            )


def operation_of(body: dict[str, Any]) -> Operation:
    """The operation that a body names; raises RejectError."""
    try:
        return Operation(str(body.get("op")))
    except ValueError:
        raise RejectError(Code.INVALID_FIELD, "expected keygen, sign or reshare", field="op") from None


def id_of(body: dict[str, Any]) -> str:
    """The operation id that a body names; raises RejectError."""
    operation_id = body.get("id")
    # injection: an id with a wildcard would read across clients
    if not isinstance(operation_id, str) or not events.is_id(operation_id):
        raise RejectError(Code.INVALID_FIELD, "expected an operation id", field="id")
    return operation_id
