"""An operator beside running daemons: freezes, lifts freezes and draws stop lines as the commands do."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.core.model import Operation
from initiator.core.orders import Freeze, Line, Orders, Scope
from initiator.orders import OrderBook
from initiator.rollcall import Heard, RollCall
from initiator.stopline import Counter


def scope(client: str | None = None, op: str | None = None) -> Scope:
    return Scope(client=client, operation=Operation(op) if op else None)


class Operator:
    """Somebody with the daemon's own login."""

    def __init__(self, connection: Connection) -> None:
        self.js = JetStream(connection)
        self.book = OrderBook(self.js)
        self.counter = Counter(self.js)

    async def freeze(self, client: str | None = None, op: str | None = None, reason: str = "a drill") -> Heard:
        new = Freeze(scope=scope(client, op), by="ops", at=time.time(), reason=reason)
        return await self._change(lambda seen: (seen.frozen(new), {"change": "freeze", "by": "ops"}))

    async def unfreeze(self, client: str | None = None, op: str | None = None) -> Heard:
        lifted = scope(client, op)
        return await self._change(lambda seen: (seen.thawed(lifted), {"change": "unfreeze", "by": "ops"}))

    async def draw_line(self, limit: int, line_id: str | None = None) -> Heard:
        """A new line, or a raised one where its id is given."""
        line = Line(id=line_id or secrets.token_hex(8), limit=limit, by="ops", at=time.time(), reason="a budget")
        if line_id is None:
            await self.counter.begin(line.id)

        def change(seen: Orders) -> Any:
            return Orders(sequence=seen.sequence, freezes=seen.freezes, line=line), {"change": "line", "by": "ops"}

        return await self._change(change)

    async def clear_line(self) -> Heard:
        return await self._change(lambda seen: (dataclasses.replace(seen, line=None), {"change": "line", "by": "ops"}))

    async def _change(self, change: Any) -> Heard:
        stand = await self.book.change(change)
        return await RollCall(self.js).call(stand.sequence)

    async def line(self) -> Line:
        found = (await self.book.read()).line
        assert found
        return found

    async def last_sequence(self) -> int:
        """Of the record."""
        return int((await self.js.api("STREAM.INFO.INITIATOR_EVENTS"))["state"]["last_seq"])

    async def signed_after(self, sequence: int, client: str = "*") -> list[tuple[int, str]]:
        """Signatures recorded after a sequence of the record."""
        found, at = [], sequence + 1
        filter_ = f"initiator.event.{client}.*.*.signed.sealed"
        while stored := await self.js.next("INITIATOR_EVENTS", filter_, at):
            found.append((stored.sequence, stored.subject))
            at = stored.sequence + 1
        return found


@contextlib.asynccontextmanager
async def operator(url: str, **login: Any) -> AsyncIterator[Operator]:
    connection = Connection(NatsSettings(servers=(url,), **login), "operator")
    await connection.open()
    try:
        yield Operator(connection)
    finally:
        await connection.close()
