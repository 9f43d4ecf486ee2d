"""A person at an authorizer's desk: shown what is asked, and asked what to say, or held to what was said beforehand."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import click

from initiator.authorizer import shown
from initiator.authorizer.desk import Case, Desk
from initiator.authorizer.service import FORGETFUL, listen, reply_to
from initiator.bus.connection import Connection, Message
from initiator.config.authorizer import AuthorizerSettings
from initiator.core.authorization import MAX_REASON_CHARS, Answer, is_reason
from initiator.errors import Code, RejectError

APPROVED, NOTHING, DENIED, REFUSED = 0, 1, 3, 4
EVERYBODY_S = 6.0
"""The daemons ask again every five seconds: whatever waits has been asked for by then."""
MORE_S = 1.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says.

    Attributes:
        wait_s: how long to wait for the first one.
        digest: with `yes`, of the only request that is meant.
        denied: why the answer is no.
    """

    op: str | None
    operation_id: str | None
    wait_s: float
    only_list: bool
    yes: bool
    digest: str | None
    denied: str | None
    as_json: bool

    @property
    def names_one(self) -> bool:
        return bool(self.op and self.operation_id)

    def takes(self, op: str, operation_id: str) -> bool:
        return self.op in (None, op) and self.operation_id in (None, operation_id)


async def in_person(settings: AuthorizerSettings, desk: Desk, wish: Wish) -> int:
    """Decide what is asked; returns the exit code.

    Raises:
        HaltError: NATS refuses the login, or lets it not listen or answer.
        RetryError: NATS cannot be reached.
    """
    if not (desk.remembers or wish.only_list):
        click.echo(f"warning: {FORGETFUL}", err=True)
    connection = Connection(settings.nats, f"authorizer-{settings.authorizer_id}")
    asked: asyncio.Queue[Message] = asyncio.Queue()

    async def on_asking(received: Message) -> None:
        asked.put_nowait(received)

    try:
        await connection.open()
        await listen(connection, settings.authorizer_id, on_asking)
        return await _Person(desk, wish, connection).decide_all(asked)
    finally:
        await connection.close()


class _Person:
    """Somebody with a wish."""

    def __init__(self, desk: Desk, wish: Wish, connection: Connection) -> None:
        self._desk = desk
        self._wish = wish
        self._connection = connection
        self._seen: set[tuple[str, str]] = set()

    async def decide_all(self, asked: asyncio.Queue[Message]) -> int:
        """The one that is meant, or everything that waits; returns the exit code."""
        code, began = NOTHING, time.monotonic()
        until = began + self._wish.wait_s
        while True:
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    received = await asked.get()
            except TimeoutError:
                if not self._seen:
                    click.echo("nothing waits for you", err=True)
                return code
            decided = await self._one(received)
            if decided is None:
                continue
            if decided != NOTHING:
                code = decided if code == NOTHING else max(code, decided)
            if self._wish.names_one:
                return code
            until = max(min(until, began + EVERYBODY_S), time.monotonic() + MORE_S)

    async def _one(self, received: Message) -> int | None:
        """Decide one; NOTHING where nothing was decided, None where it is not meant, or was seen before."""
        _, _, _, op, operation_id = received.subject.split(".")
        if (op, operation_id) in self._seen or not self._wish.takes(op, operation_id):
            return None
        self._seen.add((op, operation_id))
        try:
            case = await self._desk.read(received.subject, received.data, time.time())
        except RejectError as error:
            return self._refused({"op": op, "id": operation_id}, error.code, error.reason, error.field)
        if not self._wish.as_json:
            for line in shown.lines(case, time.time()):
                click.echo(line)
        return await self._decide(case)

    async def _decide(self, case: Case) -> int:
        wish, about = self._wish, shown.described(case)
        if wish.only_list:
            self._say(about | {"state": "waiting"}, "")
            return APPROVED
        if wish.digest and wish.digest != case.digest:
            return self._refused(about, Code.CONFLICT, "this is another request than the one that you mean", "--digest")
        denied = wish.denied
        if not wish.yes and denied is None:
            answer = await _ask("sign it? [y/N/deny]", default="n")
            if answer.lower() == "deny":
                denied = await _ask_reason()
            elif answer.lower() not in ("y", "yes"):
                click.echo("left as it is: it is asked for again until its deadline")
                return NOTHING
        try:
            if denied is not None:
                made = Answer(self._desk.authorizer_id, denied=denied)
            else:
                made = await self._desk.sign(case)
        except RejectError as error:
            return self._refused(about, error.code, error.reason, error.field)
        return await self._send(case, made, about)

    async def _send(self, case: Case, made: Answer, about: dict[str, Any]) -> int:
        said = await reply_to(self._connection, case, made)
        state = said.get("state")
        if state == "recorded":
            missing = [str(one) for one in said.get("missing") or []]
            line = "denied" if made.denied else f"signed and recorded; missing: {', '.join(missing) or 'nobody'}"
            self._say(about | {"state": "denied" if made.denied else "signed", "missing": missing}, line)
            return DENIED if made.denied else APPROVED
        if state == "refused":
            return self._refused(about, said.get("code"), f"by the daemon: {said.get('reason')}", None)
        reason = "nobody holds it now: it is over, or is taken over in a moment; try again"
        return self._refused(about, Code.NOT_FOUND, reason, None)

    def _refused(self, about: dict[str, Any], code: Any, reason: str, field: str | None) -> int:
        if self._wish.as_json:
            self._say(about | {"state": "refused", "code": str(code), "reason": reason, "field": field}, "")
        else:
            where = f"{field}: " if field else ""
            click.echo(f"refused: {code} {where}{reason}", err=True)
        return REFUSED

    def _say(self, body: dict[str, Any], line: str) -> None:
        click.echo(json.dumps(body) if self._wish.as_json else line)


async def _ask_reason() -> str:
    """Asked until it is one: who says no is not taken for anything else."""
    while not is_reason(reason := await _ask("reason")):
        click.echo(f"expected 1 to {MAX_REASON_CHARS} printable characters", err=True)
    return reason


async def _ask(question: str, default: str | None = None) -> str:
    """An answer counts only if it came after its question: a key that was hit before signs nothing."""
    import termios

    if sys.stdin.isatty():
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
    answer: str = await asyncio.to_thread(click.prompt, question, default=default, show_default=False)
    return answer.strip()
