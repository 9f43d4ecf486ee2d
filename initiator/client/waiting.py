"""Calls that wait for the end of their operations, and how they hear of it.

What the daemon tells by itself is a hint: it is told once, lost with a connection, late now and then, and anybody who
may publish there can say it. So whoever is told of an end, hears nothing for a while, or was cut off, asks: the
daemon's record is the answer. Only a signature that verifies against keys that the client knows needs no asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from initiator.client import wire
from initiator.client.errors import ClientError, DeniedError, RejectedError, StillRunningError, UnavailableError
from initiator.client.link import Link
from initiator.client.wire import Event, Handle
from initiator.core.events import is_id
from initiator.core.model import Operation

ASK_S = 5.0
SILENCE_S = (4.0, 8.0)
"""After this long without news the state is asked for; at random, so that many calls do not ask in step."""
REFUSALS_KEPT = 4096
Progress = Callable[[Event], None]


class Waiter:
    """One call that waits for its operation's end.

    Args:
        proves_itself: whether an event that was only told can be believed.

    Attributes:
        final: what it ended with.
        state: what was last heard of it.
    """

    def __init__(self, handle: Handle, progress: Progress | None, proves_itself: Callable[[Event], bool]) -> None:
        self.handle = handle
        self.final: Event | None = None
        self.state = ""
        self.closed = False
        self.failed_progress: Exception | None = None
        self._proves_itself = proves_itself
        self._progress = progress
        self._seen: set[str] = set()
        self._news = asyncio.Event()

    def hear_told(self, event: Event) -> None:
        """An event of this id that came by itself."""
        if not self._concerns(event):
            return
        if event.final and self._proves_itself(event):
            self._take(event)
        elif event.final:
            self.ask_at_once()
        else:
            self._note(event)

    def hear_answer(self, event: Event, *, settled: bool) -> None:
        """The event that is on record.

        Args:
            settled: nothing more comes of this request.
        """
        if settled and event.final and self._answers(event):
            self._take(event)  # also the failure that it was to go on after: it did not
        elif self._concerns(event):
            self._take(event) if event.final else self._note(event)

    def hear_refusal(self, event: Event) -> None:
        """The refusal that is on record."""
        if (event.op, event.request_seq) == (self.handle.op, self.handle.sequence):
            self.final = self.final or event
            self._news.set()

    def _answers(self, event: Event) -> bool:
        """It counts only if it answers this very request: the same id with another payload is somebody else's."""
        return not event.request_digest or event.request_digest == self.handle.digest

    def _concerns(self, event: Event) -> bool:
        return self._answers(event) and not (self.handle.reopens and event.event_id == self.handle.reopens)

    def _take(self, event: Event) -> None:
        self._note(event)
        self.final = self.final or event
        self._news.set()

    def _note(self, event: Event) -> None:
        if event.event_id in self._seen:
            return
        self._seen.add(event.event_id)
        self.state = event.state
        if self._progress:
            try:
                self._progress(event)
            except Exception as error:  # somebody else's code: it must not keep others from hearing
                self.failed_progress = self.failed_progress or error
                self._news.set()

    def ask_at_once(self) -> None:
        """Something may have been missed."""
        self._news.set()

    def close(self) -> None:
        self.closed = True
        self._news.set()

    async def news(self, timeout_s: float) -> None:
        """Wait for the end, or for a reason to ask."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._news.wait()
        self._news.clear()


class Waiting:
    """All calls of one client that wait."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiters: dict[tuple[Operation, str], set[Waiter]] = {}
        self._refused: OrderedDict[tuple[Operation, int], None] = OrderedDict()
        self._listeners: set[asyncio.Event] = set()
        self.closed = False
        link.on_return = self._wake_all

    @contextlib.contextmanager
    def of(self, handle: Handle, progress: Progress | None, proves_itself: Callable[[Event], bool]) -> Iterator[Waiter]:
        """A waiter for one operation, for the length of the block."""
        waiter = Waiter(handle, progress, proves_itself)
        waiters = self._waiters.setdefault((handle.op, handle.id), set())
        waiters.add(waiter)
        try:
            yield waiter
        finally:
            waiters.discard(waiter)
            if not waiters:
                self._waiters.pop((handle.op, handle.id), None)

    @contextlib.contextmanager
    def news(self) -> Iterator[asyncio.Event]:
        """Set whenever something was heard, or may have been missed."""
        heard = asyncio.Event()
        self._listeners.add(heard)
        try:
            yield heard
        finally:
            self._listeners.discard(heard)

    def on_event(self, event: Event) -> None:
        """Tell whom it concerns."""
        if event.state == "rejected":
            # it may come before its sender knows the request's sequence
            self._refused[event.op, event.request_seq] = None
            while len(self._refused) > REFUSALS_KEPT:
                self._refused.popitem(last=False)
            for waiter in self._all():
                if (waiter.handle.op, waiter.handle.sequence) == (event.op, event.request_seq):
                    waiter.ask_at_once()
        else:
            for waiter in tuple(self._waiters.get((event.op, event.id), ())):
                waiter.hear_told(event)
        for heard in self._listeners:
            heard.set()

    def _all(self) -> list[Waiter]:
        return [waiter for waiters in self._waiters.values() for waiter in waiters]

    def _wake_all(self) -> None:
        """The connection was lost: what was told meanwhile is lost, too."""
        for waiter in self._all():
            waiter.ask_at_once()
        for heard in self._listeners:
            heard.set()

    def close(self) -> None:
        """Nobody waits any more."""
        self.closed = True
        for waiter in self._all():
            waiter.close()
        for heard in self._listeners:
            heard.set()

    async def until_final(self, waiter: Waiter, deadline: float) -> Event:
        """The final event of an operation.

        Args:
            deadline: loop time.

        Raises:
            StillRunningError: none came in time.
        """
        loop = asyncio.get_running_loop()
        if (waiter.handle.op, waiter.handle.sequence) in self._refused:
            waiter.ask_at_once()
        silent: ClientError | None = None
        while True:
            silence_s = random.uniform(*SILENCE_S)  # noqa: S311 - no secret
            await waiter.news(min(deadline - loop.time(), silence_s))
            if waiter.failed_progress:
                raise waiter.failed_progress
            if waiter.final:
                return waiter.final
            left_s = deadline - loop.time()
            if waiter.closed or left_s <= 0:
                raise _still_running(waiter, silent)
            try:
                await self._look(waiter, loop.time() + min(left_s, ASK_S))
                silent = None
            except UnavailableError as error:
                silent = error
            except (DeniedError, RejectedError) as error:
                raise _still_running(waiter, error) from error  # no answer about what is queued all the same
            if waiter.final:
                return waiter.final

    async def _look(self, waiter: Waiter, deadline: float) -> None:
        """Ask for the state of an operation."""
        handle = waiter.handle
        body: dict[str, Any] = {"op": handle.op.value}
        if is_id(handle.id) or not handle.sequence:  # else the request is refused for its id, and known by its sequence
            body["id"] = handle.id
        if handle.sequence:
            body["request_seq"] = handle.sequence
        answer = await self._link.ask(f"initiator.query.{self._link.client}.status", body, deadline)
        if event := wire.read_event_or_none(answer.get("event")):
            waiter.hear_answer(event, settled=answer.get("settled") is True)
        if refusal := wire.read_event_or_none(answer.get("rejection")):
            waiter.hear_refusal(refusal)


def _still_running(waiter: Waiter, silent: ClientError | None) -> StillRunningError:
    if waiter.closed:
        reason = "the client was closed while it waited"
    elif silent:
        reason = f"no final event in time; {silent.reason}"
    else:
        reason = f"no final event in time; it is {waiter.state or 'in the queue'}"
    hint = "it goes on: pick it up with `result(error.handle)`"
    return StillRunningError(waiter.handle, waiter.state, reason, hint)
