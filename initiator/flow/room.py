"""Room in the record: no new id is claimed above a high-water mark, so that what is in flight can always be recorded.

Nor is one claimed while the audit's exporter is too far behind (see `unexported`), where there is one.

A record that is full stops everything: results could not be recorded, and would wait. So above the mark requests wait
in their queue instead, until the record is made larger.
"""

from __future__ import annotations

import math

from initiator.bus import streams
from initiator.bus.jetstream import JetStream
from initiator.core import subjects
from initiator.errors import Code, InitiatorError, RetryError
from initiator.flow.clock import Clock
from initiator.flow.unexported import Unexported
from initiator.health import Health
from initiator.log import get_logger
from initiator.metrics import Metrics

log = get_logger()
PART = "record"
LOOK_S, LEAST_LOOK_S = 5.0, 0.05
FILLS_PER_S = 33_554_432  # bytes: no cluster of replicas records more in a second


class Room:
    """Whether ids may be claimed.

    Args:
        high_water: the fraction of the record's size above which none is.
        unexported: what waits for the audit's exporter; None where there is none.
    """

    def __init__(
        self,
        js: JetStream,
        high_water: float,
        unexported: Unexported | None,
        health: Health,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._js = js
        self._high_water = high_water
        self._unexported = unexported
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._used: float | None = None
        self._look_again_s = LOOK_S

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except InitiatorError as error:
                log.debug("room.blind", code=error.code.value, reason=error.reason)  # other parts say why
            await self._clock.sleep(self._look_again_s)

    async def look(self) -> None:
        """See how full the record is. A record without a limit is never full."""
        found = await streams.info(self._js, subjects.EVENTS_STREAM)
        limit = found["config"]["max_bytes"] if found else -1
        used = found["state"]["bytes"] / limit if found and limit > 0 else 0.0
        closed, was_closed = used >= self._high_water, self.closed
        self._used = used
        # the nearer the mark, the sooner: what is claimed between two looks must not fill what the mark keeps free
        left = (self._high_water - used) * limit if limit > 0 and not closed else math.inf
        self._look_again_s = min(LOOK_S, max(LEAST_LOOK_S, left / FILLS_PER_S))
        self._metrics.record_used.set(used)
        self._health.set(PART, not closed, self._reason, Code.RECORD_FULL)
        if closed and not was_closed:
            log.error("room.closed", code=Code.RECORD_FULL.value, reason=self._reason)
        elif was_closed and not closed:
            log.info("room.open", used=round(used, 3))

    @property
    def closed(self) -> bool:
        return self._used is not None and self._used >= self._high_water

    @property
    def _reason(self) -> str:
        return f"the record is {100 * (self._used or 0):.1f} % full: no new id is claimed above {self._high_water:.0%}"

    def check(self) -> None:
        """Raises RetryError where no id may be claimed now."""
        if self.closed:
            raise RetryError(Code.RECORD_FULL, self._reason, delay_s=LOOK_S)
        if self._unexported is not None:
            self._unexported.check()
