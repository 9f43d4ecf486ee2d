"""`initiator dlq`: look at the dead letters, replay them as new requests, or drop them.

Exit codes: 0 done, 1 something failed (each failure is a line on stderr), 2 usage.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from initiator.cli import CliContext, letters
from initiator.core import subjects
from initiator.core.deadletter import Page, Selection
from initiator.core.events import parse_when
from initiator.core.model import Operation
from initiator.errors import Code, InitiatorError, RejectError

if TYPE_CHECKING:
    from initiator.deadletters import DeadLetters
    from initiator.flow.rehearsal import Rehearsal

T = TypeVar("T")
DONE, FAILED = 0, 1
DEFAULT_LIMIT = 100


@click.group()
def dlq() -> None:
    """Show, replay or drop dead letters: requests that were refused or gave out, and results that nothing can use."""


# --- options


def _client(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not subjects.is_client(value):
        raise click.BadParameter(f"expected 1 to 64 of A-Z a-z 0-9 _ -, got {value[:64]!a}")
    return value


def _code(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value.upper() not in Code.__members__:
        raise click.BadParameter(f"expected a code of the runbook, such as EXPIRED, got {value[:64]!a}")
    return value and value.upper()


def _when(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_when(value, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_FILTERS = (
    click.option("--client", metavar="NAME", callback=_client, help="Of this client."),
    click.option("--op", "operation", type=click.Choice([op.value for op in Operation]), help="Of this operation."),
    click.option("--code", metavar="CODE", callback=_code, help="With this code."),
    click.option("--since", metavar="TIME", callback=_when, help="From RFC 3339 on, or not older than 2h, 1d12h, …"),
    click.option("--until", metavar="TIME", callback=_when, help="Before RFC 3339, or older than 2h, 1d12h, …"),
)
_RESULTS = click.option("--results", is_flag=True, help="Only results of the nodes.")
_ALL = click.option("--all", "every", is_flag=True, help="All that the filters leave.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
_SEQUENCES = click.argument("sequences", metavar="[SEQ]...", nargs=-1, type=click.IntRange(1))


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the filters, as one `selection`."""

    @wraps(command)
    def call(*args: Any, client: str | None, operation: str | None, code: str | None, since: float | None,
             until: float | None, results: bool = False, **options: Any) -> None:  # fmt: skip
        if results and client:
            raise click.UsageError("--results: results of the nodes have no --client")
        if since is not None and until is not None and since >= until:
            raise click.UsageError("--until: expected a time after --since")
        op = Operation(operation) if operation else None
        chosen = Selection(client=client, operation=op, code=code, since=since, until=until, results=results)
        command(*args, selection=chosen, **options)

    for option in reversed(_FILTERS):
        call = option(call)
    return call


def _check_choice(sequences: tuple[int, ...], selection: Selection, every: bool) -> None:
    if every == bool(sequences):
        raise click.UsageError("SEQ: expected sequences, or --all with or without filters")
    if sequences and selection != Selection():
        raise click.UsageError("SEQ: filters choose among --all, not among sequences")


# --- commands


