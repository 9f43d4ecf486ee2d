"""The record: claims, moves and reads on the event stream, which is the only store there is.

Invariants:
- every guarded publish of an id carries the one filter that `subjects.guard_filter` builds; with two different
  filters a replicated stream lets two writers win;
- a write is done when the server acknowledged it freshly, or when the record's last event carries its `event_id`;
- whoever loses gets the event that won, and decides again from there;
- all reads that decide something come from the stream's leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass

from initiator.bus.errors import SequenceConflictError
from initiator.bus.jetstream import MESSAGE_ID, TTL, JetStream, Stored, guard
from initiator.core import chain, codec, events, subjects
from initiator.core.chain import Chain, Link
from initiator.core.events import Event, State
from initiator.core.model import Operation
from initiator.errors import Code, HaltError, InitiatorError, RetryError

CONTENT_TYPE = "Content-Type"
REPEATED = "Initiator-Repeated"
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as the record holds it.

    Attributes:
        sequence: its sequence in the stream; the guard of whatever follows it.
        stored_at: when the server stored it, Unix seconds by the server's clock.
        data: its exact bytes.
    """

    event: Event
    sequence: int
    stored_at: float
    data: bytes

    @property
    def stored(self) -> Stored:
        """The same as a plain message of the stream."""
        headers = {CONTENT_TYPE: self.event.content_type.value}
        return Stored(self.event.subject, self.sequence, self.data, headers, self.stored_at)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long events are kept; the stream's own age is the longer of the two.

    Attributes:
        final_s: seconds that a final event is kept; None: for ever. A wallet's keys are kept for ever in any case.
        intermediate_s: seconds that every other event is kept.
    """

    final_s: float | None = None
    intermediate_s: float = 0.0

    def ttl(self, event: Event) -> str | None:
        """The event's own time to live, where the stream's age is not its own."""
        if event.final:
            is_wallet = event.operation is Operation.KEYGEN and event.state is State.COMPLETED
            return "never" if self.final_s is None or is_wallet else None
        if event.state is State.AUTHORIZING:
            # it holds the one signature that there may be, for as long as it can be opened
            return "never" if self.final_s is None else None
        return None if self.final_s is None else f"{max(1, round(self.intermediate_s))}s"


@dataclass(frozen=True, slots=True)
class Seen:
    """An operation's record as somebody saw it: the sequence of its last event, 0 if there was none."""

    operation: Operation
    operation_id: str
    sequence: int


class MovedError(InitiatorError):
    """Another write came first; `last` is what the record says now (None: nothing).

    `maybe_done`: an answer to ours was lost before that, so it may have been stored and followed by others.
    """

    def __init__(self, last: Entry | None, *, maybe_done: bool = False) -> None:
        super().__init__(Code.RECORD_BUSY, "the record moved on: another write came first")
        self.last = last
        self.maybe_done = maybe_done


@dataclass(slots=True)
class _Linked:
    """One write's place in the chain."""

    chain: Chain | None
    subject: str
    link: Link
    done: bool = False

    @property
    def headers(self) -> dict[str, str]:
        return {chain.HEADER: self.link.header} if self.chain is not None else {}

    def stored(self, data: bytes, sequence: int) -> None:
        """It is on record under this sequence."""
        if self.chain is not None:
            self.chain.stored(self.link, self.subject, data, sequence)
            self.done = True


