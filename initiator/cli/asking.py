"""`initiator status`, `cancel`, `events` and `wallet`: a client and what it has asked for."""

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
from initiator.client import Event, InitiatorClient, RejectedError
from initiator.core.events import parse_when
from initiator.core.model import Operation
from initiator.errors import Code


@click.command()
@click.argument("op", type=click.Choice([op.value for op in Operation]))
@click.argument("operation_id", metavar="ID")
@click.option("--history", is_flag=True, help="All its events, oldest first.")
@click.option(
    "--request",
    "request_seq",
    type=click.IntRange(1),
    metavar="SEQ",
    help="Also whether this very request was refused.",
)
@login
def status(found: Login, op: str, operation_id: str, history: bool, request_seq: int | None) -> None:
    """What became of an operation.

    Exit codes: 0 completed, 3 rejected, 4 failed, 5 still running, 1 nothing is known of it.
    """

    async def act(client: InitiatorClient) -> int:
        if history:
            events = await client.history(op, operation_id)
        else:
            last = await client.status(op, operation_id, request_seq=request_seq)
            events = [last] if last else []
        _show(found, events)
        if not events:
            where = "it may wait in the queue" if request_seq else "it waits, or was refused: see --request"
            _say_unknown(found, op, operation_id, f"nothing is known of {op} {operation_id} ({where})")
            return clients.UNKNOWN
        codes = {"completed": clients.DONE, "failed": clients.FAILED, "rejected": clients.REJECTED}
        return codes.get(events[-1].state, clients.RUNNING)

    sys.exit(found.run(act, (op, operation_id)))


@click.command()
@click.argument("op", type=click.Choice([op.value for op in Operation]))
@click.argument("operation_id", metavar="ID")
@login
def cancel(found: Login, op: str, operation_id: str) -> None:
    """End an operation that nothing was signed for, for good.

    Exit codes: 0 cancelled, 4 too late, 1 nothing is known of it.
    """

    async def act(client: InitiatorClient) -> int:
        try:
            _show(found, [await client.cancel(op, operation_id)])
        except RejectedError as error:
            if error.code != Code.NOT_FOUND:
                raise
            _say_unknown(found, op, operation_id, f"{op} {operation_id}: {error.reason}")
            return clients.UNKNOWN
        return clients.DONE

    sys.exit(found.run(act, (op, operation_id)))


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
        raise click.UsageError("--path: child keys need the cluster's chain code (--chain-code, or in --context)")

    async def act(client: InitiatorClient) -> int:
        keys = await client.wallet(wallet_id)
        if keys is None:
            _say_unknown(found, "keygen", wallet_id, f"you have made no wallet {wallet_id}, or not yet")
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


def _say_unknown(found: Login, op: str, operation_id: str, reason: str) -> None:
    if found.as_json:
        click.echo(json.dumps({"op": op, "id": operation_id, "state": "unknown", "reason": reason}))
    else:
        click.echo(reason, err=True)
