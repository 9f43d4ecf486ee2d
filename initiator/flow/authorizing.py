"""Collecting authorizers' signatures over our own, which is made once and kept.

Invariants:
- what authorizers sign holds our signature, and ours is random: the one that is on record is the only one there is,
  whoever takes over and however often the operation is opened again;
- each answer is recorded before its authorizer is told so; a restart asks only those whose answers are not on record;
- only answers that verify under the keys of the policy in force now count, and the rules are asked again before
  complete bytes are recorded;
- waiting holds no slot and no place in a lane; until complete bytes are recorded the operation can be cancelled, and
  at its deadline it fails with outcome `none`, naming who is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from initiator.bus.connection import Connection, Message
from initiator.core import authorization, message, subjects
from initiator.core.authorization import Answer, Asking
from initiator.core.events import Event, Outcome, State
from initiator.core.lifecycle import Step
from initiator.core.message import AuthorizerSignature
from initiator.core.model import Operation, Request
from initiator.core.policy.rules import Grant
from initiator.core.signature import verifier
from initiator.errors import Code, InitiatorError, RejectError
from initiator.flow.claims import Claims
from initiator.flow.clients import Clients
from initiator.flow.clock import Clock
from initiator.flow.gate import SigningGate
from initiator.flow.journal import Journal
from initiator.flow.work import Work, expired
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.record import Entry, MovedError, Record

log = get_logger()
ASK_AGAIN_S = 5.0
MOST_ANSWERS = 16
"""Answers of one operation that wait here to be looked at; further ones are asked for again."""


@dataclass(frozen=True, slots=True)
class _Received:
    answer: Answer
    reply: str


# Where answers to one operation arrive.
_Answers = asyncio.Queue[_Received]


class Authorizing:
    """The step between our signature and complete bytes, for the handler; see the module.

    Args:
        nodes_stream: see `NodeGateway.birth`.
        key_fingerprint: of the key that the nodes trust now.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        record: Record,
        journal: Journal,
        claims: Claims,
        gate: SigningGate,
        clients: Clients,
        nodes_stream: Callable[[Operation], str | None],
        key_fingerprint: str,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._connection = connection
        self._record = record
        self._journal = journal
        self._claims = claims
        self._gate = gate
        self._clients = clients
        self._nodes_stream = nodes_stream
        self._key = key_fingerprint
        self._clock = clock
        self._metrics = metrics
        self._hearing: dict[tuple[str, str], list[_Answers]] = {}

    async def listen(self) -> None:
        """Hear of answers from now on. Raises RetryError."""
        await self._connection.subscribe(subjects.authorized("*", "*", "*"), self._on_answer)

    async def _on_answer(self, received: Message) -> None:
        """Hand an answer to whoever holds its operation; who does not leaves it to another replica."""
        _, _, authorizer, operation, operation_id = received.subject.split(".")
        holders = self._hearing.get((operation, operation_id))
        if not holders:
            return
        try:
            answer = authorization.decode_answer(received.data)
            # cross-authorizer: NATS decides who may publish there, so the subject says who it is
            if answer.authorizer_id != authorizer:
                raise _invalid("authorizer_id", "expected the one that the subject names")
        except RejectError as error:
            await self._refuse(received.reply, authorizer, (operation, operation_id), error)
            return
        for answers in holders:
            with contextlib.suppress(asyncio.QueueFull):
                answers.put_nowait(_Received(answer, received.reply))

    # --- the step

    async def resume(self, work: Work, last: Entry, grant: Grant) -> Entry | None:
        """For an operation that was opened again: go on with the signature on record; None if there is none."""
        kept = await self._record.authorizing(last.event.client, work.operation, work.operation_id)
        if kept is None or kept.event.body["key_fingerprint"] != self._key:
            return None
        body = dict(kept.event.body) | {"awaits": list(grant.authorizers)}
        body.pop("reply_as")
        return await self._journal.move(last, State.AUTHORIZING, body)

    async def collect(self, work: Work, last: Entry) -> Entry:
        """Ask whoever is missing until all have answered; returns `signed` or `failed`, or the record as it moved.

        A freeze ends it, too: whoever called comes back when that is over.

        Raises:
            MovedError: another write came first.
            RetryError: NATS is away.
        """
        asked: dict[str, float] = {}
        with self._hear(work) as answers:
            while last.event.state is State.AUTHORIZING and not self._gate.stops(Step.AUTHORIZE, last):
                work.held.see(last)
                last = await self._turn(work, last, answers, asked)
        return last

    async def _turn(self, work: Work, last: Entry, answers: _Answers, asked: dict[str, float]) -> Entry:
        """One look at who is missing, and one answer; returns what is recorded then."""
        permitted = await self._claims.permitted(work)
        if isinstance(permitted, RejectError):
            return await self._journal.refuse(last, permitted)
        collected = self._valid(work.request, last.event)
        missing = [name for name in permitted.authorizers if name not in collected]
        if self._key != last.event.body["key_fingerprint"]:
            reason = "signed with a key that is not the nodes' any more"
            return await self._journal.fail(last, Code.KEY_MISMATCH, reason, Outcome.NONE)
        if late := expired(last, self._clock.now()):
            reason = f"{late} without {', '.join(missing) or 'their signatures'}"
            return await self._journal.fail(last, Code.AUTHORIZERS_MISSING, reason, Outcome.NONE)
        if not missing:
            return await self._complete(work, last, collected, permitted)
        await self._ask(work, last, missing, asked)
        received = await self._next(answers, last)
        if received is not None:
            return await self._take(work, last, received, missing)
        current = await self._record.last(work.operation, work.operation_id)
        if current is None:
            raise MovedError(None)
        return current

    async def _next(self, answers: _Answers, last: Entry) -> _Received | None:
        wait_s = min(ASK_AGAIN_S, max(0.05, last.event.expires_at - self._clock.now()))
        try:
            async with asyncio.timeout(wait_s):
                return await answers.get()
        except TimeoutError:
            return None

    async def _take(self, work: Work, last: Entry, received: _Received, missing: list[str]) -> Entry:
        """Record one answer, then tell its authorizer; returns what is recorded then."""
        answer, reply, about = received.answer, received.reply, (work.operation.value, work.operation_id)
        name, collected = answer.authorizer_id, dict(last.event.body["collected"])
        if name not in missing and name not in collected:
            await self._refuse(reply, name, about, _invalid("authorizer_id", "this authorizer is not asked"))
            return last
        if answer.denied is not None:  # also by one who has signed: until complete bytes are recorded a no counts
            reason, where = f"{name} says no: {answer.denied}", f"authorizers.{name}"
            entry = await self._journal.fail(last, Code.AUTHORIZATION_DENIED, reason, Outcome.NONE, field=where)
            awaits = missing
            if name in collected:
                self._metrics.authorizations.labels(name, "contradicted").inc()
                log.warning("authorizing.answer_contradicted", authorizer=name, op=about[0], id=about[1],
                            code=Code.AUTHORIZATION_DENIED.value, reason=answer.denied)  # fmt: skip
        elif not self._verifies(name, _to_sign(work.request, last.event), answer.signature):
            reason = "the signature does not verify under this authorizer's key over what it was asked"
            await self._refuse(reply, name, about, _invalid("signature", reason))
            return last
        elif name not in missing:
            await self._confirm(reply, missing)
            return last
        else:
            awaits = [one for one in missing if one != name]
            body = dict(last.event.body) | {"collected": collected | {name: answer.signature}, "awaits": awaits}
            entry = await self._journal.move(last, State.AUTHORIZING, body)
        self._metrics.authorizations.labels(name, "signed" if answer.denied is None else "denied").inc()
        await self._confirm(reply, awaits)
        return entry

    async def _complete(self, work: Work, last: Entry, collected: Mapping[str, bytes], grant: Grant) -> Entry:
        """Record complete bytes: the point of no return."""
        body = dict(last.event.body)
        ours = message.parse_event(work.operation, body["message"]).signature
        signatures = [AuthorizerSignature(authorizer_id=name, signature=made) for name, made in collected.items()]
        body["message"] = message.event_bytes(work.request, ours, signatures)
        body["policy"] = {"version": grant.version, "rule": grant.rule}
        body["nodes_stream"] = self._nodes_stream(work.operation)
        for name in ("collected", "awaits"):
            body.pop(name)
        return await self._claims.seal(work, last, State.SIGNED, body, grant)

    # --- authorizers

    def _valid(self, request: Request, event: Event) -> dict[str, bytes]:
        """The recorded answers that verify under the keys in force now: one may have been withdrawn since."""
        asked = _to_sign(request, event)
        return {name: made for name, made in event.body["collected"].items() if self._verifies(name, asked, made)}

    def _verifies(self, name: str, asked: bytes, signature: bytes) -> bool:
        key = self._clients.policy.authorizers.get(name)
        return key is not None and verifier(key).verify(asked, signature)

    async def _ask(self, work: Work, last: Entry, missing: list[str], asked: dict[str, float]) -> None:
        """Ask each that is missing, and again after a while: it may not have been there."""
        event, now = last.event, self._clock.loop_time()
        for name in missing:
            if now - asked.get(name, -ASK_AGAIN_S) < ASK_AGAIN_S:
                continue
            asking = Asking(
                authorizer_id=name,
                operation=work.operation,
                operation_id=work.operation_id,
                client=event.client,
                message=event.body["message"],
                expires_at=event.expires_at,
                labels=work.request.labels,
                requester=event.body.get("requester"),
                policy=event.body["policy"],
                missing=tuple(missing),
            )
            subject = subjects.authorize(name, work.operation, work.operation_id)
            await self._connection.publish(subject, authorization.encode_asking(asking))
            asked[name] = now

    async def _confirm(self, reply: str, missing: list[str]) -> None:
        await self._reply(reply, {"state": "recorded", "missing": missing})

    async def _refuse(self, reply: str, authorizer: str, about: tuple[str, str], error: InitiatorError) -> None:
        known = authorizer if authorizer in self._clients.policy.authorizers else "unknown"
        self._metrics.authorizations.labels(known, "refused").inc()
        log.warning("authorizing.answer_refused", authorizer=known, op=about[0], id=about[1],
                    code=error.code.value, reason=error.reason)  # fmt: skip
        await self._reply(reply, {"state": "refused", "code": error.code.value, "reason": error.reason})

    async def _reply(self, reply: str, body: Mapping[str, Any]) -> None:
        if reply:
            with contextlib.suppress(InitiatorError):  # asked again, it hears that it was recorded
                await self._connection.publish(reply, json.dumps(body).encode())

    @contextlib.contextmanager
    def _hear(self, work: Work) -> Iterator[_Answers]:
        key, answers = (work.operation.value, work.operation_id), _Answers(MOST_ANSWERS)
        holders = self._hearing.setdefault(key, [])
        holders.append(answers)
        try:
            yield answers
        finally:
            holders.remove(answers)
            if not holders:
                self._hearing.pop(key, None)


def _invalid(name: str, reason: str) -> RejectError:
    return RejectError(Code.INVALID_FIELD, reason, field=name)


def _to_sign(request: Request, event: Event) -> bytes:
    """What authorizers sign: it holds the signature on record, never another one."""
    ours = message.parse_event(event.operation, event.body["message"]).signature
    return message.authorizer_bytes(request, ours)


def awaiting(sealed: Mapping[str, Any], grant: Grant) -> dict[str, Any]:
    """The body of the first `authorizing` event: our signature, and nobody else's yet."""
    return {**sealed, "awaits": list(grant.authorizers), "collected": {}}
