"""The exporter tells the daemons how far it has come, again and again: they may have lost it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from initiator.bus.jetstream import JetStream
from initiator.core import progress, subjects
from initiator.errors import Code, InitiatorError, RetryError
from initiator.log import get_logger

log = get_logger()
AGAIN_S = 5.0
TRIES, TRY_AGAIN_S = 5, 1.0
TROUBLE_AGAIN_S = 60.0


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
        self._trouble, self._told_at = "", 0.0

    async def tell(self, sequence: int) -> None:
        """Say it, if it is news or was said a while ago; where nobody hears, the next call says it."""
        if sequence == self._said and self._now() < self._at + AGAIN_S:
            return
        try:
            await self._say(sequence)
        except InitiatorError as error:  # the log is what it is; the daemons wait
            if error.reason == self._trouble and self._now() < self._told_at + TROUBLE_AGAIN_S:
                return
            self._trouble, self._told_at = error.reason, self._now()
            log.warning("audit.progress_not_told", code=error.code.value, reason=error.reason)

    async def insist(self, sequence: int) -> None:
        """Say it, if it was not said; raises RetryError where nobody hears after a few tries."""
        for left in reversed(range(TRIES)):
            if sequence == self._said:
                return
            try:
                await self._say(sequence)
            except InitiatorError as error:
                if not left or error.code is Code.BUS_DENIED:
                    reason = (
                        f"the log is written, and the daemons were not told that it goes to {sequence}: {error.reason}"
                    )
                    hint = (
                        "run it again: meanwhile they take what is in the log for not exported. Do the daemons have "
                        "this audit.exporter, too? Its stream is theirs"
                    )
                    raise RetryError(error.code, reason, hint=hint) from error
                await asyncio.sleep(TRY_AGAIN_S)

    async def _say(self, sequence: int) -> None:
        await self._js.publish(self._subject, progress.encode(sequence))
        self._said, self._at = sequence, self._now()
