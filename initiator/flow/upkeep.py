"""Streams that vanish under a running daemon: what was lost with them is said, what can be made anew is.

Somebody deletes one by hand, or the only server that held it loses its disk. The record is never made anew: it says
what was signed, so without it nothing may be, and requests wait until it is restored. All others are made anew; beside
a record that is gone they are what tells a replica that starts that there was one.

And queues that nobody serves: a request that was acknowledged just when its client left, or by a replica that still
knew the client and then went away, would lie there for ever. Whoever finds one that has waited for long serves it.
"""

from __future__ import annotations

from typing import Protocol

from initiator.bus import forms, streams
from initiator.bus.jetstream import JetStream
from initiator.bus.nodes import NodeGateway
from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.errors import Code, InitiatorError
from initiator.flow.clock import Clock
from initiator.health import Health
from initiator.log import get_logger

log = get_logger()
PART = "streams"
LOOK_S = 5.0
FORGOTTEN_WAITS = 2.0
"""So many ack waits after which a request that nobody takes counts as forgotten."""


class Queues(Protocol):
    """What this needs of the parts: their queues."""

    async def ensure_queues(self) -> dict[str, InitiatorError]:
        """Make anew what is missing of the configured clients' queues, open what others closed; failures by client."""
        ...

    async def serve_forgotten(self, before: float) -> None:
        """Serve requests that nobody takes, stored before a moment (Unix seconds)."""
        ...


class Upkeep:
    """Looks whether all streams are there, and all queues served.

    Args:
        js: JetStream of our own account.
        nodes_js: JetStream of the nodes' account.
        gateway: is told of the nodes' streams whenever they were looked at.
    """

    def __init__(
        self,
        js: JetStream,
        nodes_js: JetStream,
        gateway: NodeGateway,
        settings: Settings,
        own: Queues,
        health: Health,
        clock: Clock,
    ) -> None:
        self._js = js
        self._nodes_js = nodes_js
        self._gateway = gateway
        self._settings = settings
        self._queues = own
        self._health = health
        self._clock = clock
        self._lost = False

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except InitiatorError as error:
                if error.code is not Code.BUS_UNAVAILABLE:  # other parts say why
                    self._health.set(PART, False, error.reason, error.code)
                    log.warning("upkeep.failed", code=error.code.value, reason=error.reason, hint=error.hint)
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """See what is missing, and make anew what may be.

        Raises:
            RetryError: NATS is away.
            HaltError: a stream cannot be made anew.
        """
        lost = await streams.info(self._js, subjects.EVENTS_STREAM) is None
        await self._make_others()
        failed = await self._queues.ensure_queues()
        if lost:
            self._say_lost()
            return
        if self._lost:
            await streams.ensure_own(self._js, self._settings)  # a form of somebody's own would lose finals
            self._lost = False
            log.warning("upkeep.record_restored", stream=subjects.EVENTS_STREAM)
        await self._queues.serve_forgotten(self._clock.now() - FORGOTTEN_WAITS * self._settings.worker.ack_wait_s)
        client, error = next(iter(sorted(failed.items())), (None, None))
        if error is None:
            self._health.set(PART, True)
        else:
            self._health.set(PART, False, f"the queue of {client}: {error.reason}", error.code)

    async def _make_others(self) -> None:
        _record, *others = forms.own_forms(self._settings)
        made = [form["name"] for form in others if await streams.make(self._js, form)]
        routing = self._settings.mpcium.routing
        made += [form["name"] for form in forms.node_forms(routing) if await streams.make(self._nodes_js, form)]
        await self._gateway.note_streams()
        for name in made:
            log.warning("upkeep.stream_made_anew", stream=name)

    def _say_lost(self) -> None:
        reason = f"{subjects.EVENTS_STREAM} is gone, and with it what says which ids were signed"
        self._health.set(PART, False, reason, Code.RECORD_LOST)
        if not self._lost:
            self._lost = True
            log.error("upkeep.record_lost", code=Code.RECORD_LOST.value, reason=reason, hint=streams.RESTORE)
