"""Where requests stand while operators' orders hold them back: before the signer is asked, and before the record.

Invariants:
- nothing is recorded as signed without a lease, nor while a freeze that this replica has seen covers it: looked at
  before the signer is asked, and again just before the record;
- bytes that were recorded before a freeze go on to their end; bytes recorded after one (by a replica that was suspended
  between its last look and its write) go nowhere while it lasts, whoever holds them: the record's own sequence says
  which came first;
- whoever waits here holds no place of a lane and no slot, and its deadline goes on;
- a replica confirms an order when it has seen it and no record that it began without it is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

from initiator import __version__
from initiator.bus.connection import Connection, Message
from initiator.core import subjects
from initiator.core.events import State
from initiator.core.lifecycle import BEFORE_NO_RETURN, Step, outcome_before_publishing
from initiator.core.model import Operation
from initiator.errors import Code, RejectError, RetryError
from initiator.flow.board import Board
from initiator.flow.clock import Clock
from initiator.flow.held import Held
from initiator.flow.journal import Journal
from initiator.flow.lease import Lease
from initiator.flow.permit import CallPermit
from initiator.flow.work import Work, expired
from initiator.metrics import Metrics
from initiator.record import Entry, Record
from initiator.rollcall import LEASE_S

LOOK_S = 30.0
"""So often whoever waits here reads its record although nobody woke it: a notice may be lost."""


@dataclass(frozen=True, slots=True)
class Stop:
    """What holds a request back; `ordered`: an operator, else nobody knows the orders."""

    code: Code
    reason: str
    ordered: bool


class Recording:
    """One record of signed bytes, under way between its beginning and its end."""

    __slots__ = ("_gate", "_last", "ended")

    def __init__(self, gate: SigningGate, last: Entry) -> None:
        self._gate = gate
        self._last = last
        self.ended: asyncio.Event | None = None  # where somebody waits for it

    def still(self) -> None:
        """Raises RetryError where it must not be begun, or tried again, now."""
        event = self._last.event
        _raise(self._gate._barred(event.client, event.operation))

    def __enter__(self) -> Recording:
        self.still()
        self._gate._under_way.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._gate._under_way.discard(self)
        if self.ended is not None:
            self.ended.set()


class SigningGate:
    """One replica's gate.

    Args:
        refuse: whether requests that would wait for an operator are refused instead.
    """

    def __init__(
        self,
        *,
        lease: Lease,
        permit: CallPermit,
        record: Record,
        journal: Journal,
        board: Board,
        clock: Clock,
        metrics: Metrics,
        refuse: bool,
    ) -> None:
        self._lease = lease
        self._permit = permit
        self._record = record
        self._journal = journal
        self._board = board
        self._clock = clock
        self._metrics = metrics
        self._refuse = refuse
        self._waiting: dict[int, Work] = {}
        self._under_way: set[Recording] = set()
        self._confirming: set[asyncio.Task[None]] = set()
        lease.on_change(self._wake)

    # --- the looks

    def stops(self, step: Step, last: Entry) -> Stop | None:
        """What holds back an operation's next step, if anything does."""
        if step is Step.SIGN:
            return self._stop(last.event.client, last.event.operation)
        if step is Step.AUTHORIZE:
            return self._barred(last.event.client, last.event.operation)
        if step in (Step.PUBLISH, Step.SEND_ONCE) and last.event.state is State.SIGNED:
            return self._barred(last.event.client, last.event.operation, last.sequence)
        return None

    def _stop(self, client: str, operation: Operation) -> Stop | None:
        if barred := self._barred(client, operation):
            return barred
        return Stop(Code.STOP_LINE, self._permit.reason, ordered=True) if self._permit.reached else None

    def _barred(self, client: str, operation: Operation, recorded: int | None = None) -> Stop | None:
        if not self._lease.held:
            return Stop(self._lease.problem.code, f"no lease to sign: {self._lease.problem.reason}", ordered=False)
        # late writer: suspended before its write, it wakes and has recorded a signature in the middle of a freeze
        if freeze := self._lease.orders.freeze_of(client, operation, recorded):
            return Stop(Code.FROZEN, str(freeze), ordered=True)
        return None

    def frozen(self, client: str, operation: Operation) -> bool:
        """Whether requests wait for an operator, and not for anything that is amiss."""
        stop = self._stop(client, operation)
        return stop is not None and stop.ordered

    def admit(self, held: Held) -> None:
        """Raises RejectError where a request that is not claimed yet is refused instead of waiting."""
        stop = self._stop(held.client, held.operation) if self._refuse else None
        if stop is not None and stop.ordered:
            raise RejectError(stop.code, stop.reason)

    def check(self, last: Entry) -> None:
        """Raises RetryError where nothing may be signed for this operation now."""
        _raise(self._stop(last.event.client, last.event.operation))

    def recording(self, last: Entry) -> Recording:
        """To be entered around the record of signed bytes: a roll call waits for its end.

        Raises (when it is entered):
            RetryError: as `check`, but for the stop line: this call was spent before it.
        """
        return Recording(self, last)

    # --- waiting

    async def hold(self, work: Work, last: Entry, stop: Stop) -> Entry:
        """Wait until the orders are others or the record moves; returns what is recorded then.

        At the deadline, or at once where waiting is not wanted, `failed` is.
        """
        work.held.working = False
        late, refused = expired(last, self._clock.now()), self._refuse and stop.ordered
        if late or (refused and last.event.state in BEFORE_NO_RETURN):
            reason = f"{late}: {stop.reason}" if late else stop.reason
            return await self._journal.fail(last, stop.code, reason, outcome_before_publishing(last.event))
        self._waiting[id(work)] = work
        self._metrics.held_back.set(len(self._waiting))
        try:
            with self._board.watch(work.operation, work.operation_id) as watch:
                await watch.wait(min(LOOK_S, last.event.expires_at - self._clock.now()))
        finally:
            del self._waiting[id(work)]
            self._metrics.held_back.set(len(self._waiting))
        return await self._record.last(work.operation, work.operation_id) or last

    def _wake(self) -> None:
        for work in tuple(self._waiting.values()):
            self._board.poke(work.operation, work.operation_id)

    # --- confirming

    async def listen(self, connection: Connection) -> None:
        """Answer roll calls from now on. Raises RetryError."""

        async def on_call(message: Message) -> None:
            if message.reply:
                task = asyncio.create_task(self._confirm(connection, message))
                self._confirming.add(task)
                task.add_done_callback(self._confirming.discard)

        await connection.subscribe(subjects.ROLLCALL, on_call)

    async def _confirm(self, connection: Connection, message: Message) -> None:
        wanted = _sequence(message.data)
        await self._lease.renew()
        if wanted is None or self._lease.orders.sequence < wanted:
            return
        try:
            async with asyncio.timeout(LEASE_S):
                await self._settled()
        except TimeoutError:
            return  # then it is waited out
        said: dict[str, Any] = {"id": self._lease.replica_id, "version": __version__, "confirmed": wanted}
        with contextlib.suppress(RetryError):
            await connection.publish(message.reply, json.dumps(said).encode())

    async def _settled(self) -> None:
        """Until every record that is under way now has ended."""
        for recording in tuple(self._under_way):
            recording.ended = recording.ended or asyncio.Event()
            if recording in self._under_way:
                await recording.ended.wait()


def _raise(stop: Stop | None) -> None:
    if stop is not None:
        raise RetryError(stop.code, stop.reason, delay_s=0.0)


def _sequence(data: bytes) -> int | None:
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        sequence = json.loads(data)["sequence"]
        return sequence if type(sequence) is int else None
    return None
