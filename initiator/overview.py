"""What is going on, for an operator: replicas, lanes, waiting requests, rates, latencies and the last failures.

Read with the daemon's own login from what is there anyway: the streams, the events as they are told, and what each
replica answers for itself. Nothing is asked of the pipeline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from initiator.bus import queues
from initiator.bus.connection import Message
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core import codec, events, subjects
from initiator.core.model import Operation
from initiator.errors import InitiatorError
from initiator.orders import OrderBook
from initiator.slots import Slots
from initiator.stopline import Counter

WINDOW_S = 60.0
FAILURES_KEPT = 50
BEGUN_KEPT = 100_000
ANSWER_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One daemon, by its own word.

    Attributes:
        trouble: what is not well, in words; empty where all is.
    """

    id: str
    version: str
    ready: bool
    held: int
    trouble: str
    key_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """One operation over all replicas and clients.

    Attributes:
        waiting: unfinished requests in all queues.
        in_flight, cap: at the nodes; cap 0: no cap, and then nothing is counted.
        completed_per_s, failed_per_s, rejected_per_s: over the window.
        latencies_s: p50, p95 and p99 of accepted to completed, over the window; empty where nothing was completed.
    """

    operation: Operation
    waiting: int
    in_flight: int
    cap: int
    completed_per_s: float
    failed_per_s: float
    rejected_per_s: float
    latencies_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed or rejected request."""

    time: str
    operation: str
    client: str
    id: str
    code: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of it at one moment.

    Attributes:
        held_back: what operators' orders hold back, a line each; also that nobody can read them.
        clients: those with most requests waiting, and how many.
        window_s: what rates and latencies are over: shorter at the beginning.
    """

    replicas: tuple[Replica, ...]
    lanes: tuple[LaneView, ...]
    held_back: tuple[str, ...]
    clients: tuple[tuple[str, int], ...]
    failures: tuple[Failure, ...]
    window_s: float


@dataclass(slots=True)
class _Counts:
    """What was told of one operation in the window: when, and how long it had taken."""

    completed: deque[tuple[float, float]] = field(default_factory=deque)
    failed: deque[float] = field(default_factory=deque)
    rejected: deque[float] = field(default_factory=deque)

    def forget(self, before: float) -> None:
        while self.completed and self.completed[0][0] < before:
            self.completed.popleft()
        for times in (self.failed, self.rejected):
            while times and times[0] < before:
                times.popleft()


_TOLD = ("client", "id", "code", "outcome", "reason", "time")


class Tally:
    """Counts events as they are told; repeated announcements left out."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._counts = {operation: _Counts() for operation in Operation}
        self._begun: dict[tuple[str, str], float] = {}
        self.failures: deque[Failure] = deque(maxlen=FAILURES_KEPT)

    def hear(self, fields: dict[str, Any]) -> None:
        """One event. Raises ValueError, KeyError, TypeError or AttributeError for what is none."""
        operation, state = Operation(fields["op"]), fields["state"]
        key, at = (operation.value, str(fields.get("id"))), events.parse_time(fields["time"])
        counts, now = self._counts[operation], self._now()
        if state == "accepted":
            self._begun[key] = at
            if len(self._begun) > BEGUN_KEPT:
                self._begun.pop(next(iter(self._begun)))
        elif state == "completed":
            counts.completed.append((now, max(0.0, at - self._begun.pop(key, at))))
        elif state in ("failed", "rejected"):
            self._begun.pop(key, None)
            (counts.failed if state == "failed" else counts.rejected).append(now)
            texts = {name: str(fields.get(name) or "") for name in _TOLD}
            texts["id"] = texts["id"] or f"(request {fields.get('request_seq')})"
            self.failures.appendleft(Failure(operation=operation.value, **texts))

    @property
    def window_s(self) -> float:
        return max(1.0, min(WINDOW_S, self._now() - self._began))

    def lane(self, operation: Operation, waiting: int, in_flight: int, cap: int) -> LaneView:
        """One operation's part of a snapshot."""
        counts, window_s = self._counts[operation], self.window_s
        counts.forget(self._now() - window_s)
        took = sorted(took_s for _, took_s in counts.completed)
        return LaneView(
            operation=operation,
            waiting=waiting,
            in_flight=in_flight,
            cap=cap,
            completed_per_s=len(counts.completed) / window_s,
            failed_per_s=len(counts.failed) / window_s,
            rejected_per_s=len(counts.rejected) / window_s,
            latencies_s=tuple(took[min(len(took) - 1, int(len(took) * part))] for part in (0.5, 0.95, 0.99) if took),
        )


