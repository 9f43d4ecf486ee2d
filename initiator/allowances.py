"""Quotas over all replicas: how many operations may begin in a period, counted in JetStream.

A count is one message: the period that it is for, and how many places of it are taken. A replica takes places in
blocks, by compare-and-set, and gives them out without asking again; what it has left over when it stops, it puts back.

Invariants:
- in one period never more than `most` places are given out, over all replicas, whatever dies or is redelivered: a
  crash costs what its block had left, never a place too many;
- periods go by the clock of NATS, not by ours, and a count never goes back to an earlier period;
- the last places of a period are taken one by one, so that few are left unused in somebody's block.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from initiator.bus.errors import SequenceConflictError
from initiator.bus.jetstream import TTL, JetStream, guard, parse_time
from initiator.core import subjects
from initiator.core.events import format_time
from initiator.core.policy.rules import Count
from initiator.errors import Code, InitiatorError, RejectError, RetryError
from initiator.log import get_logger

log = get_logger()
BLOCK_PARTS, LARGEST_BLOCK = 100, 100
CLOCK_AGAIN_S = 60.0
_TRIES = 50
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Taken:
    """A count as the stream has it: the period's beginning (Unix seconds), and the places taken of it."""

    period: int
    places: int
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A place that was taken, and of which period."""

    count: Count
    period: int


@dataclass(slots=True)
class _Block:
    """What this replica holds of a count."""

    count: Count
    period: int = 0
    left: int = 0
    sequence: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Allowances:
    """See the module; one in each replica.

    Args:
        now: Unix seconds by our own clock.
    """

    def __init__(self, js: JetStream, now: Callable[[], float]) -> None:
        self._js = js
        self._now = now
        self._blocks: OrderedDict[tuple[str, str, int], _Block] = OrderedDict()
        self._ahead_s = 0.0  # the server's clock, from ours
        self._asked_at: float | None = None

    async def take(self, counts: Iterable[Count]) -> list[Place]:
        """Take a place of each count.

        Raises:
            RejectError: `QUOTA_EXCEEDED`, naming the limit and when it begins anew; nothing is taken.
            RetryError, NotFoundError: NATS, or the stream, is away; nothing is taken.
        """
        done: list[Place] = []
        try:
            for count in counts:
                done.append(Place(count, await self._take(count)))
        except BaseException:
            self.give_back(done)
            raise
        return done

    def give_back(self, places: Iterable[Place]) -> None:
        """What was taken is not used after all; within its own period it is given to the next one."""
        for place in places:
            block = self._blocks.get(_key(place.count))
            if block is not None and block.period == place.period and block.count.most == place.count.most:
                block.left += 1

    async def close(self) -> None:
        """Put back what is left over, as far as NATS answers."""
        for block in tuple(self._blocks.values()):
            async with block.lock:
                left, block.left = block.left, 0
                if left and block.period == self._period(block.count):
                    with contextlib.suppress(InitiatorError):
                        await self._put_back(block, left)

    # --- one count

    async def _take(self, count: Count) -> int:
        """The period that a place was taken of."""
        block = self._blocks.get(_key(count))
        if block is None:
            self._make_room()
            block = self._blocks[_key(count)] = _Block(count)
        self._blocks.move_to_end(_key(count))
        if block.count.most != count.most:
            block.left = 0  # reserved under another bound
        block.count = count
        if not self._spend(block):
            async with block.lock:  # one asks for all who wait here
                if not self._spend(block):
                    await self._reserve(block)
                    block.left -= 1
        return block.period

    def _spend(self, block: _Block) -> bool:
        if block.left > 0 and self._asked_at is not None and block.period == self._period(block.count):
            block.left -= 1
            return True
        return False

    async def _reserve(self, block: _Block) -> None:
        """Take the next block of places; at least one."""
        await self._ask_the_time()
        block.left = 0
        subject = _subject(block.count)
        for attempt in range(_TRIES):
            taken = await self._look(block, subject)
            period = max(taken.period, self._period(block.count))
            used = taken.places if taken.period == period else 0
            free = block.count.most - used
            if free <= 0:
                raise _exceeded(block.count, period)
            wanted = _block_size(block.count.most, free)
            if await self._write(block, subject, Taken(period, used + wanted, secrets.token_hex(8))):
                block.period, block.left = period, wanted
                return
            await asyncio.sleep(min(0.002 * 2**attempt, 0.1) * (0.5 + secrets.randbelow(1000) / 1000))
        raise RetryError(Code.RECORD_BUSY, f"the count of limit {block.count.limit} is busy", delay_s=0.1)

    async def _look(self, block: _Block, subject: str) -> Taken:
        stored = await self._js.last(subjects.ALLOWANCES_STREAM, subject)
        block.sequence = stored.sequence if stored else 0
        return read_taken(stored.data, block.count) if stored else Taken(0, 0)

    async def _write(self, block: _Block, subject: str, taken: Taken) -> bool:
        """Whether it is stored; false where somebody else came first."""
        # a guard of two filters lets two writers win; this subject has the one
        headers = guard(subject, block.sequence) | {TTL: f"{2 * block.count.period_s + 60}s"}
        body = json.dumps({"period": taken.period, "places": taken.places, "mark": taken.mark}).encode()
        try:
            await self._js.publish(subject, body, headers)
        except SequenceConflictError:
            return False
        except RetryError as error:
            if not error.maybe_done:
                raise
            await asyncio.sleep(error.delay_s)
            return (await self._look(block, subject)).mark == taken.mark
        return True

    async def _put_back(self, block: _Block, left: int) -> None:
        subject = _subject(block.count)
        taken = await self._look(block, subject)
        if taken.period == block.period and taken.places >= left:
            await self._write(block, subject, Taken(taken.period, taken.places - left, secrets.token_hex(8)))

    def _make_room(self) -> None:
        """Forget counts of periods that are over; if that is not enough, those unused for longest lose their places."""
        if len(self._blocks) < _REMEMBERED:
            return
        over = [key for key, block in self._blocks.items() if block.period != self._period(block.count)]
        for key in over or list(self._blocks)[: _REMEMBERED // 10]:
            if not self._blocks[key].lock.locked():
                del self._blocks[key]

    # --- time

    def _period(self, count: Count) -> int:
        return int((self._now() + self._ahead_s) // count.period_s * count.period_s)

    async def _ask_the_time(self) -> None:
        """How far the server's clock is ahead: replicas whose clocks differ agree on the period all the same."""
        before = self._now()
        if self._asked_at is not None and 0 <= before - self._asked_at < CLOCK_AGAIN_S:
            return
        answer = await self._js.api(f"STREAM.INFO.{subjects.ALLOWANCES_STREAM}")
        after = self._now()
        self._ahead_s = parse_time(answer["ts"]) - (before + after) / 2
        self._asked_at = after


