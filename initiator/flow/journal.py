"""Writes events, and makes each of them visible: one record entry, one log line, one metric, the same id and code."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from initiator.bus.pull import Delivery
from initiator.core import codec, deadletter, events, subjects
from initiator.core.deadletter import Original
from initiator.core.events import Event, Outcome, State
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, HaltError, InitiatorError, RejectError
from initiator.flow.board import Board
from initiator.flow.clock import Clock
from initiator.flow.held import Held
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.record import CONTENT_TYPE, Entry, Record, Seen

log = get_logger()
_LOGGED = ("code", "reason", "field", "outcome", "node_code", "verification")


class Journal:
    """The only writer of events in this process."""

    def __init__(self, record: Record, clock: Clock, metrics: Metrics, board: Board) -> None:
        self._record = record
        self._clock = clock
        self._metrics = metrics
        self._board = board

    async def claim(
        self,
        held: Held,
        operation_id: str,
        digest: str,
        expires_at: float,
        encoding: ContentType,
        labels: Mapping[str, str],
        reopened: Entry | None = None,
    ) -> Entry:
        """Record `accepted`: from here on the id belongs to this payload.

        Args:
            reopened: the `failed` event that this goes on after.
        """
        body: dict[str, Any] = {"labels": dict(labels)} if labels else {}
        if reopened is not None:
            body["reopens"] = reopened.event.event_id
        return await self._begin(held, operation_id, digest, expires_at, encoding, State.ACCEPTED, body, reopened)

    async def fail_unclaimed(
        self,
        held: Held,
        operation_id: str,
        digest: str,
        expires_at: float,
        encoding: ContentType,
        why: tuple[Code, str, Outcome],
        last: Entry | None,
    ) -> Entry:
        """Record `failed` for what the record does not know (any more); nobody can come between."""
        code, reason, outcome = why
        body = {"code": code.value, "reason": reason, "outcome": outcome.value}
        return await self._begin(held, operation_id, digest, expires_at, encoding, State.FAILED, body, last)

    async def _begin(
        self,
        held: Held,
        operation_id: str,
        digest: str,
        expires_at: float,
        encoding: ContentType,
        state: State,
        body: Mapping[str, Any],
        after: Entry | None,
    ) -> Entry:
        event = Event(
            operation=held.operation,
            operation_id=operation_id,
            client=held.client,
            state=state,
            attempt=after.event.attempt + 1 if after else 1,
            time=self._clock.now(),
            request_seq=held.sequence,
            request_digest=digest,
            expires_at=expires_at,
            event_id=secrets.token_hex(8),
            content_type=encoding,
            body=body,
        )
        return await self._append(event, after)

    async def move(
        self,
        last: Entry,
        state: State,
        body: Mapping[str, Any],
        *,
        attempt: int | None = None,
        still: Callable[[], None] = lambda: None,
    ) -> Entry:
        """Record the next state of an operation after `last`.

        Args:
            still: see `Record.append`.

        Raises:
            MovedError, RetryError: see `Record.append`.
        """
        before = last.event
        event = Event(
            operation=before.operation,
            operation_id=before.operation_id,
            client=before.client,
            state=state,
            attempt=attempt or before.attempt,
            time=self._clock.now(),
            request_seq=before.request_seq,
            request_digest=before.request_digest,
            expires_at=before.expires_at,
            event_id=secrets.token_hex(8),
            content_type=_encoding_after(before, state),
            body={**body, "reply_as": _reply_as(before).value} if state in events.SEALED else body,
        )
        entry = await self._append(event, last, still)
        # by the clocks of two replicas, perhaps
        self._metrics.state_seconds.labels(before.operation, state).observe(max(0.0, event.time - before.time))
        return entry

    async def fail(self, last: Entry, code: Code, reason: str, outcome: Outcome, **extra: Any) -> Entry:
        """Record `failed`, with what the caller may do now."""
        body = {"code": code.value, "reason": reason, "outcome": outcome.value, **extra}
        return await self.move(last, State.FAILED, body)

    async def refuse(self, last: Entry, error: RejectError) -> Entry:
        """Record `failed` for what was accepted and is not permitted any more; nothing was signed."""
        self._count_refusal(error)
        return await self.fail(
            last, error.code, error.reason, Outcome.NONE, **({"field": error.field} if error.field else {})
        )

    def _count_refusal(self, error: InitiatorError) -> None:
        if error.field and error.field.startswith("policy."):
            self._metrics.policy_refusals.labels(error.field.removeprefix("policy.")).inc()

    async def _append(self, event: Event, after: Entry | None, still: Callable[[], None] = lambda: None) -> Entry:
        entry = await self._record.append(event, after, still)
        code = str(event.body.get("code", ""))
        self._metrics.events.labels(event.operation, event.client, event.state, code).inc()
        write = log.warning if event.state in (State.FAILED, State.RETRYING) else log.info
        write(f"request.{event.state}", **describe(event), sequence=entry.sequence)
        self._board.poke(event.operation, event.operation_id)
        return entry

    async def reject(
        self, held: Held, error: InitiatorError, operation_id: str | None, encoding: ContentType, seen: Seen | None
    ) -> None:
        """Refuse a request: dead letter first, then the event; never touches the record of its id.

        Args:
            seen: as whoever may have been overtaken saw the record; None where nobody else can have claimed.

        Raises:
            MovedError: another holder has moved the record since: the request is not refused.
        """
        await self._bury(held, error)
        fields: dict[str, Any] = {
            "op": held.operation.value,
            "id": operation_id,
            "client": held.client,
            "state": State.REJECTED.value,
            "attempt": 0,
            "time": events.format_time(self._clock.now()),
            "request_seq": held.sequence,
            "code": error.code.value,
            "reason": error.reason,
            "field": error.field,
        }
        subject = subjects.reject(held.client, held.operation, held.sequence)
        data, headers = codec.encode(encoding, fields), {CONTENT_TYPE: encoding.value}
        if seen is None:
            await self._record.publish_once(subject, data, headers)
        else:
            await self._record.publish_unless_moved(subject, data, headers, seen)
        self._metrics.events.labels(held.operation, held.client, State.REJECTED, error.code).inc()
        self._count_refusal(error)
        fields = {name: fields[name] for name in ("op", "id", "client", "request_seq", "code", "reason", "field")}
        log.warning("request.rejected", **fields)

    async def _bury(self, held: Held, error: InitiatorError, ended: Event | None = None) -> None:
        subject = subjects.dead(held.client, held.operation, held.sequence)
        await self._keep_aside(subject, held.operation, held.delivery, error, ended)

    async def _keep_aside(
        self, subject: str, operation: Operation, delivery: Delivery, error: InitiatorError, ended: Event | None = None
    ) -> None:
        await self._store_dead(subject, delivery.message.data, self._headers_of_the_dead(delivery, error, ended))
        self._metrics.dead_letters.labels(operation, error.code).inc()

    async def _store_dead(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        try:
            await self._record.publish_once(subject, data, headers)
        except HaltError as too_large:
            if too_large.code is not Code.TOO_LARGE:
                raise
            # poison: it was as large as the server takes, without our headers; its beginning is evidence enough
            await self._record.publish_once(subject, data[: len(data) // 2], headers)

    async def bury_exhausted(self, held: Held, final: Entry) -> None:
        """Keep a request whose operation gave out: accepted, then `failed` for want of time, tries or a back end."""
        body = final.event.body
        await self._bury(held, InitiatorError(Code(body["code"]), body["reason"]), final.event)

    async def bury_result(self, operation: Operation, delivery: Delivery, error: InitiatorError) -> None:
        """Keep a result that nothing can use."""
        await self._keep_aside(subjects.dead_result(operation, delivery.sequence), operation, delivery, error)

    def _headers_of_the_dead(self, delivery: Delivery, error: InitiatorError, ended: Event | None) -> dict[str, str]:
        message = delivery.message
        original = Original(subject=message.subject, headers=message.headers, received_at=delivery.stored_at)
        return deadletter.headers_of(original, error, self._clock.now(), ended)


def describe(event: Event) -> dict[str, Any]:
    """The fields of an event that a log line carries: never bytes, never keys."""
    line = {
        "op": event.operation.value,
        "id": event.operation_id,
        "client": event.client,
        "attempt": event.attempt,
        "request_seq": event.request_seq,
    }
    return line | {name: event.body[name] for name in _LOGGED if name in event.body}


def _reply_as(before: Event) -> ContentType:
    """The requester's own encoding."""
    return ContentType(before.body["reply_as"]) if before.state in events.SEALED else before.content_type


def _encoding_after(before: Event, state: State) -> ContentType:
    """Sealed bytes are read by us alone and stay bytes; after them the requester's own encoding comes back."""
    return ContentType.MSGPACK if state in events.SEALED else _reply_as(before)