class Overview:
    """Watches one deployment; `start` it once, then `look` as often as you like."""

    def __init__(self, js: JetStream, settings: Settings) -> None:
        self._js = js
        self._settings = settings
        self._tally = Tally()

    async def start(self) -> None:
        """Listen to events from now on. Raises RetryError."""
        await self._js.connection.subscribe("initiator.out.>", self._on_event)

    async def _on_event(self, message: Message) -> None:
        if "Initiator-Repeated" in message.headers:
            return
        with contextlib.suppress(InitiatorError, ValueError, KeyError, TypeError):
            self._tally.hear(codec.decode(codec.content_type(message.headers.get("Content-Type")), message.data))

    async def look(self) -> Snapshot:
        """The present state. Raises RetryError, HaltError or NotFoundError."""
        replicas = asyncio.create_task(self._replicas())
        try:
            waiting, by_client = await queues.count(self._js)
            lanes = []
            for operation in Operation:
                cap = self._settings.mpcium.lane(operation).in_flight
                in_flight = await Slots(self._js, operation, cap).holders()
                lanes.append(self._tally.lane(operation, waiting[operation], in_flight, cap))
            most = sorted(by_client.items(), key=lambda item: (-item[1], item[0]))
            return Snapshot(
                replicas=await replicas,
                lanes=tuple(lanes),
                held_back=await self._held_back(),
                clients=tuple((client, count) for client, count in most if count),
                failures=tuple(self._tally.failures),
                window_s=self._tally.window_s,
            )
        finally:
            replicas.cancel()

    async def _held_back(self) -> tuple[str, ...]:
        """The orders are asked for by this view itself: they stand though no replica answers."""
        try:
            orders = await OrderBook(self._js).read()
            spent = (await Counter(self._js).read(orders.line.id)).calls if orders.line else 0
        except InitiatorError as error:
            return (f"nothing is signed: {error.code} {error.reason}",)
        said = [str(freeze) for freeze in orders.freezes]
        if orders.line and spent >= orders.line.limit:
            said.append(f"stop line reached: {orders.line.limit} calls, set by {orders.line.by}: {orders.line.reason}")
        return tuple(said)

    async def _replicas(self) -> tuple[Replica, ...]:
        """Whoever answers in time."""
        found: dict[str, Replica] = {}

        async def on_answer(message: Message) -> None:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
                replica = _replica(json.loads(message.data))
                found[replica.id] = replica

        inbox = self._js.connection.new_inbox()
        subscription = await self._js.connection.subscribe(inbox, on_answer)
        try:
            await self._js.connection.publish(subjects.HEALTH, b"", reply=inbox)
            await asyncio.sleep(ANSWER_S)
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
        return tuple(sorted(found.values(), key=lambda replica: replica.id))


def _replica(said: dict[str, Any]) -> Replica:
    amiss = [part for part in said["parts"] if not part["ok"]]
    notes = [f"{part['name']}: {part['note']}" for part in said["parts"] if part["ok"] and part["note"]]
    troubles = [f"{part['name']}: {part['code'] or ''} {part['reason']}".replace("  ", " ") for part in amiss]
    return Replica(
        id=str(said["id"]),
        version=str(said["version"]),
        ready=bool(said["ready"]),
        held=int(said["held"]),
        trouble="; ".join(troubles + notes),
        key_fingerprint=str(said["metadata"].get("key_fingerprint", "")),
    )
