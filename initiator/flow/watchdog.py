"""Says so when work waits and nothing moves, whatever the reason: the alarm for what nobody foresaw.

Work waits when a request is in the queue. Something moves when an event of that operation is recorded by any replica
that brings a request nearer to its end: a claim does not, or a trickle of new requests would hide that nothing is
signed. And something moves when another request is the oldest one. All is read from the streams, so that a replica
that sees nothing of its own is no blind spot. What an operator holds back does not stand still: it waits.
"""

from __future__ import annotations

from collections.abc import Callable

from initiator.bus import queues
from initiator.bus.jetstream import JetStream, Stored
from initiator.config.schema import Settings
from initiator.core import codec, identity, subjects
from initiator.core.events import State, is_id
from initiator.core.model import Operation
from initiator.errors import Code, InitiatorError, RejectError
from initiator.flow.clock import Clock
from initiator.health import Health
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.record import CONTENT_TYPE

log = get_logger()
PART = "progress"
LOOK_S = 10.0
MOST_PASSED = 100
"""Requests of one queue that are passed over since they wait for authorizers."""
_MOVES = (
    State.COMPLETED,
    State.FAILED,
    State.PUBLISHED,
    State.PUBLISHING,
    State.RETRYING,
    subjects.sealed(State.SIGNED),
)


class Watchdog:
    """Watches all lanes.

    A lane's bound is its result timeout and one ack wait: after that at least a failure must have been recorded.

    Args:
        frozen: whether a client's requests of one operation wait for an operator.
    """

    def __init__(
        self,
        js: JetStream,
        settings: Settings,
        health: Health,
        metrics: Metrics,
        clock: Clock,
        frozen: Callable[[str, Operation], bool] = lambda _client, _operation: False,
    ) -> None:
        self._js = js
        self._frozen = frozen
        self._frozen_until = dict.fromkeys(Operation, 0.0)
        self._health = health
        self._metrics = metrics
        self._clock = clock
        ack_wait_s = settings.worker.ack_wait_s
        self._bounds = {op: settings.mpcium.lane(op).result_timeout_s + ack_wait_s for op in Operation}
        self._look_s = min(LOOK_S, *(bound / 4 for bound in self._bounds.values()))
        self._stalled: dict[Operation, bool] = dict.fromkeys(Operation, False)
        # its queue and sequence, and since when it has been the oldest
        self._oldest: dict[Operation, tuple[tuple[str, int], float]] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        self._health.set(PART, True)
        while True:
            await self._clock.sleep(self._look_s)
            try:
                await self.look()
            except InitiatorError as error:
                log.debug("watchdog.blind", code=error.code.value, reason=error.reason)  # other parts say why

    async def look(self) -> None:
        """Look at all lanes once."""
        oldest = await self._oldest_waiting()
        for operation in Operation:
            first = oldest.get(operation)
            self._metrics.oldest_waiting.labels(operation).set(max(0.0, self._clock.now() - first.time) if first else 0)
            await self._look(operation, first)

    async def _oldest_waiting(self) -> dict[Operation, Stored]:
        """The oldest request of each operation, over the queues of all clients."""
        found: dict[Operation, Stored] = {}
        for client in await queues.clients(self._js):
            try:
                for subject, oldest in (await queues.oldest(self._js, client)).items():
                    operation = subject.operation
                    if self._frozen(subject.client, operation):
                        self._frozen_until[operation] = self._clock.now()
                        continue
                    waits = await self._past_authorizers(subject.client, operation, oldest)
                    if waits and (operation not in found or waits.time < found[operation].time):
                        found[operation] = waits
            except InitiatorError as error:
                if not self._js.connection.connected:
                    raise
                # a queue that cannot be read is told, and hides no other
                log.warning("watchdog.queue_unreadable", client=client, code=error.code.value, reason=error.reason)
        return found

    async def _look(self, operation: Operation, oldest: Stored | None) -> None:
        still_s = await self._standing_still(operation, oldest)
        stalled = still_s > self._bounds[operation]
        if stalled == self._stalled[operation]:
            return
        self._stalled[operation] = stalled
        self._metrics.stalled.labels(operation).set(stalled)
        if stalled:
            log.error("watchdog.stalled", op=operation.value, code=Code.STALLED.value, seconds=round(still_s))
        else:
            log.info("watchdog.moving", op=operation.value)
        standing = [op.value for op, stands in self._stalled.items() if stands]
        self._health.set(PART, not standing, f"requests wait and nothing moves: {', '.join(standing)}", Code.STALLED)

    async def _standing_still(self, operation: Operation, oldest: Stored | None) -> float:
        """For how many seconds work has waited and nothing has moved."""
        if oldest is None:
            return 0.0
        moved_at = max(oldest.time, self._oldest_since(operation, oldest), self._frozen_until[operation])
        for state in _MOVES:
            if self._clock.now() - moved_at <= self._bounds[operation]:
                break  # recent enough: what is newer changes nothing
            last = await self._js.last(subjects.EVENTS_STREAM, subjects.event("*", operation, "*", state))
            moved_at = max(moved_at, last.time if last else 0.0)
        return self._clock.now() - moved_at

    async def _past_authorizers(self, client: str, operation: Operation, oldest: Stored) -> Stored | None:
        """The oldest request of a queue that waits for no people: those take their time, and end at their deadlines."""
        for _ in range(MOST_PASSED):
            if self._clock.now() - oldest.time <= self._bounds[operation]:
                return oldest
            if not await self._waits_for_authorizers(operation, oldest):
                return oldest
            subject = subjects.request(client, operation)
            following = await self._js.next(subjects.requests_stream(client), subject, oldest.sequence + 1)
            if following is None:
                return None
            oldest = following
        return None

    async def _waits_for_authorizers(self, operation: Operation, oldest: Stored) -> bool:
        try:
            encoding = codec.content_type(oldest.headers.get(CONTENT_TYPE))
        except RejectError:
            return False
        named = identity.named(operation, encoding, oldest.data)
        if named is None or not is_id(named):
            return False
        last = await self._js.last(subjects.EVENTS_STREAM, subjects.guard_filter(operation, named))
        return last is not None and last.subject.endswith(subjects.sealed(State.AUTHORIZING))

    def _oldest_since(self, operation: Operation, oldest: Stored) -> float:
        """Since when this request has been the oldest, as far as we saw; 0 if we saw no other one before it."""
        known = self._oldest.get(operation)
        one = (oldest.subject, oldest.sequence)
        if known is None or known[0] != one:
            known = self._oldest[operation] = (one, self._clock.now() if known else 0.0)
        return known[1]
