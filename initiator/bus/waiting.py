"""Requests that wait for their answers, by the last token of the subject that they are answered on.

A publish that the server refuses is told on the connection, and not to whoever asked: it is found by its subject.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from initiator.bus.errors import unknown_outcome
from initiator.errors import Code, InitiatorError, RetryError

A = TypeVar("A")
_REFUSED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')
_DOMAIN = re.compile(r"^\$js\.[^.]+\.api\.")
HINT = "what each login may: docs/nats.md; is the servers' accounts.conf what `initiator nats-config` writes now?"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What NATS does not let this login do; the subject in lower case, as nats-py tells it."""

    what: str
    subject: str


def refusal_of(error: Exception) -> Refusal | None:
    """What the server refuses, if that is what this error says."""
    found = _REFUSED.search(str(error).lower())
    return Refusal(found[1], found[2]) if found else None


def _held_against(subject: str) -> str:
    """The name that permissions are held against: without a JetStream domain, which the server takes out before."""
    return _DOMAIN.sub("$js.api.", subject.lower())


@dataclass(slots=True)
class Waiting(Generic[A]):
    """All requests under way over one connection."""

    _last: int = 0
    _asked: dict[str, tuple[str, asyncio.Future[A]]] = field(default_factory=dict)

    @contextlib.contextmanager
    def one(self, subject: str, timeout_s: float) -> Iterator[tuple[str, asyncio.Future[A]]]:
        """The token to be answered with, and the answer, which fails with RetryError where it cannot be had."""
        loop = asyncio.get_running_loop()
        self._last += 1
        token, future = str(self._last), loop.create_future()
        self._asked[token] = (subject, future)
        timer = loop.call_later(timeout_s, _fail, future, unknown_outcome(f"no answer from {subject} in time"))
        try:
            yield token, future
        finally:
            timer.cancel()
            self._asked.pop(token, None)

    def answer(self, token: str, answer: A) -> None:
        _, future = self._asked.pop(token, ("", None))
        if future is not None and not future.done():
            future.set_result(answer)

    def refuse(self, refusal: Refusal) -> None:
        """Tell whoever asks there. One that was asked earlier may have been taken: the outcome stays unknown."""
        for subject, future in self._asked.values():
            if refusal.what == "publish" and _held_against(subject) == _held_against(refusal.subject):
                reason = f'NATS refuses: permissions violation for publish to "{subject}"'
                _fail(future, RetryError(Code.BUS_DENIED, reason, hint=HINT, delay_s=1.0, maybe_done=True))

    def fail_all(self, reason: str) -> None:
        """No request under way will ever be answered: its outcome is unknown."""
        asked, self._asked = self._asked, {}
        for _, future in asked.values():
            _fail(future, unknown_outcome(reason))


def _fail(future: asyncio.Future[A], error: InitiatorError) -> None:
    if not future.done():
        future.set_exception(error)
