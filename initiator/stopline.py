"""How many calls of a stop line are spent, over all replicas: one counter a line.

Calls are spent beforehand, in blocks, by compare-and-set; a replica that dies takes the rest of its block with it, and
the line is never passed. Blocks grow while they are used up fast, and are small near the line.

Invariant: a counter that is missing is not begun anew: whoever lost it does not know how much was spent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

from initiator.bus.errors import SequenceConflictError
from initiator.bus.jetstream import JetStream, guard
from initiator.core import subjects
from initiator.core.orders import Line
from initiator.errors import Code, HaltError, RetryError

NEAR = 16
"""No block is larger than this part of what is left."""
_TRIES = 32


@dataclass(frozen=True, slots=True)
class Spent:
    """A counter as it was seen."""

    sequence: int
    calls: int


class Counter:
    """The counters of stop lines."""

    def __init__(self, js: JetStream) -> None:
        self._js = js

    async def begin(self, line_id: str) -> None:
        """Make the counter of a new line. Raises RetryError."""
        subject = subjects.line_counter(line_id)
        for _ in range(_TRIES):
            try:
                await self._js.publish(subject, _body(0), guard(subject, 0))
            except SequenceConflictError:
                return  # ours, of a try whose answer was lost
            except RetryError as error:
                if not error.maybe_done:
                    raise
                await asyncio.sleep(error.delay_s)
            else:
                return
        raise RetryError(Code.BUS_UNAVAILABLE, f"{subject}: no clear answer")

    async def end(self, line_id: str) -> None:
        """Remove the counter of a line that is in force no more. Raises RetryError."""
        await self._js.purge(subjects.LIMITS_STREAM, subjects.line_counter(line_id))

    async def read(self, line_id: str) -> Spent:
        """What is spent.

        Raises:
            RetryError: no answer.
            NotFoundError: the stream is missing.
            HaltError: `STOP_LINE`: the counter is lost, or somebody else wrote there.
        """
        stored = await self._js.last(subjects.LIMITS_STREAM, subjects.line_counter(line_id))
        if stored is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                calls = json.loads(stored.data)["spent"]
                if type(calls) is int and calls >= 0:
                    return Spent(stored.sequence, calls)
        reason = "the counter of the stop line is lost: nobody knows how much was spent"
        raise HaltError(Code.STOP_LINE, reason, hint="set a new line: initiator stopline set N --reason …")

    async def take(self, line: Line, wanted: int) -> tuple[int, Spent]:
        """Spend up to `wanted` calls of what is left; returns how many were got, 0 at the line.

        Raises:
            RetryError, NotFoundError, HaltError: as `read`; what was taken by a lost answer stays spent.
        """
        subject = subjects.line_counter(line.id)
        for _ in range(_TRIES):
            seen = await self.read(line.id)
            left = line.limit - seen.calls
            got = min(max(1, min(wanted, left // NEAR)), max(0, left))
            if not got:
                return 0, seen
            try:
                ack = await self._js.publish(subject, _body(seen.calls + got), guard(subject, seen.sequence))
            except SequenceConflictError:
                continue
            except RetryError as error:
                if not error.maybe_done:
                    raise
                await asyncio.sleep(error.delay_s)
            else:
                return got, Spent(ack.sequence, seen.calls + got)
        raise RetryError(Code.BUS_UNAVAILABLE, f"{subject}: no clear answer after {_TRIES} tries")


def _body(calls: int) -> bytes:
    return json.dumps({"spent": calls}).encode()
