"""The exporter as a process: opens what it needs, takes in what there is, and says how far it has come.

Whoever follows waits for whatever is away, at the start as later; without that the first trouble is the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit.exporter import Exporter
from initiator.audit.progress import Progress
from initiator.audit.store import Store
from initiator.bus.connection import Connection
from initiator.bus.errors import NotFoundError
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.errors import RetryError

POLL_S = 1.0
REOPEN_S = 10.0
"""So long away, a connection is opened anew: with the files that are there now, and told if its login is refused."""


class Service:
    """One exporter.

    Args:
        open_store: opens the log for writing.
        key, origin: as `Exporter` has them.
        say: told what is waited for, where that is news.
    """

    def __init__(
        self,
        settings: Settings,
        open_store: Callable[[], Store],
        key: Ed25519PrivateKey,
        origin: str,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._open_store = open_store
        self._key = key
        self._origin = origin
        self._say = say
        self._said = ""
        self._store: Store | None = None
        self._connection: Connection | None = None
        self._exporter: Exporter | None = None
        self._progress: Progress | None = None
        self._away_since: float | None = None

    @property
    def size(self) -> int:
        """Entries in the log; 0 where it was never opened."""
        return self._exporter.size if self._exporter else 0

    @property
    def sequence(self) -> int:
        """The last sequence of the record that is in it."""
        return self._exporter.sequence if self._exporter else 0

    async def once(self) -> None:
        """Take in what there is now.

        Raises:
            RetryError, NotFoundError: something is away; or the log is written, and nobody heard how far it goes.
            HaltError, RejectError: a person has to act.
        """
        while await self._round():
            pass
        if self._progress is not None:
            await self._progress.insist(self.sequence)

    async def follow(self, stop: asyncio.Event) -> None:
        """Take in whatever comes, until somebody says stop. Raises HaltError, RejectError: a person has to act."""
        while not stop.is_set():
            try:
                count, reason = await self._round(), ""
            except (RetryError, NotFoundError) as error:
                count, reason = 0, error.reason
            if reason and reason != self._said:
                self._say(f"waiting: {reason}")
            self._said = reason
            if not count:
                await _either(stop, POLL_S)

    async def close(self) -> None:
        """Let the next exporter in."""
        if self._connection is not None:
            await self._connection.close()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)

    async def _round(self) -> int:
        exporter = await self._open()
        count = await exporter.export()
        if self._progress is not None:
            await self._progress.tell(exporter.sequence)
        return count

    async def _open(self) -> Exporter:
        """What is not open yet, or not any more."""
        if self._store is None:
            self._store = await asyncio.to_thread(self._open_store)
        if self._connection is not None and self._is_lost(self._connection):
            await self._connection.close()
            self._connection = self._exporter = None
        if self._connection is None:
            self._away_since = None
            connection = Connection(self._settings.nats, "initiator-audit")
            await connection.open()
            self._connection = connection
        if self._exporter is None:
            js = JetStream(self._connection, self._settings.nats.jetstream_domain)
            name = self._settings.audit.exporter
            self._progress = Progress(js, name) if name else None
            self._exporter = await asyncio.to_thread(Exporter, js, self._store, self._key, self._origin)
        return self._exporter

    def _is_lost(self, connection: Connection) -> bool:
        """Closed for good, such as where a login has ended; or away for long, such as where it was revoked."""
        now = asyncio.get_running_loop().time()
        if connection.connected:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = now
        return connection.closed.is_set() or (self._away_since is not None and now > self._away_since + REOPEN_S)


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
