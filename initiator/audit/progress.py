"""The exporter tells the daemons how far it has come, again and again: they may have lost it."""

from __future__ import annotations

import time
from collections.abc import Callable

from initiator.bus.jetstream import JetStream
from initiator.core import progress, subjects
from initiator.errors import InitiatorError
from initiator.log import get_logger

log = get_logger()
AGAIN_S = 5.0


class Progress:
    """What one exporter has said.

    Args:
        exporter: its name, as `audit.exporter` of the settings has it.
    """

    def __init__(self, js: JetStream, exporter: str, now: Callable[[], float] = time.monotonic) -> None:
        self._js = js
        self._subject = subjects.exported(exporter)
        self._now = now
        self._said: int | None = None
        self._at = 0.0

    async def tell(self, sequence: int) -> None:
        """Say it, if it is news or was said a while ago; where nobody hears, the next call says it."""
        if sequence == self._said and self._now() < self._at + AGAIN_S:
            return
        try:
            await self._js.publish(self._subject, progress.encode(sequence))
        except InitiatorError as error:  # the log is what it is; the daemons wait
            log.warning("audit.progress_not_told", code=error.code.value, reason=error.reason)
            return
        self._said, self._at = sequence, self._now()
