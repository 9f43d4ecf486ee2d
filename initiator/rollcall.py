"""Who may be signing now, and whether they have all seen an order: what a freeze waits for.

Each replica that may sign has said so on a stream of its own (`sign_in`), and has a short lease: it read the orders
less than `LEASE_S` ago. So whoever calls the roll after it has written an order knows all who may not have seen it:
they confirm, or their lease runs out.

Invariant: nobody signs whose name is not on the stream. A name is renewed every few seconds, believed by its owner for
`SIGNED_IN_S` from before it was written, and kept by the server for half a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from initiator.bus.connection import Message
from initiator.bus.jetstream import JetStream
from initiator.core import subjects
from initiator.errors import InitiatorError

LEASE_S = 2.0
SIGNED_IN_S = 20.0
MARGIN_S = 0.5
"""What a wait is longer than a lease: clocks run at slightly different rates, timers fire late."""
ANSWER_S = 0.5
"""How long whoever is not on the stream, an older version, has to say that it is there."""


@dataclass(slots=True)
class Heard:
    """What came of a roll call.

    Attributes:
        confirmed: replicas that have seen the orders, with nothing under way that was begun without them.
        waited_out: replicas that may have been there; their lease has run out since.
        unaware: replicas that know of no orders: an older version, which goes on signing. By id their version.
        seconds: how long it took.
    """

    confirmed: list[str] = field(default_factory=list)
    waited_out: list[str] = field(default_factory=list)
    unaware: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Roll:
    """The names of replicas that may sign."""

    def __init__(self, js: JetStream) -> None:
        self._js = js

    async def sign_in(self, replica_id: str) -> None:
        """Say that this replica may be signing. Raises RetryError or HaltError."""
        await self._js.publish(subjects.replica(replica_id), b"")

    async def sign_out(self, replica_id: str) -> None:
        """It signs nothing any more: nobody needs to wait for it. Raises RetryError."""
        await self._js.purge(subjects.REPLICAS_STREAM, subjects.replica(replica_id))

    async def names(self) -> set[str]:
        """All that are signed in. Raises RetryError or NotFoundError."""
        found, sequence = set(), 1
        while (stored := await self._js.next(subjects.REPLICAS_STREAM, subjects.replica("*"), sequence)) is not None:
            found.add(stored.subject.rpartition(".")[2])
            sequence = stored.sequence + 1
        return found


class RollCall:
    """One call, after an order was written."""

    def __init__(self, js: JetStream, now: Callable[[], float] = time.monotonic) -> None:
        self._js = js
        self._now = now
        self._confirmed: set[str] = set()
        self._there: dict[str, str] = {}
        self._moved = asyncio.Event()

    async def call(self, sequence: int) -> Heard:
        """Wait until nobody can sign without having seen the orders of this sequence; call it as soon as they stand.

        Raises:
            RetryError: the connection broke before anybody was asked.
        """
        began = self._now()
        inbox = self._js.connection.new_inbox()
        subscription = await self._js.connection.subscribe(inbox, self._on_answer)
        try:
            body = json.dumps({"sequence": sequence}).encode()
            await self._js.connection.publish(subjects.ROLLCALL, body, reply=inbox)
            await self._js.connection.publish(subjects.HEALTH, b"", reply=inbox)
            names = await self._names()
            while (left_s := began + LEASE_S + MARGIN_S - self._now()) > 0 and not self._all(names, began):
                # whoever is not on the stream has its time to say so, even if all who are have confirmed
                await self._wait(min(left_s, 0.05))
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
        expected = names or set()
        return Heard(
            confirmed=sorted(self._confirmed),
            waited_out=sorted(expected - self._confirmed),
            unaware={name: self._there[name] for name in sorted(self._there.keys() - expected - self._confirmed)},
            seconds=self._now() - began,
        )

    def _all(self, names: set[str] | None, began: float) -> bool:
        if names is None or self._now() < began + ANSWER_S:
            return False
        return names <= self._confirmed

    async def _names(self) -> set[str] | None:
        """Who may be signing; None where nobody can tell: then the longest lease is waited out."""
        try:
            async with asyncio.timeout(LEASE_S):
                return await Roll(self._js).names()
        except (InitiatorError, TimeoutError):
            return None

    async def _wait(self, seconds: float) -> None:
        self._moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()

    async def _on_answer(self, message: Message) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said: dict[str, Any] = json.loads(message.data)
            if "confirmed" in said:
                self._confirmed.add(str(said["id"]))
            else:
                self._there[str(said["id"])] = str(said["version"])
            self._moved.set()
