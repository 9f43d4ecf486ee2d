"""What the audit's exporter has not taken yet: while that is too old no new id is claimed, so nothing expires unseen.

The exporter says on a stream of ours up to which sequence of the record its log goes; it is believed.

Invariant: what cannot be seen is taken for as old as it may be. Nothing is claimed before the first look, and while
nobody can look, time counts as if nothing were exported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from initiator.bus import streams
from initiator.bus.jetstream import JetStream
from initiator.core import progress, subjects
from initiator.errors import Code, InitiatorError, RetryError
from initiator.flow.clock import Clock
from initiator.health import Health
from initiator.log import get_logger
from initiator.metrics import Metrics

log = get_logger()
PART = "audit"
LOOK_S = 5.0
FIRST_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Backlog:
    """What an exporter has said, and what it has not taken.

    Attributes:
        sequence: up to which of the record its log goes, by its own word; None: it has never said so.
        last: of the record.
        oldest_at: Unix seconds since when the oldest event waits; None: none does.
    """

    sequence: int | None
    last: int
    oldest_at: float | None

    @property
    def set_back(self) -> bool:
        """The record was set back: its exporter halts, and what comes now is in no log."""
        return self.sequence is not None and self.last < self.sequence


async def backlog(js: JetStream, exporter: str) -> Backlog:
    """What one exporter has not taken. Raises RetryError, NotFoundError or HaltError: it cannot be seen now."""
    said = await js.last(subjects.EXPORTED_STREAM, subjects.exported(exporter))
    sequence = progress.decode(said.data) if said else None
    oldest = await js.next(subjects.EVENTS_STREAM, ">", (sequence or 0) + 1)
    found = await streams.info(js, subjects.EVENTS_STREAM)
    last = found["state"]["last_seq"] if found else 0
    if oldest is None and said and sequence and last < sequence:
        return Backlog(sequence, last, said.time)
    return Backlog(sequence, last, oldest.time if oldest else None)


class Unexported:
    """How long the oldest event that is not in the log has waited.

    Args:
        exporter: its name.
        max_lag_s: above this age nothing is claimed.
    """

    def __init__(
        self, js: JetStream, exporter: str, max_lag_s: float, health: Health, metrics: Metrics, clock: Clock
    ) -> None:
        self._js = js
        self._exporter = exporter
        self._max_lag_s = max_lag_s
        self._health = health
        self._metrics = metrics
        self._clock = clock
        self._age_s = math.inf
        self._seen_s, self._seen_at = math.inf, clock.now()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except InitiatorError as error:
                log.debug("audit.blind", code=error.code.value, reason=error.reason)  # other parts say why
                self._tell(self._seen_s + max(0.0, self._clock.now() - self._seen_at))
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """See what waits. Raises RetryError, NotFoundError or HaltError: it cannot be seen now."""
        now = self._clock.now()  # what comes after it is not seen
        self._seen_s, self._seen_at = await self._oldest_s(), now
        self._tell(self._seen_s)

    def _tell(self, age_s: float) -> None:
        was_closed, self._age_s = self.closed, age_s
        if math.isfinite(age_s):
            self._metrics.unexported.set(age_s)
        self._health.set(PART, not self.closed, self._reason, Code.AUDIT_BEHIND)
        if self.closed and not was_closed:
            log.error("audit.behind", code=Code.AUDIT_BEHIND.value, reason=self._reason)
        elif was_closed and not self.closed:
            log.info("audit.caught_up", age_s=round(age_s, 1))

    async def _oldest_s(self) -> float:
        oldest_at = (await backlog(self._js, self._exporter)).oldest_at
        return max(0.0, self._clock.now() - oldest_at) if oldest_at is not None else 0.0

    @property
    def closed(self) -> bool:
        return self._age_s > self._max_lag_s

    @property
    def _reason(self) -> str:
        if math.isinf(self._age_s):
            return f"nobody knows yet what has waited for the exporter {self._exporter}: no new id is claimed"
        return (
            f"an event has waited {self._age_s:.0f} s for the exporter {self._exporter}, or may have: no new id is "
            f"claimed above {self._max_lag_s:.0f} s"
        )

    def check(self) -> None:
        """Raises RetryError where no id may be claimed now."""
        if self.closed:
            delay_s = FIRST_LOOK_S if math.isinf(self._age_s) else LOOK_S
            raise RetryError(Code.AUDIT_BEHIND, self._reason, delay_s=delay_s)
