"""The worker: takes requests from the queue, keeps them alive, lets the handler bring them to their end, acks.

Invariants:
- only this module acks, and only after `Handler.handle` returned (the final event is stored);
- what one client holds here is bounded, so that no client's backlog fills this replica;
- at shutdown: stop pulling, finish what is in flight up to a deadline, hand back the rest at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from initiator.bus import forms, queues, streams
from initiator.bus.errors import NotFoundError
from initiator.bus.jetstream import JetStream
from initiator.bus.pull import Delivery, Pull
from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.errors import InitiatorError
from initiator.flow.handler import Handler
from initiator.flow.held import Held, HeldRequests
from initiator.flow.results import Results
from initiator.flow.takeovers import Takeovers
from initiator.log import get_logger
from initiator.metrics import Metrics

log = get_logger()
RESULTS_IN_HAND = 256
CANCEL_AGAIN_S = 1.0
Pair = tuple[str, Operation]


class Worker:
    """All pulls of one replica, and the tasks that they feed.

    Args:
        js: JetStream of our own account.
        nodes_js: JetStream of the nodes' account.
        pairs: the client and operation of every request durable.
        ensure_queue: brings one client's queue into form, or makes it anew; whether it is there then.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        js: JetStream,
        nodes_js: JetStream,
        pairs: list[Pair],
        ensure_queue: Callable[[str], Awaitable[bool]],
        handler: Handler,
        held: HeldRequests,
        results: Results,
        takeovers: Takeovers,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._js = js
        self._nodes_js = nodes_js
        self._handler = handler
        self._held = held
        self._results = results
        self._takeovers = takeovers
        self._metrics = metrics
        self._held_by: Counter[Pair] = Counter()
        self._share = 0
        self._working: dict[asyncio.Task[None], Held] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._request_pulls: dict[Pair, Pull] = {}
        self._pulling: dict[Pair, asyncio.Task[None]] = {}
        self._pairs = pairs
        self._ensure_queue = ensure_queue
        self._stopping = False
        self._was_full = False
        self._result_pulls = {operation: self._result_pull(operation) for operation in Operation}

    # --- pulls

    def _request_pull(self, pair: Pair) -> Pull:
        client, operation = pair
        stream, form = subjects.requests_stream(client), queues.durable_form(self._settings, client, operation)

        async def ensure() -> None:
            try:
                await streams.ensure_durable(self._js, stream, form)
            except NotFoundError:  # somebody deleted the queue, and what waited in it
                if not await self._ensure_queue(client):
                    raise
                log.warning("worker.queue_made_anew", stream=stream)
                await streams.ensure_durable(self._js, stream, form)

        return Pull(
            self._js,
            stream,
            form["durable_name"],
            want=lambda: self._room_for(pair),
            on_delivery=lambda delivery: self._on_request(pair, delivery),
            ensure=ensure,
        )

    def _room_for(self, pair: Pair) -> int:
        worker = self._settings.worker
        left = worker.max_held - len(self._held)
        self._was_full = self._was_full or left <= 0
        return min(worker.prefetch_per_client, self._share - self._held_by[pair], left)

    def _result_pull(self, operation: Operation) -> Pull:
        form = forms.result_durable_form(operation, self._settings.mpcium.scoped_client_id)

        async def ensure() -> None:
            await streams.ensure_durable(self._nodes_js, subjects.NODE_RESULTS_STREAM, form)

        return Pull(
            self._nodes_js,
            subjects.NODE_RESULTS_STREAM,
            form["durable_name"],
            want=lambda: RESULTS_IN_HAND - len(self._results),
            on_delivery=lambda delivery: self._on_result(operation, delivery),
            ensure=ensure,
        )

    # --- deliveries

    def _on_request(self, pair: Pair, delivery: Delivery) -> None:
        client, operation = pair
        if delivery.delivered > 1:
            self._metrics.redelivered.labels(operation).inc()
        held = self._held.take(client, operation, delivery)
        if held is None:
            return
        self._metrics.received.labels(operation, client).inc()
        self._held_by[pair] += 1
        task = asyncio.create_task(self._work(held))
        self._working[task] = held
        task.add_done_callback(lambda done: self._worked(done, pair))

    async def _work(self, held: Held) -> None:
        """One request to its end. An error that nobody foresaw leaves it unacked: another try comes by redelivery."""
        # injection: the subject on the message, not the durable's name, says who asks
        parsed = subjects.parse_request(held.delivery.message.subject)
        if parsed is None or (parsed.client, parsed.operation) != (held.client, held.operation):
            log.error("request.misdelivered", subject=held.delivery.message.subject, request_seq=held.sequence)
            self._held.forget(held)
            return
        try:
            await self._handler.handle(held)
        except Exception as error:
            log.exception("request.handler_failed", request_seq=held.sequence, error_type=type(error).__name__)
            self._held.forget(held)
            return
        await self._held.settle(held)

    def _worked(self, task: asyncio.Task[None], pair: Pair) -> None:
        self._working.pop(task, None)
        self._held_by[pair] -= 1
        if self._was_full:  # somebody else's request may have stood in the way of anybody's
            self._was_full = False
            self._wake_all()
        elif pair in self._request_pulls:
            self._request_pulls[pair].wake()

    def _wake_all(self) -> None:
        for pull in self._request_pulls.values():
            pull.wake()

    def _on_result(self, operation: Operation, delivery: Delivery) -> None:
        task = self._results.accept(operation, delivery)
        if task is not None:
            self._settling.add(task)
            task.add_done_callback(lambda done: self._settled(done, operation))

    def _settled(self, task: asyncio.Task[None], operation: Operation) -> None:
        self._settling.discard(task)
        for pull in self._result_pulls.values():  # they share one bound
            pull.wake()

    # --- life

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain."""
        await self.serve(self._pairs)
        result_pulls = [asyncio.create_task(pull.run()) for pull in self._result_pulls.values()]
        heartbeat = asyncio.create_task(self._heartbeat())
        try:
            await stop.wait()
            self._stopping = True
            await _end(self._pulling.values())
            await self._drain()
        finally:
            # results go on being recorded while requests drain
            await _end([*self._pulling.values(), *result_pulls, heartbeat])
            await self._hand_back()

    async def serve(self, pairs: Collection[Pair]) -> None:
        """Pull for these pairs of client and operation from now on, and for no others; what is held goes on."""
        if self._stopping:
            return
        worker = self._settings.worker
        self._share = max(worker.prefetch_per_client, worker.max_held // max(2, len(pairs)))
        leaving = [self._pulling.pop(pair) for pair in tuple(self._pulling) if pair not in pairs]
        for pair in pairs:
            if pair not in self._pulling:
                pull = self._request_pulls[pair] = self._request_pull(pair)
                self._pulling[pair] = asyncio.create_task(pull.run())
        self._request_pulls = {pair: self._request_pulls[pair] for pair in self._pulling}
        self._wake_all()  # the shares are others now
        await _end(leaving)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.worker.heartbeat_s)
            self._metrics.held.set(len(self._held))
            await self._held.heartbeat()
            await self._results.heartbeat()

    async def _drain(self) -> None:
        log.info("worker.draining", held=len(self._held), timeout_s=self._settings.worker.drain_timeout_s)
        deadline = asyncio.get_running_loop().time() + self._settings.worker.drain_timeout_s
        await self._hand_back_waiting()
        while self._working and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(tuple(self._working), timeout=left_s)

    async def _hand_back_waiting(self) -> None:
        """Requests that have not even begun go back at once: another replica need not wait for us."""
        for task, held in tuple(self._working.items()):
            if not held.begun:
                await self._cancel(task, held)

    async def _hand_back(self) -> None:
        for task, held in tuple(self._working.items()):
            await self._cancel(task, held)
        await _end(list(self._settling))
        log.info("worker.drained")

    async def _cancel(self, task: asyncio.Task[None], held: Held) -> None:
        await _end([task])
        if held.working:
            with contextlib.suppress(InitiatorError):  # then this end of ours counts as a death
                await self._takeovers.hand_back(held)
        await self._held.hand_back(held)

    @property
    def served(self) -> frozenset[Pair]:
        """Whom we pull for."""
        return frozenset(self._pulling)

    @property
    def busy(self) -> int:
        """Requests in our hands."""
        return len(self._held)


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel and wait, for as often as it takes.

    Python 3.11's `asyncio.wait_for`, which nats-py uses for every answer, returns the answer and no cancellation
    where both come at once; the task then goes on as if nobody had asked it to end.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()):
            log.error("worker.task_failed", error_type=type(error).__name__)