class Record:
    """Reads and writes of events; see the module for what is guaranteed."""

    def __init__(self, js: JetStream, retention: Retention = Retention()) -> None:
        self._js = js
        self._retention = retention
        self._chain = Chain(secrets.token_hex(8))

    @contextlib.contextmanager
    def _linked(self, subject: str) -> Iterator[_Linked]:
        """A place in this writer's chain for one write; given up unless it is said to be stored."""
        if subject.startswith("initiator.dead."):  # no part of the record
            yield _Linked(None, subject, Link("", ()))
            return
        linked = _Linked(self._chain, subject, self._chain.link())
        try:
            yield linked
        finally:
            if not linked.done:
                self._chain.lost(linked.link)

    async def append(self, event: Event, after: Entry | None, still: Callable[[], None] = lambda: None) -> Entry:
        """Record `event` if `after` is still the last event of its id (None: if there is none).

        Args:
            still: called before the same write is tried again; raises where it must not be, as time has passed.

        Raises:
            MovedError: it is not; carries the event that is.
            RetryError: no room in the stream, or the bus is away; nothing of ours counts as recorded until read back.
        """
        with self._linked(event.subject) as linked:
            entry = await self._append(event, after, linked.headers, still)
            linked.stored(entry.data, entry.sequence)
        return entry

    async def _append(
        self, event: Event, after: Entry | None, link: Mapping[str, str], still: Callable[[], None]
    ) -> Entry:
        expected = after.sequence if after else 0
        data = events.encode(event)
        headers = {CONTENT_TYPE: event.content_type.value} | guard(
            subjects.guard_filter(event.operation, event.operation_id), expected
        )
        headers |= link
        if ttl := self._retention.ttl(event):
            headers[TTL] = ttl  # `never` survives the stream's age: the double-sign protection
        unsure = False
        for attempt in range(_TRIES):
            if attempt:
                still()
            try:
                ack = await self._js.publish(event.subject, data, headers)
            except SequenceConflictError:
                return _ours(event, await self.last(event.operation, event.operation_id), unsure)
            except RetryError as error:
                if not error.maybe_done:
                    raise
                unsure = True
                found = await self._settle(event, expected, error.delay_s)
                if found is not None:
                    return found
            else:
                # The server's clock is not in the ack; the writer's is near enough for what is derived from it.
                return Entry(event, ack.sequence, event.time, data)
        raise RetryError(
            Code.BUS_UNAVAILABLE, f"{event.subject}: no clear answer after {_TRIES} tries", maybe_done=True
        )

    async def _settle(self, event: Event, expected: int, delay_s: float) -> Entry | None:
        """After an unknown outcome: our entry if it is recorded, None if the same write may be tried again."""
        await asyncio.sleep(delay_s)
        last = await self.last(event.operation, event.operation_id)
        if (last.sequence if last else 0) == expected:
            return None  # the write under way and its repetition carry one guard: at most one of them is stored
        return _ours(event, last, True)

    async def last(self, operation: Operation, operation_id: str) -> Entry | None:
        """The state of an operation under any client: its last event."""
        filter_ = subjects.guard_filter(operation, operation_id)
        return _entry(await self._js.last(subjects.EVENTS_STREAM, filter_))

    async def signed(self, client: str, operation: Operation, operation_id: str) -> Entry | None:
        """The recorded bytes of an operation: its `signed` event."""
        return await self._sealed(client, operation, operation_id, State.SIGNED)

    async def authorizing(self, client: str, operation: Operation, operation_id: str) -> Entry | None:
        """What authorizers were last asked to sign: it holds the one signature of ours that there may be."""
        return await self._sealed(client, operation, operation_id, State.AUTHORIZING)

    async def _sealed(self, client: str, operation: Operation, operation_id: str, state: State) -> Entry | None:
        subject = subjects.event(client, operation, operation_id, subjects.sealed(state))
        return _entry(await self._js.last(subjects.EVENTS_STREAM, subject))

    async def completed_keygen(self, wallet_id: str) -> Entry | None:
        """The event that holds a wallet's public keys."""
        subject = subjects.event("*", Operation.KEYGEN, wallet_id, events.State.COMPLETED)
        return _entry(await self._js.last(subjects.EVENTS_STREAM, subject))

    async def refusal(self, client: str, operation: Operation, request_seq: int) -> Stored | None:
        """What this very request was refused with, if it was."""
        return await self._js.last(subjects.EVENTS_STREAM, subjects.reject(client, operation, request_seq))

    async def first_since(self, seconds: float) -> int:
        """The first sequence that was stored at or after a moment (Unix seconds, by the server's clock)."""
        low, high = 1, 1
        if newest := await self._js.last(subjects.EVENTS_STREAM, ">"):
            high = newest.sequence + 1
        while low < high:  # times rise with sequences
            middle = (low + high) // 2
            stored = await self._js.next(subjects.EVENTS_STREAM, ">", middle)
            if stored is None or stored.time >= seconds:
                high = middle
            else:
                low = stored.sequence + 1
        return low

    async def scan(self, filter_: str, sequence: int) -> AsyncIterator[Stored]:
        """What is stored under a subject filter from a stream sequence on, oldest first."""
        while (stored := await self._js.next(subjects.EVENTS_STREAM, filter_, sequence)) is not None:
            yield stored
            sequence = stored.sequence + 1

    async def publish_once(self, subject: str, data: bytes, headers: Mapping[str, str]) -> None:
        """Store one message on a subject that takes exactly one (rejections and dead letters).

        Raises:
            RetryError: it may or may not be stored; the same call again is harmless.
        """
        with self._linked(subject) as linked:
            sequence = await self._publish_once(subject, data, dict(headers) | linked.headers | guard(subject, 0))
            if sequence:
                linked.stored(data, sequence)

    async def _publish_once(self, subject: str, data: bytes, guarded: dict[str, str]) -> int:
        """The sequence that the server acknowledged; 0 where it was stored before."""
        for _ in range(_TRIES):
            try:
                ack = await self._js.publish(subject, data, guarded)
            except SequenceConflictError:
                return 0  # stored by an earlier delivery of the same request
            except RetryError as error:
                if not error.maybe_done:
                    raise
                await asyncio.sleep(error.delay_s)
            else:
                return ack.sequence
        raise RetryError(Code.BUS_UNAVAILABLE, f"{subject}: no clear answer after {_TRIES} tries", maybe_done=True)

    async def publish_unless_moved(self, subject: str, data: bytes, headers: Mapping[str, str], seen: Seen) -> None:
        """Store one message, once, if an operation's record is still as it was seen.

        The guard looks at the operation, so that no claim can come before; that it is stored once is for its id to see.

        Raises:
            MovedError: the record has moved; nothing was stored.
            RetryError: it may or may not be stored; the same call again is harmless.
        """
        filter_ = subjects.guard_filter(seen.operation, seen.operation_id)
        guarded = dict(headers) | guard(filter_, seen.sequence) | {MESSAGE_ID: subject}
        with self._linked(subject) as linked:
            sequence = await self._publish_unless_moved(subject, data, guarded | linked.headers, seen)
            if sequence:
                linked.stored(data, sequence)

    async def _publish_unless_moved(self, subject: str, data: bytes, guarded: dict[str, str], seen: Seen) -> int:
        """As `_publish_once`."""
        for _ in range(_TRIES):
            try:
                ack = await self._js.publish(subject, data, guarded)
            except SequenceConflictError:
                if await self._js.last(subjects.EVENTS_STREAM, subject) is not None:
                    return 0
                raise MovedError(await self.last(seen.operation, seen.operation_id)) from None
            except RetryError as error:
                if not error.maybe_done:
                    raise
                await asyncio.sleep(error.delay_s)
                if await self._js.last(subjects.EVENTS_STREAM, subject) is not None:
                    return 0
            else:
                return 0 if ack.duplicate else ack.sequence
        raise RetryError(Code.BUS_UNAVAILABLE, f"{subject}: no clear answer after {_TRIES} tries", maybe_done=True)

    async def announce(self, entry: Entry) -> None:
        """Tell a requester that repeats itself what is recorded, on the subject where it was told the first time."""
        event = entry.event
        subject = subjects.out(event.client, event.operation, event.operation_id, event.state)
        headers = {CONTENT_TYPE: event.content_type.value, REPEATED: "true", "Nats-Sequence": str(entry.sequence)}
        await self._js.connection.publish(subject, entry.data, headers)


def _ours(event: Event, last: Entry | None, unsure: bool) -> Entry:
    """The last entry if it is this very write; MovedError if another won, or has followed it."""
    if last is not None and last.event.event_id == event.event_id:
        return last
    raise MovedError(last, maybe_done=unsure)


def _entry(stored: Stored | None) -> Entry | None:
    if stored is None:
        return None
    try:
        content_type = codec.content_type(stored.headers.get(CONTENT_TYPE))
        event = events.decode(content_type, stored.data)
    except InitiatorError as error:
        raise HaltError(
            Code.RECORD_LOST,
            f"the record holds something that is no event at sequence {stored.sequence}",
            hint="somebody else wrote to the event stream: check who may publish on initiator.event.>",
        ) from error
    # forgery: the subject says whose event it is; a body that says otherwise was not written by us
    if event.subject != stored.subject:
        raise HaltError(Code.RECORD_LOST, f"the event at sequence {stored.sequence} does not belong to its subject")
    return Entry(event, stored.sequence, stored.time, stored.data)
