"""Cancelling: `initiator.cancel.<client>` with `{"op": …, "id": …}` ends an operation that nothing was signed for yet.

Invariant: a cancelled operation is `failed` with outcome `none`, which is true because complete recorded bytes are
the point of no return: once they are recorded, it is too late.
"""

from __future__ import annotations

from typing import Any

from initiator.core.events import Outcome, State
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
        """`{"cancelled": true, "event": the final event}`, also when it was cancelled before.

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
            if last.event.state is not State.ACCEPTED:
                raise RejectError(Code.TOO_LATE, f"it is {last.event.state} already", field="id")
            try:
                last = await self._journal.fail(last, Code.CANCELLED, "cancelled by its client", Outcome.NONE)
            except MovedError as moved:
                last = moved.last
