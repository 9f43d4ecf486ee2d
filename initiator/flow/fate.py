"""What became of requests that were replayed, read from the record and from how far their queues have come.

Nothing is asked of the daemon, and nothing moved. What is told is on record: a refusal under the request's own
sequence, an operation that it holds, or one of the same payload that it has joined. A request joins without a trace
of its own, so that is told only of one that a daemon has taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from enum import Enum

from initiator.bus import queues
from initiator.bus.jetstream import JetStream
from initiator.core import codec, identity, subjects
from initiator.core.deadletter import DeadLetter, encoding_of
from initiator.core.events import Event, State
from initiator.core.lifecycle import REOPEN
from initiator.core.model import Operation
from initiator.errors import RejectError
from initiator.flow.intake import Intake
from initiator.record import CONTENT_TYPE, Record

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 0.5


class Kind(Enum):
    """The words of a summary."""

    ACCEPTED = "accepted"
    OPENED = "opened again"
    JOINED = "joined"
    REFUSED = "refused again"
    TAKEN = "taken, nothing on record yet"
    WAITING = "not taken yet"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one request, for people. `said` may hold a stranger's text."""

    kind: Kind
    said: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """A letter that was published again.

    Attributes:
        client: whose request it is.
        request: its sequence in the client's queue.
        operation_id, digest: what it asks for; None where it is no valid request by any configuration.
    """

    letter: DeadLetter
    client: str
    request: int
    operation_id: str | None = None
    digest: str | None = None

    @property
    def queue(self) -> tuple[str, Operation]:
        return self.client, self.letter.operation


class Fates:
    """Looks at what was replayed until something can be told."""

    def __init__(self, intake: Intake, js: JetStream, record: Record) -> None:
        self._intake = intake
        self._js = js
        self._record = record

    def replayed(self, letter: DeadLetter, data: bytes, request: int) -> Replayed:
        """A letter whose bytes are queued again under a sequence."""
        client = letter.client or ""
        try:
            found = self._intake.reread(letter.operation, encoding_of(letter), data)
        except RejectError:
            found = None
        if found is None:
            return Replayed(letter, client, request)
        return Replayed(letter, client, request, found.operation_id, identity.request_digest(client, found))

    async def tell(self, requests: Iterable[Replayed], wait_s: float) -> AsyncIterator[tuple[Replayed, Fate]]:
        """Each request with its fate, as they become known; when the time is up, what is known of the others.

        Args:
            wait_s: seconds for all of them together, give or take a last look.

        Raises:
            RetryError, HaltError: queue or record cannot be read now.
        """
        left, pause_s = list(requests), _FIRST_PAUSE_S
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            last_round = asyncio.get_running_loop().time() >= deadline
            come = {queue: await queues.delivered(self._js, *queue) for queue in {each.queue for each in left}}
            kept = []
            for each in left:
                taken = each.request <= come[each.queue]
                fate = await self._look(each) if taken else None  # what nobody has taken has left no trace
                if fate is None and last_round:
                    fate = _TAKEN if taken else _WAITING
                if fate is None:
                    kept.append(each)
                else:
                    yield each, fate
            left = kept
            if not left:
                return
            await asyncio.sleep(min(pause_s, max(0.0, deadline - asyncio.get_running_loop().time())))
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    async def _look(self, each: Replayed) -> Fate | None:
        # the queue before the record: what has left the queue is on record
        gone = await self._js.get(subjects.requests_stream(each.client), each.request) is None
        if refused := await self._refusal(each):
            return refused
        if each.operation_id is None:
            return None
        last = await self._record.last(each.letter.operation, each.operation_id)
        if last is None or last.event.client != each.client:
            return None
        if last.event.request_seq == each.request:
            return _taken_on(each, last.event)
        # the same payload alone joins; and an ended operation may yet be opened again by what is still queued
        if last.event.request_digest == each.digest and (gone or not last.event.final):
            return Fate(Kind.JOINED, f"joined its operation, which {standing(last.event)}")
        return None

    async def _refusal(self, each: Replayed) -> Fate | None:
        stored = await self._record.refusal(each.client, each.letter.operation, each.request)
        if stored is None:
            return None
        said = codec.decode(codec.content_type(stored.headers.get(CONTENT_TYPE)), stored.data)
        field = f"{said['field']}: " if said.get("field") else ""
        subject = subjects.dead(each.client, each.letter.operation, each.request)
        letter = await self._js.last(subjects.DEAD_STREAM, subject)  # stored before the refusal
        where = f" (dead letter {letter.sequence})" if letter else ""
        return Fate(Kind.REFUSED, f"refused again: {said.get('code')} {field}{said.get('reason')}{where}")


_TAKEN = Fate(Kind.TAKEN, "a daemon has taken it; nothing is on record yet")
_WAITING = Fate(Kind.WAITING, "no daemon has taken it yet")


def _taken_on(each: Replayed, event: Event) -> Fate:
    opened = event.attempt > 1 and REOPEN in each.letter.request_headers()
    kind = Kind.OPENED if opened else Kind.ACCEPTED
    now = "" if event.state is State.ACCEPTED else f"; it {standing(event)}"
    return Fate(kind, f"{'opened its operation again' if opened else 'accepted'}{now}")


def standing(event: Event) -> str:
    """How an operation stands by its last event."""
    facts = [event.state.value]
    if event.state is State.FAILED:
        facts += [str(event.body["code"]), f"outcome {event.outcome}"]
    return f"{'ended' if event.final else 'is under way'} ({', '.join(facts)})"
