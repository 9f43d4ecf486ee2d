"""`initiator status`, `events` and `wallet`: what a client may know of its own operations."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime

import click

from initiator.cli import client as clients
from initiator.cli import shown
from initiator.cli.client import Login, login
from initiator.cli.request import parse_path
from initiator.client import Event, InitiatorClient
from initiator.core.events import parse_when
from initiator.core.model import Operation


@click.command()
@click.argument("op", type=click.Choice([op.value for op in Operation]))
@click.argument("operation_id", metavar="ID")
@click.option("--history", is_flag=True, help="All its events, oldest first.")
@login
def status(found: Login, op: str, operation_id: str, history: bool) -> None:
    """What became of an operation. Exit codes: 0 completed, 4 failed, 5 still running, 1 nothing is known of it."""

    async def act(client: InitiatorClient) -> int:
        if history:
            events = await client.history(op, operation_id)
        else:
            last = await client.status(op, operation_id)
            events = [last] if last else []
        _show(found, events)
        if not events:
            _say_unknown(found, f"nothing is known of {op} {operation_id} (it may wait in the queue)")
            return clients.UNKNOWN
        return {"completed": clients.DONE, "failed": clients.FAILED}.get(events[-1].state, clients.RUNNING)

    sys.exit(found.run(act))


def _since(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else datetime.fromtimestamp(parse_when(value, time.time()), UTC)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--since", metavar="TIME", callback=_since, help="From RFC 3339 on, or not older than 2h, 1d12h, …")
@click.option("--after", type=click.IntRange(0), default=0, metavar="SEQ", help="Only what is later in the record.")
@login
def events(found: Login, follow: bool, since: datetime | None, after: int) -> None:
    """Your events and refusals, oldest first."""

    async def act(client: InitiatorClient) -> int:
        async for event in client.events(since=since, after=after, follow=follow):
            _show(found, [event])
            sys.stdout.flush()
        return clients.DONE

    sys.exit(found.run(act))


@click.command()
@click.argument("wallet_id", metavar="ID")
@click.option("--path", metavar="PATH", help="The child keys there, such as 44/60/0/0/7.")
@login
def wallet(found: Login, wallet_id: str, path: str | None) -> None:
    """The public keys of a wallet that you have made. Exit code 1: there is none of that name."""
    levels = parse_path(path) if path else ()
    if levels and found.chain_code is None:
        raise click.UsageError("--path: child keys need the cluster's chain_code in your login (see --context)")

    async def act(client: InitiatorClient) -> int:
        keys = await client.wallet(wallet_id)
        if keys is None:
            _say_unknown(found, f"you have made no wallet {wallet_id}, or not yet")
            return clients.UNKNOWN
        try:
            keys = keys.derive(levels)
        except ValueError as error:
            raise click.UsageError(f"--path: {error}") from None
        click.echo(json.dumps(shown.result(keys)) if found.as_json else "\n".join(shown.lines(keys)))
        return clients.DONE

    sys.exit(found.run(act))


def _show(found: Login, events: list[Event]) -> None:
    for event in events:
        click.echo(json.dumps(shown.described(event)) if found.as_json else shown.line(event))


def _say_unknown(found: Login, reason: str) -> None:
    if found.as_json:
        click.echo(json.dumps({"state": "unknown", "reason": reason}))
    else:
        click.echo(reason, err=True)
