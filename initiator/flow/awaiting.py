"""Waiting for what others record of an operation: the nodes' result, or the holder of the request that has its id."""

from __future__ import annotations

from initiator.config.schema import Settings
from initiator.core import events
from initiator.core.events import Outcome
from initiator.core.lifecycle import PROVISIONAL_WAIT_S
from initiator.errors import Code, HaltError
from initiator.flow.board import Board
from initiator.flow.clock import Clock
from initiator.flow.journal import Journal
from initiator.flow.work import Work
from initiator.record import Entry, Record


class Awaiting:
    """The two steps that do nothing themselves. Whoever is woken reads the record."""

    def __init__(self, *, settings: Settings, record: Record, journal: Journal, board: Board, clock: Clock) -> None:
        self._settings = settings
        self._record = record
        self._journal = journal
        self._board = board
        self._clock = clock

    async def final(self, work: Work, last: Entry) -> Entry:
        """Wait until the record moves: a result recorded by any replica, or our own time limit."""
        deadline, code, reason = self._result_deadline(last)
        with self._board.watch(work.operation, work.operation_id) as watch:
            current = await self._record.last(work.operation, work.operation_id)
            while current is not None and current.sequence == last.sequence:
                remaining_s = deadline - self._clock.now()
                if remaining_s <= 0:
                    extra = {"node_code": last.event.body["provisional_code"]} if code is Code.NODES_ERROR else {}
                    return await self._journal.fail(last, code, reason, Outcome.UNKNOWN, **extra)
                # the heartbeat's pace: another replica may have recorded the result
                await watch.wait(min(remaining_s, self._settings.worker.heartbeat_s))
                current = await self._record.last(work.operation, work.operation_id)
        if current is None:
            raise HaltError(Code.RECORD_LOST, "the record of a published operation is gone")
        return current

    def _result_deadline(self, last: Entry) -> tuple[float, Code, str]:
        """When to stop waiting, and what to say then. Our giving up cancels nothing at the nodes."""
        lane = self._settings.mpcium.lane(last.event.operation)
        body = last.event.body
        if "provisional_code" in body:
            limit = last.stored_at + PROVISIONAL_WAIT_S[last.event.operation]
            candidates = [(limit, Code.NODES_ERROR, str(body.get("provisional_reason", "")))]
        else:
            limit = last.stored_at + lane.result_timeout_s
            candidates = [(limit, Code.RESULT_TIMEOUT, f"no result within {lane.result_timeout_s:g} s of publishing")]
        expires_at = last.event.expires_at
        candidates.append((expires_at, Code.DEADLINE_EXCEEDED, f"expired at {events.format_time(expires_at)}"))
        return min(candidates)

    async def next_event(self, work: Work, last: Entry) -> Entry:
        """Another request holds this operation: wait until it moves, or until its holder must be gone."""
        with self._board.watch(work.operation, work.operation_id) as watch:
            await watch.wait(self._settings.worker.heartbeat_s)
            current = await self._record.last(work.operation, work.operation_id)
        return current or last
