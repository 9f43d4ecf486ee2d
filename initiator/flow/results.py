"""The nodes' results back into the record.

Order for each result: correlate ► read the record ► judge ► verify ► record ► free the slot ► ack. The ack comes
last, since a missed result cannot be asked for again; and since three failed deliveries would strand it, a result
in hand is never handed back: its steps are repeated here until they succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from initiator.bus.connection import Connection
from initiator.bus.pull import Delivery
from initiator.core import events, message
from initiator.core.events import Outcome, State
from initiator.core.lifecycle import Verdict, judge_result
from initiator.core.model import Operation
from initiator.core.result import NodeResult, parse_result, result_body
from initiator.core.wallet import Status
from initiator.errors import Code, InitiatorError, RejectError, RetryError
from initiator.flow.clock import Clock
from initiator.flow.held import ACK, PROGRESS
from initiator.flow.journal import Journal
from initiator.flow.lane import Lane
from initiator.flow.verification import ResultVerifier, other_keys
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.record import Entry, MovedError, Record

log = get_logger()
RETRY_DELAY_S = 0.25
RETRY_MAX_S = 5.0
LATER_S = 0.2
LATER_TRIES = 50
NOT_READY_BACKOFF_S = 2.0


class Results:
    """Settles results of the nodes, many at once, each until it is recorded.

    Args:
        clock_skew_s: how far the clocks of replicas and of the nodes' server may differ.
        nodes_stream: see `NodeGateway.birth`.
    """

    def __init__(
        self,
        *,
        connection: Connection,
        record: Record,
        journal: Journal,
        verifier: ResultVerifier,
        lanes: dict[Operation, Lane],
        clock: Clock,
        clock_skew_s: float,
        nodes_stream: Callable[[Operation], str | None],
        metrics: Metrics,
    ) -> None:
        self._connection = connection
        self._nodes_stream = nodes_stream
        self._record = record
        self._journal = journal
        self._verifier = verifier
        self._lanes = lanes
        self._clock = clock
        self._clock_skew_s = clock_skew_s
        self._metrics = metrics
        self._in_hand: dict[tuple[Operation, int], Delivery] = {}

    def __len__(self) -> int:
        return len(self._in_hand)

    def accept(self, operation: Operation, delivery: Delivery) -> asyncio.Task[None] | None:
        """Begin to settle a delivered result; None if it is in hand already (its ack subject is renewed)."""
        key = (operation, delivery.sequence)
        known = key in self._in_hand
        self._in_hand[key] = delivery
        return None if known else asyncio.create_task(self._settle(operation, delivery.sequence))

    async def heartbeat(self) -> None:
        """Keep the results in hand from being delivered again."""
        for delivery in tuple(self._in_hand.values()):
            await self._say(delivery, PROGRESS)

    async def _say(self, delivery: Delivery, word: bytes) -> None:
        try:
            await self._connection.publish(delivery.message.reply, word)
        except InitiatorError:
            return  # disconnected: it is delivered again, and the record says that it is settled

    async def _settle(self, operation: Operation, sequence: int) -> None:
        key = (operation, sequence)
        delay_s = RETRY_DELAY_S
        try:
            while True:
                delivery = self._in_hand[key]
                try:
                    await self._process(operation, delivery)
                    break
                except MovedError:
                    continue  # another write came first: judge again
                except InitiatorError as error:
                    log.warning("result.step_retried", op=operation.value, code=error.code.value, reason=error.reason)
                    await self._clock.sleep(delay_s)
                    delay_s = min(delay_s * 2, RETRY_MAX_S)
            await self._say(self._in_hand[key], ACK)
        finally:
            self._in_hand.pop(key, None)

    async def _process(self, operation: Operation, delivery: Delivery) -> None:
        """One result to its end; returns when it may be acked."""
        try:
            result = parse_result(operation, delivery.message.data)
        except RejectError as error:
            await self._bury(operation, delivery, error, Verdict.ORPHAN)
            return
        for _ in range(LATER_TRIES):
            last = await self._correlate(operation, delivery, result)
            verdict = self._judge(last, result, delivery)
            if verdict is not Verdict.LATER:
                await self._apply(verdict, operation, delivery, result, last)
                return
            await self._clock.sleep(LATER_S)
        # whoever published is gone: another replica finds the message at the nodes and records it; until then we wait
        raise RetryError(Code.RECORD_BUSY, "the publication that this result answers is not recorded yet")

    def _judge(self, last: Entry | None, result: NodeResult, delivery: Delivery) -> Verdict:
        if last is None:
            return Verdict.ORPHAN
        verdict = judge_result(last.event, result, delivery.stored_at, self._clock_skew_s)
        if verdict is Verdict.IGNORE and last.event.state is State.COMPLETED and other_keys(last.event, result):
            return Verdict.CONTRADICTION
        return verdict

    async def _correlate(self, operation: Operation, delivery: Delivery, result: NodeResult) -> Entry | None:
        """The record of the operation that a result answers."""
        token = delivery.message.subject.rpartition(".")[2]
        operation_id = result.operation_id or token
        if not events.is_id(operation_id):
            return None
        entry = await self._record.last(operation, operation_id)
        if entry is None and operation is Operation.RESHARE:
            return await self._reshare_in_flight(result)
        return entry

    async def _reshare_in_flight(self, result: NodeResult) -> Entry | None:
        """v0.3.5 sends a reshare's error under its wallet_id: it answers the one in flight, if the wallet agrees."""
        current = await self._lanes[Operation.RESHARE].current_holder()
        entry = await self._record.last(Operation.RESHARE, current) if current else None
        sealed = await self._sealed(entry) if entry else None
        if entry is None or sealed is None:
            return None
        request = message.parse_event(Operation.RESHARE, sealed.event.body["message"]).request
        return entry if request.wallet_id == result.wallet_id else None

    async def _sealed(self, last: Entry) -> Entry | None:
        """The recorded bytes of an operation."""
        event = last.event
        if event.state is State.SIGNED:
            return last
        return await self._record.signed(event.client, event.operation, event.operation_id)

    async def _apply(
        self, verdict: Verdict, operation: Operation, delivery: Delivery, result: NodeResult, last: Entry | None
    ) -> None:
        self._metrics.results.labels(operation, verdict.value).inc()
        if last is None or verdict is Verdict.ORPHAN:
            reason = "no operation of ours was published under this id"
            await self._bury(operation, delivery, RejectError(Code.RESULT_ORPHANED, reason), Verdict.ORPHAN)
        elif verdict is Verdict.COMPLETE:
            await self._complete(operation, delivery, result, last)
        elif verdict is Verdict.FAIL:
            entry = await self._journal.fail(
                last, Code.NODES_ERROR, result.error_reason, Outcome.UNKNOWN, node_code=result.error_code
            )
            await self._free(entry)
        elif verdict is Verdict.RETRY:
            await self._retry(result, last)
        elif verdict is Verdict.HOLD:
            await self._note_provisional(result, last)
        elif verdict is Verdict.CONTRADICTION and result.success:
            # substitution: one of the two was not made by the nodes, and nothing says which
            reason = "the nodes have answered before, with other keys: one of the two answers is forged"
            log.error("result.keys_contradicted", id=last.event.operation_id, client=last.event.client)
            await self._bury(operation, delivery, RejectError(Code.RESULT_INVALID, reason), Verdict.CONTRADICTION)
        elif verdict is Verdict.CONTRADICTION:
            log.warning("result.contradicted", op=operation.value, id=last.event.operation_id,
                        state=last.event.state.value, node_code=result.error_code)  # fmt: skip
        if last is not None and last.event.final:
            await self._free(last)  # a crash may have come between the final event and the slot

    async def _complete(self, operation: Operation, delivery: Delivery, result: NodeResult, last: Entry) -> None:
        sealed = await self._sealed(last)
        if sealed is None:
            # given up before anything was signed, or its bytes have expired: nothing to hold the result against
            reason = "nothing that was signed under this id is on record"
            await self._bury(operation, delivery, RejectError(Code.RESULT_ORPHANED, reason), Verdict.ORPHAN)
            return
        verification = await self._verifier.verify(sealed.event.body["message"], result)
        if verification.status is Status.INVALID:
            await self._refuse(operation, delivery, verification.reason, last)
            return
        body: dict[str, Any] = {
            "result": {"wallet_id": result.wallet_id} | result_body(result.value),
            "verification": verification.status.value,
        }
        if verification.reason:
            body["verification_reason"] = verification.reason
        if last.event.state is State.FAILED:
            body["supersedes"] = {"event_id": last.event.event_id, "outcome": last.event.body["outcome"]}
            log.error("request.superseded", op=operation.value, id=last.event.operation_id,
                      outcome=last.event.body["outcome"])  # fmt: skip
        entry = await self._journal.move(last, State.COMPLETED, body)
        await self._free(entry)

    async def _refuse(self, operation: Operation, delivery: Delivery, reason: str, last: Entry) -> None:
        """A success that is not true: kept as evidence, never shown as success."""
        error = RejectError(Code.RESULT_INVALID, reason)
        await self._bury(operation, delivery, error, Verdict.FAIL)
        if last.event.state is not State.FAILED:
            entry = await self._journal.fail(last, Code.RESULT_INVALID, reason, Outcome.UNKNOWN)
            await self._free(entry)

    async def _retry(self, result: NodeResult, last: Entry) -> None:
        """Surely no session was begun: open the next attempt, with the recorded signature and a fresh session."""
        attempt = last.event.attempt + 1
        wait_s = min(NOT_READY_BACKOFF_S * 2 ** min(attempt - 2, 4), 30.0)
        body = {
            "code": Code.NODES_NOT_READY.value,
            "reason": result.error_reason,
            "node_code": result.error_code,
            "not_before": events.format_time(self._clock.now() + wait_s),
            "nodes_stream": self._nodes_stream(last.event.operation),
        }
        await self._free(last)  # between attempts no slot is held
        await self._journal.move(last, State.RETRYING, body, attempt=attempt)

    async def _note_provisional(self, result: NodeResult, last: Entry) -> None:
        """SESSION_DUPLICATE and the like: noted in the record, so that the wait ends earlier and says why."""
        body = dict(last.event.body) | {
            "provisional_code": result.error_code,
            "provisional_reason": result.error_reason,
        }
        await self._journal.move(last, State.PUBLISHED, body)

    async def _free(self, entry: Entry) -> None:
        await self._lanes[entry.event.operation].free_slot(entry.event.operation_id)

    async def _bury(self, operation: Operation, delivery: Delivery, error: InitiatorError, verdict: Verdict) -> None:
        await self._journal.bury_result(operation, delivery, error)
        log.warning("result.buried", op=operation.value, verdict=verdict.value, code=error.code.value,
                    reason=error.reason, field=error.field)  # fmt: skip
