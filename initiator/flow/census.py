"""How many requests wait, and how many are at the nodes, over all clients and replicas; counted by every replica.

Read from the streams, so that all replicas say the same, and one that sees nothing of its own still tells.
"""

from __future__ import annotations

import math

from initiator.bus import queues
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core.model import Operation
from initiator.errors import InitiatorError
from initiator.flow.clock import Clock
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.slots import Slots

log = get_logger()
LOOK_S = 10.0


class Census:
    """Counts for the metrics; nothing else depends on it."""

    def __init__(self, js: JetStream, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self._js = js
        self._metrics = metrics
        self._clock = clock
        self._slots = {op: Slots(js, op, settings.mpcium.lane(op).in_flight) for op in Operation}

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            try:
                await self.look()
            except InitiatorError as error:
                log.debug("census.blind", code=error.code.value, reason=error.reason)  # other parts say why
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """Count once.

        Raises:
            RetryError, NotFoundError: NATS is away, or a stream is gone: the numbers stay what they were.
        """
        waiting, _ = await queues.count(self._js)
        for operation, slots in self._slots.items():
            self._metrics.waiting.labels(operation).set(waiting[operation])
            in_flight = await slots.holders() if slots.cap else math.nan
            self._metrics.in_flight.labels(operation).set(in_flight)
