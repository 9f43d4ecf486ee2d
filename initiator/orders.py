"""The operators' orders, kept in the record: one event each, and the last one is in force.

They lie in the record and nowhere else: what writes the order is what leaves the trail, no stream of their own can be
lost and made anew without them, and one sequence says whether a signature was recorded before or after a freeze.

Invariants:
- an order is written only if the orders are still as its writer saw them;
- all reads come from the stream's leader; a stream that is missing, and a message that cannot be read, are errors and
  never "nothing is ordered";
- an order never expires, however long other events are kept;
- it names the one before, as replicas name what they wrote (see `core.chain`): an order that is removed is missed by
  the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable
from typing import Any

from initiator.bus.errors import SequenceConflictError
from initiator.bus.jetstream import TTL, JetStream, Stored, guard
from initiator.core import chain, orders, subjects
from initiator.core.chain import Chain, Link
from initiator.core.orders import Line, Orders
from initiator.errors import Code, HaltError, RejectError, RetryError

_TRIES = 8
_HEADERS = {"Content-Type": "application/json", TTL: "never"}

# The orders after a change, and what the event says of it; None where there is nothing to change.
Change = Callable[[Orders], tuple[Orders, dict[str, Any]] | None]


class OrderBook:
    """Reads and writes of the orders."""

    def __init__(self, js: JetStream) -> None:
        self._js = js

    async def read(self) -> Orders:
        """The orders in force.

        Raises:
            RetryError: no answer.
            NotFoundError: the record is missing.
            HaltError: what stands there is not ours.
        """
        return _decode(await self._last())

    async def _last(self) -> Stored | None:
        return await self._js.last(subjects.EVENTS_STREAM, subjects.ORDERS)

    async def change(self, change: Change, *, over_unreadable: bool = False) -> Orders:
        """Put other orders in force; returns those that stand then.

        Args:
            over_unreadable: where nothing that stands can be read, begin anew after it.

        Raises:
            RetryError: no clear answer; the same call again is harmless, as far as `change` looks at what stands.
            HaltError, NotFoundError: as `read`.
        """
        for _ in range(_TRIES):
            last = await self._last()
            seen = _seen(last, over_unreadable)
            changed = change(seen)
            if changed is None:
                return seen
            data = orders.encode(*changed)
            headers = _HEADERS | guard(subjects.ORDERS, seen.sequence) | {chain.HEADER: _naming(last)}
            try:
                ack = await self._js.publish(subjects.ORDERS, data, headers)
            except SequenceConflictError:
                continue  # somebody else's order, or ours of a try whose answer was lost: look again
            except RetryError as error:
                if not error.maybe_done or error.code is Code.BUS_DENIED:
                    raise
                await asyncio.sleep(error.delay_s)
            else:
                return orders.decode(data, ack.sequence)
        reason = f"{subjects.ORDERS}: no clear answer after {_TRIES} tries"
        raise RetryError(Code.BUS_UNAVAILABLE, reason, maybe_done=True)

    async def say_reached(self, line: Line) -> None:
        """Leave one event that says that a stop line was reached; harmless to repeat. Raises RetryError."""
        subject = subjects.line_reached(line.id, line.limit)
        body = json.dumps({"change": "stop line reached", "limit": line.limit, "by": line.by}).encode()
        with contextlib.suppress(SequenceConflictError):  # another replica has said so
            await self._js.publish(subject, body, _HEADERS | guard(subject, 0))


def _decode(stored: Stored | None) -> Orders:
    """The orders that stand there; raises HaltError where they are not ours."""
    if stored is None:
        return Orders()
    try:
        return orders.decode(stored.data, stored.sequence, stored.time)
    except RejectError as error:
        reason = f"{subjects.ORDERS} at sequence {stored.sequence}: {error.reason}"
        hint = "who may publish there, or which newer version wrote it? `initiator freeze --all` begins anew after it"
        raise HaltError(Code.RECORD_LOST, reason, hint=hint) from error


def _seen(last: Stored | None, over_unreadable: bool) -> Orders:
    try:
        return _decode(last)
    except HaltError:
        if last is None or not over_unreadable:
            raise
        return Orders(sequence=last.sequence)


def _naming(last: Stored | None) -> str:
    """The header of an order that names the one before it."""
    writer = Chain(secrets.token_hex(8))
    if last is not None:
        writer.stored(Link(last.headers.get(chain.HEADER, ""), ()), last.subject, last.data, last.sequence)
    return writer.link().header