@dlq.command()
@_selecting
@_RESULTS
@click.option("--limit", type=click.IntRange(1), default=DEFAULT_LIMIT, show_default=True, help="Show at most these.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def ls(context: CliContext, selection: Selection, limit: int, as_json: bool) -> None:
    """List dead letters, oldest first."""

    async def show(bench: _Bench) -> int:
        page = Page(limit)
        async for letter in bench.letters.select(selection):
            page.add(letter)
        _print_page(page, as_json=as_json)
        return DONE

    _run(context, show)


def _print_page(page: Page, *, as_json: bool) -> None:
    if as_json:
        for letter in page.letters:
            click.echo(json.dumps(letters.as_json(letter)))
    elif page.letters:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo("\n".join(letters.table(page.letters, width)))
    else:
        click.echo("no dead letters")
    if page.more:
        more = f"{page.more} more: raise --limit, or narrow it with --since, --client, --op or --code"
        click.echo(more, err=as_json)


@dlq.command()
@click.argument("sequence", metavar="SEQ", type=click.IntRange(1))
@click.option("--payload", is_flag=True, help="The decoded fields too; what is signed only by digest and length.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def show(context: CliContext, sequence: int, payload: bool, as_json: bool) -> None:
    """Show one dead letter: why, when, its headers, and the names and sizes of its fields."""

    async def print_one(bench: _Bench) -> int:
        letter, data = await bench.letters.open(sequence)
        if as_json:
            shown = letters.as_json(letter) | {"payload": letters.payload_json(letter, data, values=payload)}
            click.echo(json.dumps(shown))
        else:
            click.echo("\n".join(letters.full(letter, data, values=payload)))
        return DONE

    _run(context, print_one)


@dlq.command()
@_SEQUENCES
@_selecting
@_ALL
@_DRY_RUN
@click.option("--drop", is_flag=True, help="Drop each dead letter whose request is queued.")
@click.pass_obj
def replay(
    context: CliContext, sequences: tuple[int, ...], selection: Selection, every: bool, dry_run: bool, drop: bool
) -> None:
    """Publish requests again, as new requests under every rule. The dead letters stay, unless --drop.

    With --dry-run, say of each whether it would be accepted now, and why not (exit 1 if one would not).
    """
    _check_choice(sequences, selection, every)

    async def replay_all(bench: _Bench) -> int:
        chosen, left_out = list(sequences), 0
        if every:
            found = [letter async for letter in bench.letters.select(selection)]
            chosen = [letter.sequence for letter in found if not letter.is_result]
            left_out = len(found) - len(chosen)
        code = await _each(chosen, partial(bench.rehearse if dry_run else bench.replay, drop=drop))
        if left_out:
            click.echo(f"left out {left_out} results of the nodes: a result is no request", err=True)
        if not chosen:
            click.echo("no dead letters")
        return code

    _run(context, replay_all)


@dlq.command()
@_SEQUENCES
@_selecting
@_RESULTS
@_ALL
@_DRY_RUN
@click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
@click.pass_obj
def drop(
    context: CliContext, sequences: tuple[int, ...], selection: Selection, every: bool, dry_run: bool, yes: bool
) -> None:
    """Delete dead letters for good."""
    _check_choice(sequences, selection, every)
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError("--yes: needed where there is no terminal to ask on")

    chosen = _perform(context, partial(_chosen, sequences, selection, every))
    if dry_run:
        code = _perform(context, lambda bench: _each(chosen, bench.look))
        click.echo(f"{len(chosen)} would be dropped")
        sys.exit(code)
    # asked with no connection open: a person may think for long
    if chosen and not yes and not click.confirm(f"drop {len(chosen)} dead letters?"):
        click.echo("nothing dropped")
        sys.exit(FAILED)
    sys.exit(_perform(context, lambda bench: bench.drop(chosen)))


async def _chosen(sequences: tuple[int, ...], selection: Selection, every: bool, bench: _Bench) -> list[int]:
    return [letter.sequence async for letter in bench.letters.select(selection)] if every else list(sequences)


# --- the work


class _Bench:
    """What the commands do to one letter; each says whether it went well."""

    def __init__(self, dead: DeadLetters, rehearsal: Rehearsal) -> None:
        self.letters = dead
        self._rehearsal = rehearsal

    async def look(self, sequence: int) -> bool:
        letter, _ = await self.letters.open(sequence)
        click.echo(f"{letters.about(letter)} {letters.plain(letter.code)} would be dropped")
        return True

    async def rehearse(self, sequence: int, *, drop: bool) -> bool:
        letter, data = await self.letters.open(sequence)
        try:
            said = await self._rehearsal.judge(letter, data)
        except RejectError as error:
            click.echo(f"{letters.about(letter)} would be refused: {letters.refusal(error)}")
            return False
        click.echo(f"{letters.about(letter)} {said}{', and the dead letter dropped' if drop else ''}")
        return True

    async def replay(self, sequence: int, *, drop: bool) -> bool:
        letter, data = await self.letters.open(sequence)
        request = await self.letters.replay(letter, data)
        click.echo(f"{letters.about(letter)} replayed as request {request}")
        if drop:
            await self.letters.drop(sequence)
        return True

    async def drop(self, sequences: list[int]) -> int:
        dropped = 0

        async def one(sequence: int) -> bool:
            nonlocal dropped
            await self.letters.drop(sequence)
            dropped += 1
            return True

        code = await _each(sequences, one)
        click.echo(f"{dropped} dropped")
        return code


async def _each(sequences: list[int], action: Callable[[int], Awaitable[bool]]) -> int:
    """One after the other; a failure is told and the others go on, unless nobody answers any more."""
    code = DONE
    for done, sequence in enumerate(sequences, 1):
        try:
            code = code if await action(sequence) else FAILED
        except InitiatorError as error:
            code = FAILED
            click.echo(f"{sequence} failed: {letters.refusal(error)}", err=True)
            if error.code is Code.BUS_UNAVAILABLE:
                click.echo(f"stopped; {len(sequences) - done} not tried", err=True)
                break
    return code


def _run(context: CliContext, action: Callable[[_Bench], Awaitable[int]]) -> None:
    sys.exit(_perform(context, action))


def _perform(context: CliContext, action: Callable[[_Bench], Awaitable[T]]) -> T:
    from initiator import log
    from initiator.config.schema import LogSettings

    log.configure(LogSettings(level="error"))  # errors are told by the commands

    async def act() -> T:
        async with _connected(context) as bench:
            return await action(bench)

    return asyncio.run(act())


@asynccontextmanager
async def _connected(context: CliContext) -> AsyncIterator[_Bench]:
    """The daemon's own login."""
    from initiator.bus.connection import Connection
    from initiator.bus.jetstream import JetStream
    from initiator.deadletters import DeadLetters
    from initiator.flow.clients import Clients
    from initiator.flow.intake import Intake
    from initiator.flow.rehearsal import Rehearsal
    from initiator.record import Record

    settings = context.load().settings
    connection = Connection(settings.nats, "initiator-dlq")
    try:
        await connection.open()
        js = JetStream(connection, settings.nats.jetstream_domain)
        dead = DeadLetters(js)
        yield _Bench(dead, Rehearsal(Intake(settings, Clients(settings.clients)), dead, Record(js), time.time))
    finally:
        await connection.close()
