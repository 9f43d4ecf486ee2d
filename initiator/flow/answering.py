"""Answers to clients' requests on core NATS: concurrent, bounded, in turns between clients, and leaking nothing.

Invariants:
- a bounded number is answered at once, in turns: nobody waits behind another's questions; what one client has waiting
  is bounded, and what is beyond it is told so at once;
- every request with a reply subject gets one JSON answer, an error with its code, reason and field among them;
- an error that nobody foresaw answers `INTERNAL` and leaks nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from initiator.bus.connection import Connection, Message
from initiator.core import codec, events, subjects
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, InitiatorError, RejectError, RetryError
from initiator.flow.lane import Gate
from initiator.log import get_logger

log = get_logger()
QUEUE_GROUP = "initiator-query"
MOST_WAITING = 1024  # questions of one client, for each place in which one is answered at once: plenty
INTERNAL = "INTERNAL"
Answer = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""From a client's name and a JSON body to a JSON answer."""


@dataclass(slots=True)
class Endpoint:
    """One kind of question, and what came of it so far, as NATS' services count it.

    Attributes:
        processing_ns: nanoseconds in which it was worked on, waiting left out.
        last_error: its code alone.
    """

    name: str
    subject: str
    answer: Answer
    requests: int = 0
    errors: int = 0
    last_error: str = ""
    processing_ns: int = 0


class Answering:
    """Serves subjects with functions.

    Args:
        concurrency: questions answered at once.
        weight_of: a client's share of turns.
    """

    def __init__(self, connection: Connection, concurrency: int, weight_of: Callable[[str], int]) -> None:
        self._connection = connection
        self._gate = Gate(concurrency, weight_of)
        self._waiting: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.endpoints: list[Endpoint] = []

    async def serve(self, subject: str, answers: Mapping[str, Answer]) -> None:
        """Answer on a subject, sharing it with the other replicas.

        Args:
            subject: `initiator.<what>.*`, the client last; or with one token more, which says which answer.
            answers: by that token; where there is none, the only one.
        """
        by_kind = subject.endswith(".*.*")
        found = {kind: Endpoint(kind, subject[:-1] + kind if by_kind else subject, do) for kind, do in answers.items()}
        self.endpoints += found.values()

        async def on_message(message: Message) -> None:
            if not message.reply:
                return
            _, _, client, *kind = message.subject.split(".")
            endpoint = found.get(kind[0]) if by_kind else next(iter(found.values()))
            task = asyncio.create_task(self._serve(message, client, endpoint, list(found)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await self._connection.subscribe(subject, on_message, queue=QUEUE_GROUP)

    async def _serve(self, message: Message, client: str, endpoint: Endpoint | None, kinds: list[str]) -> None:
        if not subjects.is_client(client):  # injection: a wildcard would read everybody's
            await self._refuse(message, RejectError(Code.INVALID_SUBJECT, "expected a client's name", field="subject"))
        elif endpoint is None:
            reason = f"expected {', '.join(kinds)}"
            await self._refuse(message, RejectError(Code.INVALID_SUBJECT, reason, field="subject"))
        elif self._waiting[client] >= MOST_WAITING:
            reason = f"{MOST_WAITING} questions of yours wait already"
            await self._refuse(message, RetryError(Code.QUERY_BUSY, reason))
        else:
            await self._in_turn(message, client, endpoint)

    async def _in_turn(self, message: Message, client: str, endpoint: Endpoint) -> None:
        self._waiting[client] += 1
        try:
            async with self._gate.turn(client):
                await self._answer(message, client, endpoint)
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]

    async def _answer(self, message: Message, client: str, endpoint: Endpoint) -> None:
        began = time.perf_counter_ns()
        try:
            body = codec.decode(ContentType.JSON, message.data) if message.data else {}
            said, problem = await endpoint.answer(client, body), ""
        except InitiatorError as error:
            said, problem = _described(error), error.code.value
        except Exception as error:
            log.exception("query.failed", subject=message.subject, error_type=type(error).__name__)
            said = {"error": {"code": INTERNAL, "reason": "see the daemon's log", "field": None}}
            problem = INTERNAL
        endpoint.requests += 1
        endpoint.processing_ns += time.perf_counter_ns() - began
        if problem:
            endpoint.errors += 1
            endpoint.last_error = problem
        await self._say(message, said, problem)

    async def _refuse(self, message: Message, error: InitiatorError) -> None:
        await self._say(message, _described(error), error.code.value)

    async def _say(self, message: Message, said: dict[str, Any], problem: str) -> None:
        headers = {"Content-Type": ContentType.JSON.value}
        if problem:  # as clients of NATS' services read it
            headers |= {"Nats-Service-Error": problem, "Nats-Service-Error-Code": _STATUS.get(problem, "400")}
        try:
            data = json.dumps(said, separators=(",", ":")).encode()
            await self._connection.publish(message.reply, data, headers)
        except InitiatorError as error:
            log.warning("query.unanswered", subject=message.subject, code=error.code.value)


_STATUS = {
    INTERNAL: "500",
    Code.BUS_UNAVAILABLE.value: "503",
    Code.QUERY_BUSY.value: "429",
    Code.NOT_FOUND.value: "404",
    Code.TOO_LATE.value: "409",
}


def _described(error: InitiatorError) -> dict[str, Any]:
    return {"error": {"code": error.code.value, "reason": error.reason, "field": error.field}}


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
