"""Cancelling: `initiator.cancel.<client>` with `{"op": …, "id": …}` ends an operation that nothing was signed for yet.

Invariants:
- a cancelled operation is `failed` with outcome `none`, which is true because complete recorded bytes are the point of
  no return: once they are recorded, it is too late;
- it stays so: what is cancelled is never opened again, and cancelling another failure gives it a new last event, so
  that a request which waits to go on after the old one finds that it is not the last any more. Whoever cancelled may
  ask under another id.
"""

from __future__ import annotations

from typing import Any

from initiator.core.events import Outcome, State
from initiator.core.lifecycle import BEFORE_NO_RETURN
from initiator.errors import Code, RejectError
from initiator.flow.answering import Answering, id_of, operation_of, refuse_unknown
from initiator.flow.journal import Journal
from initiator.flow.query import shown
from initiator.record import MovedError, Record


class CancelService:
    """Answers clients who change their mind."""

    def __init__(self, answering: Answering, record: Record, journal: Journal) -> None:
        self._answering = answering
        self._record = record
        self._journal = journal

    async def start(self) -> None:
        await self._answering.serve("initiator.cancel.*", {"cancel": self._answer})

    async def _answer(self, client: str, body: dict[str, Any]) -> dict[str, Any]:
        """`{"cancelled": true, "event": the final event}`.

        Raises:
            RejectError: `NOT_FOUND` or `TOO_LATE`; or the body names no operation.
        """
        refuse_unknown(body, ("op", "id"))
        operation, operation_id = operation_of(body), id_of(body)
        last = await self._record.last(operation, operation_id)
        while True:
            if last is None or last.event.client != client:
                raise RejectError(Code.NOT_FOUND, "no operation of yours has this id, or not yet", field="id")
            if last.event.state is State.FAILED and last.event.body["code"] == Code.CANCELLED:
                return {"cancelled": True, "event": shown(last.stored)}
            if last.event.outcome is not Outcome.NONE and last.event.state not in BEFORE_NO_RETURN:
                reason = f"it is {last.event.state} already"
                if last.event.state is State.FAILED:
                    reason = "it has failed, and the nodes may have signed"
                raise RejectError(Code.TOO_LATE, reason, field="id")
            try:
                cancelled = await self._journal.fail(last, Code.CANCELLED, "cancelled by its client", Outcome.NONE)
            except MovedError as moved:
                last = moved.last
            else:
                return {"cancelled": True, "event": shown(cancelled.stored)}
