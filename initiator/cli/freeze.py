"""`initiator freeze` and `unfreeze`: signing stops over all replicas, until somebody says otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from initiator.bus import queues
from initiator.bus.jetstream import JetStream
from initiator.cli import CliContext, ordering
from initiator.cli.ordering import Changed, Text
from initiator.core import events, subjects
from initiator.core.model import Operation
from initiator.core.orders import MOST_FREEZES, Freeze, Orders, Scope
from initiator.core.text import plain
from initiator.errors import Code, InitiatorError, RejectError
from initiator.orders import OrderBook
from initiator.stopline import Counter

KNOWN_S = 2.0


def _scoped(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say whose requests, and who says so."""
    options = [
        click.option("--all", "everything", is_flag=True, help="Everybody's requests."),
        click.option("--client", metavar="NAME", help="One client's requests."),
        click.option("--op", type=click.Choice([op.value for op in Operation]), help="Requests of one operation."),
        click.option("--reason", type=Text(), help="Why; it is kept in the record."),
        click.option("--by", type=Text(), help="Who orders it (default: you, as this machine knows you)."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _scope(everything: bool, client: str | None, op: str | None) -> Scope:
    if everything == bool(client or op):
        raise click.UsageError("expected either --all, or --client, --op or both of them")
    if client is not None and not subjects.is_client(client):
        raise click.UsageError(f"--client: expected a client's name, got {client[:64]!r}")
    return Scope(client=client, operation=Operation(op) if op else None)


@click.command()
@_scoped
@click.option("--list", "listing", is_flag=True, help="Show what is frozen; change nothing.")
@click.pass_obj
def freeze(
    context: CliContext, everything: bool, client: str | None, op: str | None, reason: str | None, by: str | None,
    as_json: bool, listing: bool,
) -> None:  # fmt: skip
    """Stop signing, over all replicas: when this returns, nothing more is signed.

    A client's name must be one that the configuration or a queue knows: a misspelt one would look frozen, and go on.

    It waits until each replica has confirmed, or until it cannot sign any more without having asked again (2.5 s).
    What was recorded as signed before goes on to its end. Requests wait, or are refused (setting freeze.held).

    Exit codes: 0 frozen, 1 not, or not in force in a replica of an older version.
    """
    if listing:
        if everything or client or op or reason or by:
            raise click.UsageError("--list stands alone")
        sys.exit(_list(context, as_json))
    scope = _scope(everything, client, op)
    if reason is None:
        raise click.UsageError("expected --reason: it is what others find when they ask why")
    new = Freeze(scope=scope, **ordering.who(by or ordering.operator(), reason))
    configured = frozenset(context.load().settings.clients)
    orders, heard = ordering.run(context, partial(_freeze, new=new, configured=configured))
    standing = orders.freeze_with(scope) or new
    already = str(standing) != str(new)  # whose order, when and why: only ours says this
    body = {"frozen": str(scope), "already": already, "sequence": orders.sequence, **_described(standing)}
    line = f"{'frozen already' if already else 'frozen'}: {scope}, by {standing.by}: {standing.reason}"
    sys.exit(ordering.show(as_json, body, line, heard))


async def _freeze(js: JetStream, book: OrderBook, new: Freeze, configured: frozenset[str]) -> Changed:
    if new.scope.client is not None and new.scope.client not in configured:
        await _check_known(js, new.scope.client, configured)

    def change(seen: Orders) -> tuple[Orders, dict[str, Any]] | None:
        if seen.freeze_with(new.scope):
            return None
        if len(seen.freezes) >= MOST_FREEZES:
            raise RejectError(Code.INVALID_FIELD, f"{MOST_FREEZES} freezes stand already", hint="freeze --all")
        return seen.frozen(new), ordering.told("freeze", new.by, new.reason, scope=str(new.scope))

    # whatever stood where nothing can be read, a freeze of all is no less
    return await ordering.call(js, await book.change(change, over_unreadable=new.scope == Scope()))


async def _check_known(js: JetStream, client: str, configured: frozenset[str]) -> None:
    """Raises RejectError where nobody has this name; where nobody can tell, a warning does, since a stop is urgent."""
    known, heard = configured, False
    with contextlib.suppress(InitiatorError, TimeoutError):
        async with asyncio.timeout(KNOWN_S):
            known |= await queues.clients(js)
            heard = True
    if not known or not (heard or client in known):  # the daemons may know newer ones than this configuration
        click.echo(f"warning: nothing here says which clients there are: is there a client {client}?", err=True)
    elif client not in known:
        near = difflib.get_close_matches(client, sorted(known), n=1)
        hint = (f"did you mean {near[0]}? " if near else "") + "`initiator freeze --all` stops everybody"
        raise RejectError(Code.NOT_FOUND, f"no such client is known here: {client}; nothing was frozen", hint=hint)


@click.command()
@_scoped
@click.pass_obj
def unfreeze(
    context: CliContext, everything: bool, client: str | None, op: str | None, reason: str | None, by: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Lift exactly the freeze that was ordered with the same --all, --client and --op; others stay.

    Exit codes: 0 lifted, 1 there is none.
    """
    scope, name = _scope(everything, client, op), by or ordering.operator()
    orders, heard = ordering.run(context, partial(_unfreeze, scope=scope, by=name, reason=reason or ""))
    left = [str(one.scope) for one in orders.freezes]
    body = {"unfrozen": str(scope), "sequence": orders.sequence, "still_frozen": left}
    still = f"; still frozen: {', '.join(left)}" if left else ""
    sys.exit(ordering.show(as_json, body, f"unfrozen: {scope}{still}", heard))


async def _unfreeze(js: JetStream, book: OrderBook, scope: Scope, by: str, reason: str) -> Changed:
    tried = False

    def change(seen: Orders) -> tuple[Orders, dict[str, Any]] | None:
        nonlocal tried
        if seen.freeze_with(scope) is None:
            if tried:
                return None  # ours, of a try whose answer was lost
            standing = ", ".join(str(one.scope) for one in seen.freezes) or "nothing"
            text = f"{scope} is not frozen; frozen is: {standing}"
            raise RejectError(Code.NOT_FOUND, text, hint="initiator freeze --list")
        tried = True
        return seen.thawed(scope), ordering.told("unfreeze", by, reason, scope=str(scope))

    return await ordering.call(js, await book.change(change))


def _described(one: Freeze) -> dict[str, Any]:
    return {"by": one.by, "at": events.format_time(one.at), "reason": one.reason, "since": one.since}


def _list(context: CliContext, as_json: bool) -> int:
    async def read(js: JetStream, book: OrderBook) -> tuple[Orders, int | None]:
        orders = await book.read()
        return orders, (await Counter(js).read(orders.line.id)).calls if orders.line else None

    orders, spent = ordering.run(context, read)
    if as_json:
        freezes = [{"scope": str(one.scope), **_described(one)} for one in orders.freezes]
        line = orders.line and {"limit": orders.line.limit, "spent": spent, "by": orders.line.by}
        click.echo(json.dumps({"sequence": orders.sequence, "freezes": freezes, "stop_line": line}))
        return 0
    for one in orders.freezes:
        click.echo(plain(str(one)))
    if not orders.freezes:
        click.echo("nothing is frozen")
    if orders.line:
        click.echo(plain(f"stop line: {spent} of {orders.line.limit} calls spent, set by {orders.line.by}"))
    return 0
