"""From recorded bytes to the nodes, once only.

Invariants:
- only bytes read from (or just written to) the record are published, on the attempt's own token;
- a slot is held from just before the publication; waiting for a slot holds none;
- what is not freshly acknowledged is read back and compared; where the nodes' stream may have forgotten, nothing
  is published and the outcome is unknown;
- nor is it where the record itself went back after it had signed bytes: what it says now proves nothing;
- a reshare has no stream: `publishing` is recorded first, and whoever finds it never sends again.
"""

from __future__ import annotations

import hashlib

from initiator.bus.connection import NoRespondersError
from initiator.bus.nodes import NodeGateway, NodeMessage
from initiator.core.events import Outcome, State, format_time
from initiator.core.lifecycle import outcome_before_publishing
from initiator.core.model import Operation
from initiator.errors import Code, InitiatorError, RetryError
from initiator.flow.clock import Clock
from initiator.flow.journal import Journal
from initiator.flow.lane import Lane
from initiator.flow.work import WENT_BACK, Work, expired
from initiator.log import get_logger
from initiator.record import Entry, Record

log = get_logger()


class Publisher:
    """The two steps that reach the nodes.

    Args:
        clock_skew_s: margin between the clocks of the servers that hold the record and the nodes' stream.
    """

    def __init__(
        self,
        *,
        record: Record,
        journal: Journal,
        gateway: NodeGateway,
        lanes: dict[Operation, Lane],
        clock: Clock,
        clock_skew_s: float,
    ) -> None:
        self._record = record
        self._journal = journal
        self._gateway = gateway
        self._lanes = lanes
        self._clock = clock
        self._clock_skew_s = clock_skew_s

    async def publish(self, work: Work, last: Entry) -> Entry:
        """Publish a keygen or sign event; returns `published`, or `failed` where that cannot be proved once only."""
        prepared = await self._prepare(work, last)
        if isinstance(prepared, Entry):
            return prepared
        fresh = work.fresh(self._clock.loop_time())
        work.recorded_at = None
        while True:
            if not fresh:
                settled = await self._look(work, last, prepared)
                if settled is not None:
                    return settled
            asked_at = self._clock.now()
            try:
                if await self._gateway.publish(prepared):
                    return await self._published(last, asked_at)
            except InitiatorError as error:
                late = expired(last, self._clock.now())
                if late or error.code is Code.TOO_LARGE:  # else it would be tried for ever, and keep its slot
                    reason = f"{late}: {error.reason}" if late else error.reason
                    return await self._journal.fail(last, error.code, reason, Outcome.UNKNOWN)
                raise
            fresh = False

    def nodes_stream(self, operation: Operation) -> str | None:
        """Which stream the nodes take such requests from now; see `NodeGateway.birth`."""
        return self._gateway.birth(operation)

    async def _look(self, work: Work, last: Entry, wanted: NodeMessage) -> Entry | None:
        """What an earlier try of this attempt left behind; None if surely nothing: then it may be published."""
        found = await self._gateway.find(wanted.operation, wanted.operation_id, wanted.attempt)
        if found is not None and found.data == wanted.data:
            return await self._published(last, found.time)
        if found is not None:
            reason = "the nodes' stream holds other bytes than those recorded for this attempt"
            return await self._journal.fail(last, Code.PUBLISH_UNCERTAIN, reason, Outcome.UNKNOWN)
        if work.went_back:
            return await self._journal.fail(last, Code.RECORD_LOST, WENT_BACK, Outcome.UNKNOWN)
        if await self._gateway.may_have_forgotten(wanted, last.stored_at, self._clock_skew_s):
            # absence proves nothing: published, answered and dropped by the stream's limits looks the same
            reason = "the nodes' stream no longer reaches back to when the bytes were recorded"
            return await self._journal.fail(last, Code.PUBLISH_UNCERTAIN, reason, Outcome.UNKNOWN)
        return None

    async def _published(self, last: Entry, at: float) -> Entry:
        """Record `published`, with the time at which the nodes could first see it: whoever took over may be late."""
        return await self._journal.move(last, State.PUBLISHED, {"published_at": format_time(at)})

    async def send_reshare(self, work: Work, last: Entry) -> Entry:
        """Send a reshare event; returns what is recorded then.

        `published`, `publishing` (perhaps sent), `retrying` (surely not sent) or `failed`.
        """
        prepared = await self._prepare(work, last)
        if isinstance(prepared, Entry):
            return prepared
        if work.went_back:
            return await self._journal.fail(last, Code.RECORD_LOST, WENT_BACK, Outcome.UNKNOWN)
        publishing = await self._journal.move(last, State.PUBLISHING, {})
        asked_at = self._clock.now()
        try:
            await self._gateway.send_reshare(prepared)
        except NoRespondersError as error:
            await self._leave_slot(work)
            if expired(publishing, self._clock.now()):
                return await self._journal.fail(publishing, Code.NODES_ABSENT, error.reason, Outcome.NONE)
            return await self._try_again_later(publishing, error)
        except RetryError as error:
            log.warning(
                "request.publication_unsure", op=work.operation.value, id=work.operation_id, code=error.code.value
            )
            return publishing
        return await self._published(publishing, asked_at)

    async def _try_again_later(self, publishing: Entry, error: NoRespondersError) -> Entry:
        """Nobody got it, by the server's own word: open the next attempt."""
        attempt = publishing.event.attempt + 1
        body = {
            "code": Code.NODES_ABSENT.value,
            "reason": error.reason,
            "not_before": format_time(self._clock.now() + min(2.0 ** min(attempt - 1, 5), 30.0)),
        }
        return await self._journal.move(publishing, State.RETRYING, body, attempt=attempt)

    async def _prepare(self, work: Work, last: Entry) -> NodeMessage | Entry:
        """The recorded bytes and a slot for them, or the `failed` event where one of them is not to be had."""
        node_message = await self._recorded(last)
        if node_message is None:
            reason = "the recorded bytes have expired from the record"
            return await self._journal.fail(last, Code.RECORD_LOST, reason, Outcome.UNKNOWN)
        lane = self._lanes[work.operation]
        if not await lane.take_slot(
            work.held.client, work.operation_id, lambda: bool(expired(last, self._clock.now()))
        ):
            code, reason = Code.DEADLINE_EXCEEDED, f"{expired(last, self._clock.now())} while waiting for a slot"
            if last.event.state is State.RETRYING:  # the cause is what kept it from being published before
                code, reason = Code(last.event.body["code"]), f"{reason}; before that: {last.event.body['reason']}"
            return await self._journal.fail(last, code, reason, outcome_before_publishing(last.event))
        work.holds_slot = True
        return node_message

    async def _recorded(self, last: Entry) -> NodeMessage | None:
        """The bytes recorded for this attempt; None if the record has lost them."""
        event = last.event
        sealed = last
        if event.state is not State.SIGNED:
            found = await self._record.signed(event.client, event.operation, event.operation_id)
            if found is None:
                return None
            sealed = found
        return NodeMessage(
            operation=event.operation,
            operation_id=event.operation_id,
            attempt=event.attempt,
            data=sealed.event.body["message"],
            session_id=session_of(sealed.event.body["session"], event.attempt),
            # a further attempt is published after it was opened: whatever stream there was before does not count
            stream=(last if event.state is State.RETRYING else sealed).event.body.get("nodes_stream"),
        )

    async def _leave_slot(self, work: Work) -> None:
        await self._lanes[work.operation].free_slot(work.operation_id)
        work.holds_slot = False


def session_of(secret: str, attempt: int) -> str:
    """The SessionID of an attempt: fresh for each, the same for whoever takes over, and not for clients to know."""
    return hashlib.sha256(f"{secret}:{attempt}".encode()).hexdigest()[:32]
