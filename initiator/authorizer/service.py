"""An authorizer as a service: it hears what it is asked, decides by its rules, answers, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from initiator.authorizer.desk import Case, Decision, Desk
from initiator.bus.connection import Connection, Handler, Message
from initiator.bus.refusals import refuses
from initiator.core import authorization, subjects
from initiator.core.authorization import Answer
from initiator.errors import Code, HaltError, InitiatorError, RejectError
from initiator.log import get_logger

log = get_logger()
REPLY_S = 5.0
MOST_AT_ONCE = 64
FORGETFUL = (
    "no file is configured (decisions): what is signed here is forgotten at the end of this process, and another "
    "request may then be signed under the same id"
)


async def listen(connection: Connection, authorizer_id: str, on_asking: Handler) -> None:
    """Hear what an authorizer is asked.

    Raises:
        HaltError: `BUS_DENIED`: this login may not.
        RetryError: NATS cannot be reached.
    """
    subject = subjects.authorize(authorizer_id, "*", "*")
    await connection.subscribe(subject, on_asking)
    if await refuses(connection, subject):
        raise _denied(authorizer_id, f"NATS does not let this login listen to {subject}")


def _denied(authorizer_id: str, reason: str) -> HaltError:
    needs = f"{subjects.authorize(authorizer_id, '*', '*')}, answer on {subjects.authorized(authorizer_id, '*', '*')}"
    return HaltError(Code.BUS_DENIED, reason, hint=f"it must listen to {needs}: docs/authorizers.md")


async def reply_to(connection: Connection, case: Case, answer: Answer) -> dict[str, Any]:
    """Send an answer; returns what the daemon says of it, empty where nobody holds the operation now.

    An answer that nobody took is asked for again.

    Raises:
        HaltError: `BUS_DENIED`: this login may not answer.
    """
    asking = case.asking
    subject = subjects.authorized(asking.authorizer_id, asking.operation, asking.operation_id)
    try:
        reply = await connection.request(subject, authorization.encode_answer(answer), timeout_s=REPLY_S)
        said = json.loads(reply.data)
    except ValueError:
        return {}
    except InitiatorError as error:
        if error.code is Code.BUS_DENIED:
            raise _denied(asking.authorizer_id, f"NATS does not let this login answer on {subject}") from None
        return {}
    return said if isinstance(said, dict) else {}


class AuthorizerService:
    """Answers by rules, until it is told to stop."""

    def __init__(self, desk: Desk, connection: Connection) -> None:
        self._desk = desk
        self._connection = connection
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Raises RetryError or HaltError where NATS cannot be reached at the start, or does not let it listen."""
        await listen(self._connection, self._desk.authorizer_id, self._on_asking)
        if not self._desk.remembers:
            log.warning("authorizer.forgetful", reason=FORGETFUL)
        log.info("authorizer.started", authorizer=self._desk.authorizer_id)
        await stop.wait()
        for task in tuple(self._tasks):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        log.info("authorizer.stopped")

    async def _on_asking(self, received: Message) -> None:
        await self._slots.acquire()
        task = asyncio.create_task(self._answer(received))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()):
            log.error("authorizer.failed", error_type=type(error).__name__)

    async def _answer(self, received: Message) -> None:
        now = time.time()
        try:
            case = await self._desk.read(received.subject, received.data, now)
        except InitiatorError as error:
            event = "authorizer.refused" if isinstance(error, RejectError) else "authorizer.failed"
            log.warning(event, subject=received.subject, code=error.code.value, field=error.field, reason=error.reason)
            return
        decision = self._desk.decide(case, now)
        if not decision.signs and not decision.denies:
            self._say_once("authorizer.left", case, decision)
            return
        answer = await self._sign(case) if decision.signs else Answer(self._desk.authorizer_id, denied=decision.reason)
        if answer is None:
            return
        try:
            said = await reply_to(self._connection, case, answer)
        except HaltError as error:
            log.warning("authorizer.unheard", code=error.code.value, reason=error.reason, **_about(case))
            return
        event = "authorizer.approved" if decision.signs else "authorizer.denied"
        log.info(event, **_about(case), rule=decision.rule, state=said.get("state", "nobody holds it now"))

    async def _sign(self, case: Case) -> Answer | None:
        try:
            return await self._desk.sign(case)
        except InitiatorError as error:  # a conflict, or a file of decisions that cannot be written: nothing is signed
            log.warning("authorizer.not_signed", code=error.code.value, reason=error.reason, **_about(case))
            return None

    def _say_once(self, event: str, case: Case, decision: Decision) -> None:
        """It is asked again every few seconds: one line is enough."""
        key = f"{case.asking.operation} {case.asking.operation_id}"
        if key not in self._told:
            if len(self._told) > 10_000:
                self._told.clear()
            self._told.add(key)
            log.info(event, **_about(case), rule=decision.rule)


def _about(case: Case) -> dict[str, Any]:
    asking, signed = case.asking, bool(case.signed_by)
    return {"op": asking.operation.value, "id": asking.operation_id, "client": asking.client, "signed": signed}
