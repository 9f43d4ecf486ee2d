"""Answers to clients' requests on core NATS: concurrent, bounded, in turns between clients, and leaking nothing.

Invariants:
- a bounded number is answered at once, in turns, and so many of each client a second: nobody waits behind another's
  questions, and signing goes on; what one client has waiting is bounded, and what is beyond it is told so;
- who asks on regardless is told no more, since telling would be the harm;
- every other request with a reply subject gets one JSON answer, an error with its code, reason and field among them;
- an error that nobody foresaw answers `INTERNAL` and leaks nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from initiator.bus.connection import Connection, Message
from initiator.core import codec, events, subjects
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, InitiatorError, RejectError, RetryError
from initiator.flow.lane import Gate
from initiator.flow.pace import Pace
from initiator.log import get_logger

log = get_logger()
QUEUE_GROUP = "initiator-query"
MOST_WAITING = 1024  # questions of one client
LONGEST_WAIT_S = 1.5  # for a client's turn by its pace; later it has asked again, and nobody hears the answer
MOST_BYTES = 4096  # no question of ours has a tenth of it
REFUSALS_PER_S = 200.0  # to one client, of questions that nobody looks at
FLOOD_LOG_S = 10.0
CLOSE_S = 1.0
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
        connection: one of its own, so that a flood of questions does not stand before what the others carry.
        concurrency: questions answered at once.
        per_s: questions of one client that are answered a second.
        weight_of: a client's share of turns.
    """

    def __init__(self, connection: Connection, concurrency: int, per_s: float, weight_of: Callable[[str], int]) -> None:
        self._connection = connection
        self._gate = Gate(concurrency, weight_of)
        self._pace = Pace(per_s, time.monotonic)
        self._refusals = Pace(REFUSALS_PER_S, time.monotonic)
        self._floods = Pace(1 / FLOOD_LOG_S, time.monotonic)
        self._waiting: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribe: list[Callable[[], Awaitable[None]]] = []
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
            _, what, client, *kind = message.subject.split(".")
            lane = f"{what}.{client}"  # who asks too much may still cancel
            endpoint = found.get(kind[0]) if by_kind else next(iter(found.values()))
            problem = self._problem(message, client, lane, endpoint, list(found))
            if endpoint is not None and problem is None:
                self._waiting[lane] += 1  # now: many may come before its task has begun
                self._go(self._in_turn(message, client, lane, endpoint, self._pace.take(lane)))
            elif problem is not None:
                self._turn_away(message, client, endpoint, problem)

        subscription = await self._connection.subscribe(subject, on_message, queue=QUEUE_GROUP)
        self._unsubscribe.append(subscription.unsubscribe)

    def _go(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _problem(
        self, message: Message, client: str, lane: str, endpoint: Endpoint | None, kinds: list[str]
    ) -> InitiatorError | None:
        """Why nobody looks at a question; it has cost next to nothing so far."""
        if not subjects.is_client(client):  # injection: a wildcard would read everybody's
            return RejectError(Code.INVALID_SUBJECT, "expected a client's name", field="subject")
        if endpoint is None:
            return RejectError(Code.INVALID_SUBJECT, f"expected {', '.join(kinds)}", field="subject")
        if len(message.data) > MOST_BYTES:  # flood: a megabyte of brackets takes long to read
            reason = f"expected at most {MOST_BYTES} bytes, got {len(message.data)}"
            return RejectError(Code.TOO_LARGE, reason, field="payload")
        if self._waiting[lane] >= MOST_WAITING or self._pace.wait_s(lane) > LONGEST_WAIT_S:
            return RetryError(Code.QUERY_BUSY, "more of your questions wait already than are answered in time")
        return None

    def _turn_away(self, message: Message, client: str, endpoint: Endpoint | None, problem: InitiatorError) -> None:
        if endpoint is not None:
            endpoint.requests += 1
            endpoint.errors += 1
            endpoint.last_error = problem.code.value
        if self._refusals.take_if_due(client):
            self._go(self._say(message, _described(problem), problem.code.value))
        elif self._floods.take_if_due(client):
            log.warning("query.flood", client=client, code=problem.code.value)

    async def _in_turn(self, message: Message, client: str, lane: str, endpoint: Endpoint, wait_s: float) -> None:
        try:
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            async with self._gate.turn(client):
                await self._answer(message, client, endpoint)
        finally:
            self._waiting[lane] -= 1
            if not self._waiting[lane]:
                del self._waiting[lane]

    async def close(self) -> None:
        """Take no more questions, and answer those that were taken, if that is soon done."""
        for unsubscribe in self._unsubscribe:
            with contextlib.suppress(Exception):  # disconnected: nothing comes any more
                await unsubscribe()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)

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
    Code.TOO_LARGE.value: "413",
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
