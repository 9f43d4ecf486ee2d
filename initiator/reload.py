"""A changed configuration, taken over by SIGHUP: clients come, go and change while requests are under way.

Invariants:
- a configuration that is wrong, or that differs in more than its clients, changes nothing and is told;
- a client that left keeps its subject until its last request has its final event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from initiator.config.schema import Settings
from initiator.errors import Code, HaltError, InitiatorError, RetryError
from initiator.log import get_logger
from initiator.metrics import Metrics

log = get_logger()
RETRY_S = 1.0


class Reload:
    """Takes over what has changed, whenever it is told to.

    Args:
        settings: what is in force.
        told: set whenever there may be something new.
        load: reads the configuration again; raises HaltError.
        apply: puts new settings in force; the same call again is harmless.
    """

    def __init__(
        self,
        settings: Settings,
        told: asyncio.Event,
        load: Callable[[], Settings],
        apply: Callable[[Settings], Awaitable[None]],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._load = load
        self._apply = apply
        self._metrics = metrics
        self._told = told

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._told.wait()
            self._told.clear()
            try:
                await self._reload()
            except InitiatorError as error:
                self._refused(error)
            except Exception as error:
                # unforeseen; the next change is read all the same
                self._refused(HaltError(Code.CONFIG_INVALID, f"it cannot be read: {type(error).__name__}"))

    def _refused(self, error: InitiatorError) -> None:
        self._metrics.reloads.labels("refused").inc()
        code, field = error.code.value, error.field
        log.error("config.reload_refused", code=code, field=field, reason=error.reason, hint=error.hint)

    async def _reload(self) -> None:
        new = await asyncio.to_thread(self._load)
        others = [name for name in Settings.model_fields if getattr(new, name) != getattr(self._settings, name)]
        if fixed := [name for name in others if name != "clients"]:
            raise HaltError(
                Code.CONFIG_INVALID, f"only clients can change while the daemon runs, not {', '.join(fixed)}",
                field=fixed[0], hint="restart the replicas one after the other: no request is lost by that",
            )  # fmt: skip
        while True:
            try:
                await self._apply(new)
                break
            except RetryError as error:
                log.warning("config.reload_waiting", code=error.code.value, reason=error.reason)
                await asyncio.sleep(max(RETRY_S, error.delay_s))
            if self._told.is_set():
                return  # there is something newer
        before, self._settings = self._settings.clients, new
        self._metrics.reloads.labels("applied").inc()
        log.info(
            "config.reloaded",
            added=sorted(new.clients.keys() - before.keys()),
            removed=sorted(before.keys() - new.clients.keys()),
            changed=sorted(name for name in new.clients.keys() & before.keys() if new.clients[name] != before[name]),
        )
