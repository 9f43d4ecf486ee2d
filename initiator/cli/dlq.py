"""`initiator dlq`: look at the dead letters, replay them as new requests, or drop them.

Exit codes: 0 done, 1 something failed or was refused, 2 usage.
"""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial

import click

from initiator.cli import CliContext, choosing, exporting, letters, lettertable
from initiator.cli.letterbench import DONE, FAILED, Bench, each, perform
from initiator.core.deadletter import Page, Selection

DEFAULT_LIMIT = 100
DEFAULT_WAIT_S = 5.0


@click.group()
def dlq() -> None:
    """Show, replay or drop dead letters: requests that were refused or gave out, and results that nothing can use."""


# --- ls


@dlq.command()
@choosing.selecting
@choosing.RESULTS
@click.option(
    "--limit", metavar="COUNT", type=choosing.whole_number("how many letters to show"), default=DEFAULT_LIMIT,
    show_default=True, help="Show at most these.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def ls(context: CliContext, selection: Selection, limit: int, as_json: bool) -> None:
    """List dead letters, oldest first."""

    async def read(bench: Bench) -> Page:
        page = Page(limit)
        async for letter in bench.letters.select(selection):
            page.add(letter)
        page.letters = await bench.letters.identify(page.letters)
        return page

    _print_page(perform(context, read), as_json=as_json)
    sys.exit(DONE)


def _print_page(page: Page, *, as_json: bool) -> None:
    if as_json:
        for letter in page.letters:
            click.echo(json.dumps(letters.as_json(letter)))
    elif page.letters:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        click.echo("\n".join(lettertable.table(page.letters, width)))
    else:
        click.echo("no dead letters")
    if page.more:
        more = f"{page.more} more: raise --limit, or narrow it with --since, --client, --op, --id, --code or --outcome"
        click.echo(more, err=as_json)


# --- show


@dlq.command()
@choosing.ONE_SEQUENCE
@click.option("--payload", is_flag=True, help="The decoded fields too; what is signed only by digest and length.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--export", metavar="FILE", type=click.Path(allow_dash=True),
    help="Write the payload's exact bytes there, for your eyes only (mode 0600), and show nothing; - is a pipe.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="With --export: over a file that is there.")
@click.pass_obj
def show(
    context: CliContext, sequence: int, payload: bool, as_json: bool, export: str | None, force: bool
) -> None:  # fmt: skip
    """Show one dead letter: why, when, its headers, and the names and sizes of its fields."""
    if export is not None:
        if payload or as_json:
            came = "--payload" if payload else "--json"
            raise click.UsageError(f"--export: expected neither --payload nor --json beside it, got {came}")
        exporting.check(export, force=force)
    elif force:
        raise click.UsageError("--force: expected --export FILE beside it, got none")
    letter, data = perform(context, lambda bench: bench.letters.open(sequence))
    if export is not None:
        exporting.write(export, data, force=force)
    elif as_json:
        about = letters.as_json(letter)
        click.echo(json.dumps(about | {"payload": letters.payload_json(letter, data, values=payload)}))
    else:
        click.echo("\n".join(letters.full(letter, data, values=payload)))
    sys.exit(DONE)


# --- replay


@dlq.command()
@choosing.SEQUENCES
@choosing.selecting
@choosing.ALL
@choosing.DRY_RUN
@choosing.YES
@click.option("--drop", is_flag=True, help="Drop each dead letter whose request is queued.")
@click.option(
    "--wait", "wait_s", metavar="SECONDS", type=choosing.seconds, default=DEFAULT_WAIT_S, show_default=True,
    help="Wait so long, for all together, to say what became of them; 0: not at all.",
)  # fmt: skip
@click.pass_obj
def replay(
    context: CliContext, sequences: tuple[int, ...], selection: Selection, every: bool, dry_run: bool, yes: bool,
    drop: bool, wait_s: float,
) -> None:  # fmt: skip
    """Publish requests again, as new requests under every rule. The dead letters stay, unless --drop.

    With --all it asks first. Then it says what became of each: refused again (exit 1 if one was), accepted, joined.
    With --dry-run, say of each whether it would be accepted now, and why not (exit 1 if one would not).
    """
    choosing.check_choice(sequences, selection, every)
    chosen = _agreed(context, selection, ask=not (yes or dry_run)) if every else list(sequences)

    async def act(bench: Bench) -> int:
        code = await each(chosen, partial(bench.rehearse if dry_run else bench.replay, drop=drop))
        told = await bench.tell(wait_s) if wait_s and not dry_run else DONE
        return max(code, told)

    sys.exit(perform(context, act) if chosen else DONE)


def _agreed(context: CliContext, selection: Selection, *, ask: bool) -> list[int]:
    """The requests that a replay of all means; where a person is to be asked, what that person agreed to."""
    _check_terminal(ask=ask)
    found = perform(context, lambda bench: bench.chosen(selection))
    chosen = [letter for letter in found if not letter.is_result]
    if len(chosen) < len(found):
        click.echo(f"left out {len(found) - len(chosen)} results of the nodes: a result is no request", err=True)
    if not chosen:
        click.echo("no dead letters")
    elif ask:
        click.echo("\n".join(letters.plan(chosen)))
        _ask(f"replay {len(chosen)} dead letters?", "nothing replayed")
    return [letter.sequence for letter in chosen]


def _check_terminal(*, ask: bool) -> None:
    if ask and not sys.stdin.isatty():
        raise click.UsageError("--yes: needed where there is no terminal to ask on")


def _ask(question: str, declined: str) -> None:
    """With no connection open: a person may think for long."""
    if not click.confirm(question):
        click.echo(declined)
        sys.exit(FAILED)


# --- drop


@dlq.command()
@choosing.SEQUENCES
@choosing.selecting
@choosing.RESULTS
@choosing.ALL
@choosing.DRY_RUN
@choosing.YES
@click.pass_obj
def drop(
    context: CliContext, sequences: tuple[int, ...], selection: Selection, every: bool, dry_run: bool, yes: bool
) -> None:
    """Delete dead letters for good."""
    choosing.check_choice(sequences, selection, every)
    _check_terminal(ask=not (yes or dry_run))
    chosen = list(sequences)
    if every:
        chosen = [letter.sequence for letter in perform(context, lambda bench: bench.chosen(selection))]
    if dry_run:
        code = perform(context, lambda bench: each(chosen, bench.look))
        click.echo(f"{len(chosen)} would be dropped")
        sys.exit(code)
    if chosen and not yes:
        _ask(f"drop {len(chosen)} dead letters?", "nothing dropped")
    sys.exit(perform(context, lambda bench: bench.drop(chosen)))
