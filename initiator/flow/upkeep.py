"""Streams that vanish under a running daemon: what was lost with them is said, what can be made anew is.

Somebody deletes one by hand, or the only server that held it loses its disk. The record is never made anew: it says
what was signed, so without it nothing may be, and requests wait until it is restored. Slots, marks, dead letters and
mpcium's streams are made anew here, queues of requests by whoever pulls from them.
"""

from __future__ import annotations

from initiator.bus import streams
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.errors import Code, InitiatorError
from initiator.flow.clock import Clock
from initiator.health import Health
from initiator.log import get_logger

log = get_logger()
PART = "streams"
LOOK_S = 5.0


class Upkeep:
    """Looks whether all streams are there.

    Args:
        js: JetStream of our own account.
        nodes_js: JetStream of the nodes' account.
    """

    def __init__(self, js: JetStream, nodes_js: JetStream, settings: Settings, health: Health, clock: Clock) -> None:
        self._js = js
        self._nodes_js = nodes_js
        self._settings = settings
        self._health = health
        self._clock = clock
        self._lost = False

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                await self.look()
            except InitiatorError as error:
                if error.code is Code.BUS_UNAVAILABLE:
                    continue  # other parts say why
                self._health.set(PART, False, error.reason, error.code)
                log.warning("upkeep.failed", code=error.code.value, reason=error.reason, hint=error.hint)

    async def look(self) -> None:
        """See what is missing, and make anew what may be.

        Raises:
            RetryError: NATS is away.
            HaltError: a stream cannot be made anew.
        """
        if await streams.info(self._js, subjects.EVENTS_STREAM) is None:
            self._say_lost()
            return
        if self._lost:
            self._lost = False
            log.warning("upkeep.record_restored", stream=subjects.EVENTS_STREAM)
        made = [form["name"] for form in streams.own_forms(self._settings) if await streams.make(self._js, form)]
        routing = self._settings.mpcium.routing
        made += [form["name"] for form in streams.node_forms(routing) if await streams.make(self._nodes_js, form)]
        for name in made:
            log.warning("upkeep.stream_made_anew", stream=name)
        self._health.set(PART, True)

    def _say_lost(self) -> None:
        reason = f"{subjects.EVENTS_STREAM} is gone, and with it what says which ids were signed"
        self._health.set(PART, False, reason, Code.RECORD_LOST)
        if not self._lost:
            self._lost = True
            log.error("upkeep.record_lost", code=Code.RECORD_LOST.value, reason=reason, hint=streams.RESTORE)
