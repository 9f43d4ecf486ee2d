"""`initiator stopline`: no more than so many signatures, over all replicas, until somebody raises the line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import sys
from collections.abc import Callable
from typing import Any

import click

from initiator.bus.jetstream import JetStream
from initiator.cli import CliContext, ordering
from initiator.cli.ordering import Changed, Text
from initiator.core import events
from initiator.core.orders import MOST_SIGNATURES, Line, Orders
from initiator.core.text import plain
from initiator.errors import Code, InitiatorError, RejectError
from initiator.orders import OrderBook
from initiator.stopline import Counter


def _by(command: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option("--reason", type=Text(), required=True, help="Why; it is kept in the record."),
        click.option("--by", type=Text(), help="Who orders it (default: you, as this machine knows you)."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def stopline() -> None:
    """Set, show, raise or clear the stop line: no more calls to the signer than it says."""


@stopline.command("set")
@click.argument("calls", metavar="N", type=click.IntRange(0, MOST_SIGNATURES))
@_by
@click.pass_obj
def set_(context: CliContext, calls: int, reason: str, by: str | None, as_json: bool) -> None:
    """From now on at most N calls to the signer, retries counted, over all replicas; a line that stands is replaced."""
    line = Line(id=secrets.token_hex(8), limit=calls, **ordering.who(by or ordering.operator(), reason))

    async def act(js: JetStream, book: OrderBook) -> Changed:
        replaced: list[str] = []

        def change(seen: Orders) -> tuple[Orders, dict[str, Any]] | None:
            if seen.line == line:
                return None
            replaced[:] = [seen.line.id] if seen.line else []
            said = ordering.told("stop line set", line.by, reason, limit=calls)
            return dataclasses.replace(seen, line=line), said

        counter = Counter(js)
        await counter.begin(line.id)  # before the line is in force: one without a counter lets nothing through
        changed = await ordering.call(js, await book.change(change))
        for old in replaced:
            with contextlib.suppress(InitiatorError):
                await counter.end(old)
        return changed

    orders, heard = ordering.run(context, act)
    body = {"limit": calls, "spent": 0, "sequence": orders.sequence}
    sys.exit(ordering.show(as_json, body, f"stop line: {calls} calls from now on", heard))


@stopline.command("raise")
@click.argument("calls", metavar="N", type=click.IntRange(0, MOST_SIGNATURES))
@_by
@click.pass_obj
def raise_(context: CliContext, calls: int, reason: str, by: str | None, as_json: bool) -> None:
    """Raise the line to N; what was spent since it was set counts on."""
    name = by or ordering.operator()

    async def act(js: JetStream, book: OrderBook) -> Changed:
        def change(seen: Orders) -> tuple[Orders, dict[str, Any]] | None:
            if seen.line is None:
                raise _none()
            if seen.line.limit == calls:
                return None
            if seen.line.limit > calls:
                text = f"the line stands at {seen.line.limit}, got {calls}"
                raise RejectError(Code.INVALID_FIELD, text, hint="to lower it, set a new one: initiator stopline set")
            raised = dataclasses.replace(seen.line, limit=calls, **ordering.who(name, reason))
            said = ordering.told("stop line raised", name, reason, limit=calls)
            return dataclasses.replace(seen, line=raised), said

        return await ordering.call(js, await book.change(change))

    orders, heard = ordering.run(context, act)
    sys.exit(ordering.show(as_json, {"limit": calls, "sequence": orders.sequence}, f"stop line: {calls} calls", heard))


@stopline.command()
@_by
@click.pass_obj
def clear(context: CliContext, reason: str, by: str | None, as_json: bool) -> None:
    """Take the line away: nothing is counted any more."""
    name = by or ordering.operator()

    async def act(js: JetStream, book: OrderBook) -> Changed:
        gone: list[str] = []

        def change(seen: Orders) -> tuple[Orders, dict[str, Any]] | None:
            if seen.line is None:
                if gone:
                    return None  # ours, of a try whose answer was lost
                raise _none()
            gone[:] = [seen.line.id]
            return dataclasses.replace(seen, line=None), ordering.told("stop line cleared", name, reason)

        changed = await ordering.call(js, await book.change(change))
        for old in gone:
            with contextlib.suppress(InitiatorError):
                await Counter(js).end(old)
        return changed

    orders, heard = ordering.run(context, act)
    sys.exit(ordering.show(as_json, {"limit": None, "sequence": orders.sequence}, "no stop line any more", heard))


@stopline.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def show(context: CliContext, as_json: bool) -> None:
    """The line, and how much of it is spent. Exit code 3 at the line."""

    async def read(js: JetStream, book: OrderBook) -> tuple[Line | None, int]:
        line = (await book.read()).line
        return line, (await Counter(js).read(line.id)).calls if line else 0

    line, spent = ordering.run(context, read)
    if line is None:
        click.echo(json.dumps({"limit": None}) if as_json else "no stop line")
        return
    said = {"by": line.by, "at": events.format_time(line.at), "reason": line.reason}
    if as_json:
        click.echo(json.dumps({"limit": line.limit, "spent": spent, **said}))
    else:
        click.echo(plain(f"{spent} of {line.limit} calls spent; by {said['by']} at {said['at']}: {line.reason}"))
    sys.exit(3 if spent >= line.limit else 0)


def _none() -> RejectError:
    return RejectError(Code.NOT_FOUND, "no stop line stands", hint="initiator stopline set N --reason …")