def read_taken(data: bytes, count: Count) -> Taken:
    """A count's message; raises RetryError for one that somebody else wrote (fails closed)."""
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
        fields = json.loads(data)
        period, places = fields["period"], fields["places"]
        if type(period) is int and type(places) is int and places >= 0:
            return Taken(period, places, str(fields.get("mark", "")))
    log.error("allowances.foreign_count", limit=count.limit)
    raise RetryError(
        Code.RECORD_BUSY, f"the count of limit {count.limit} is unreadable: somebody else wrote there",
        hint=f"check who may publish on {subjects.ALLOWANCES}.>, and purge {_subject(count)}", delay_s=5.0,
    )  # fmt: skip


def _block_size(most: int, free: int) -> int:
    """How many places to take at once: fewer, the fewer are left."""
    return max(1, min(most // BLOCK_PARTS, LARGEST_BLOCK, free // 4))


def _key(count: Count) -> tuple[str, str, int]:
    return count.limit, count.bucket, count.period_s


def _subject(count: Count) -> str:
    return subjects.allowance(count.limit, count.period_s, count.bucket)


def _exceeded(count: Count, period: int) -> RejectError:
    anew = format_time(period + count.period_s)
    return RejectError(
        Code.QUOTA_EXCEEDED, f"limit {count.limit}: all {count.most} places are taken until {anew}",
        field=f"policy.limits.{count.limit}", hint="ask again then, under the same id",
    )  # fmt: skip
