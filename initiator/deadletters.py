"""The stream of dead letters: read, published again as requests, deleted.

Invariants:
- a replay is a new request: the original bytes and the sender's own headers on the subject of the original's client
  and operation, under every rule that a new request meets; nothing of the first one's fate goes with it;
- a dead letter leaves the stream only by `drop`, by age or by size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from initiator.bus import queues, scan
from initiator.bus.errors import NotFoundError
from initiator.bus.jetstream import JetStream, Stored
from initiator.core import deadletter, subjects
from initiator.core.deadletter import DeadLetter, Selection
from initiator.errors import Code, HaltError, InitiatorError, RejectError, RetryError

_AT_ONCE = 16  # payloads on their way: each may be as large as the server takes


class DeadLetters:
    """What operators do with the dead."""

    def __init__(self, js: JetStream) -> None:
        self._js = js
        self._taken: dict[str, list[subjects.RequestSubject]] = {}

    async def select(self, selection: Selection) -> AsyncIterator[DeadLetter]:
        """The letters of a selection, oldest first; with their ids only where the selection names one.

        Raises:
            HaltError: there is no such stream yet.
            RetryError: the server fell silent.
        """
        if selection.operation_id is None:
            async for letter in self._by_headers(selection):
                yield letter
            return
        found = [letter async for letter in self._by_headers(selection)]
        for begin in range(0, len(found), _AT_ONCE):
            for letter in await self.identify(found[begin : begin + _AT_ONCE]):
                if letter.operation_id == selection.operation_id:
                    yield letter

    async def _by_headers(self, selection: Selection) -> AsyncIterator[DeadLetter]:
        found = scan.headers(self._js, subjects.DEAD_STREAM, selection.subject_filter, selection.since)
        try:
            async for stored in found:
                letter = _letter(stored)
                if letter is not None and selection.takes(letter):
                    yield letter
        except NotFoundError as error:
            raise _no_stream(subjects.DEAD_STREAM) from error

    async def identify(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """The same letters with the ids that their payloads name; a letter that went meanwhile stays as it is.

        Raises:
            RetryError: the server fell silent.
        """
        named: list[DeadLetter] = []
        for begin in range(0, len(letters), _AT_ONCE):
            named += await asyncio.gather(*(self._identify(letter) for letter in letters[begin : begin + _AT_ONCE]))
        return named

    async def _identify(self, letter: DeadLetter) -> DeadLetter:
        if letter.operation_id is not None:
            return letter
        stored = await self._js.get(subjects.DEAD_STREAM, letter.sequence)
        return letter if stored is None else _with_name(letter, stored.data)

    async def open(self, sequence: int) -> tuple[DeadLetter, bytes]:
        """One letter and its payload.

        Raises:
            RejectError: `NOT_FOUND`.
        """
        try:
            stored = await self._js.get(subjects.DEAD_STREAM, sequence)
        except NotFoundError as error:
            raise _no_stream(subjects.DEAD_STREAM) from error
        letter = _letter(stored) if stored else None
        if stored is None or letter is None:
            raise RejectError(Code.NOT_FOUND, f"no dead letter has the sequence {sequence}", field="SEQ")
        return _with_name(letter, stored.data), stored.data

    async def replay(self, letter: DeadLetter, data: bytes) -> int:
        """Publish a request again; returns the sequence of the new one.

        Raises:
            RejectError: `POLICY_DENIED` (no such client in the request stream, or not for this operation),
                `INVALID_SUBJECT` (a result is no request), `TOO_LARGE`.
            RetryError: `STREAM_FULL`; or `BUS_UNAVAILABLE`, where `maybe_done` says that it may be queued.
        """
        subject = await self.request_subject(letter)
        try:
            return (await self._js.publish(subject, data, letter.request_headers())).sequence
        except RetryError as error:
            if error.maybe_done:
                error.hint = "it may be queued; the same request again joins the operation, so replay it once more"
            raise

    async def request_subject(self, letter: DeadLetter) -> str:
        """Where a letter's request belongs; raises RejectError where no new one can be published."""
        if letter.client is None:
            raise RejectError(Code.INVALID_SUBJECT, "a result of the nodes is no request: it cannot be replayed")
        subject = subjects.request(letter.client, letter.operation)
        if subjects.RequestSubject(letter.client, letter.operation) not in await self._taken_subjects(letter.client):
            # the letter's own subject is not asked: what a sender's message says of itself proves nothing
            raise RejectError(
                Code.POLICY_DENIED,
                f"no such client: no queue takes anything on {subject}",
                field="client",
                hint=f"clients.{letter.client} is gone from the daemon's configuration, or lost this operation",
            )
        return subject

    async def _taken_subjects(self, client: str) -> list[subjects.RequestSubject]:
        if client not in self._taken:
            self._taken[client] = await queues.taken_subjects(self._js, client)
        return self._taken[client]

    async def drop(self, sequence: int) -> None:
        """Delete one letter.

        Raises:
            RejectError: `NOT_FOUND`.
        """
        if not await self._js.delete(subjects.DEAD_STREAM, sequence):
            raise RejectError(Code.NOT_FOUND, f"no dead letter has the sequence {sequence}", field="SEQ")


def _letter(stored: Stored) -> DeadLetter | None:
    return deadletter.read(stored.subject, stored.sequence, stored.time, stored.headers)


def _with_name(letter: DeadLetter, data: bytes) -> DeadLetter:
    return replace(letter, operation_id=deadletter.named_in(letter, data))


def _no_stream(name: str) -> InitiatorError:
    return HaltError(Code.STREAM_FORM, f"{name} is not there", hint="the daemon creates it at its start")
