"""What the commands of dead letters take: sequences, or filters; each mistake is told with its option."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from initiator.core import subjects
from initiator.core.deadletter import Selection
from initiator.core.events import Outcome, format_time, parse_when
from initiator.core.model import Operation
from initiator.errors import Code

MAX_SEQUENCE = 2**64 - 1
MAX_WAIT_S = 3600.0
_SHOWN = 64  # of a mistake


def whole_number(meaning: str) -> Callable[[str], int]:
    """A type of options: a number from 1 on, as servers count."""

    def convert(value: str) -> int:
        text = str(value)  # a default is a number already
        # bounded first: Python refuses to read thousands of digits
        short = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SEQUENCE))
        if not short or not 1 <= int(text) <= MAX_SEQUENCE:
            raise click.BadParameter(f"expected {meaning}, a whole number from 1 on, got {text[:_SHOWN]!a}")
        return int(text)

    return convert


def seconds(value: str) -> float:
    """A type of options: a time to wait."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 <= found <= MAX_WAIT_S:
        raise click.BadParameter(f"expected seconds from 0 to {MAX_WAIT_S:g}, got {str(value)[:_SHOWN]!a}")
    return found


def _client(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not subjects.is_client(value):
        raise click.BadParameter(f"expected 1 to 64 of A-Z a-z 0-9 _ -, got {value[:_SHOWN]!a}")
    return value


def _id(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():  # any other text: what was refused for its id has an odd one
        raise click.BadParameter(f"expected a wallet_id, tx_id or session_id, got {value[:_SHOWN]!a}")
    return value


def _code(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value.upper() not in Code.__members__:
        raise click.BadParameter(f"expected a code of the runbook, such as EXPIRED, got {value[:_SHOWN]!a}")
    return value and value.upper()


def _complete_code(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    return [code for code in Code.__members__ if code.startswith(begun.upper())]


def _when(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_when(value, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_FILTERS = (
    click.option("--client", metavar="NAME", callback=_client, help="Of this client."),
    click.option("--op", "operation", type=click.Choice([op.value for op in Operation]), help="Of this operation."),
    click.option("--id", "operation_id", metavar="ID", callback=_id, help="With this wallet_id, tx_id or session_id."),
    click.option("--code", metavar="CODE", callback=_code, shell_complete=_complete_code, help="With this code."),
    click.option("--outcome", type=click.Choice([outcome.value for outcome in Outcome]), help="With this outcome."),
    click.option("--since", metavar="TIME", callback=_when, help="From RFC 3339 on, or not older than 2h, 1d12h, …"),
    click.option("--until", metavar="TIME", callback=_when, help="Before RFC 3339, or older than 2h, 1d12h, …"),
)
_NAMES = ("client", "operation", "operation_id", "code", "outcome", "since", "until")
_SEQUENCE = whole_number("the sequence of a dead letter")
RESULTS = click.option("--results", is_flag=True, help="Only results of the nodes.")
ALL = click.option("--all", "every", is_flag=True, help="All that the filters leave.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
YES = click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can be asked.")
SEQUENCES = click.argument("sequences", metavar="[SEQ]...", nargs=-1, type=_SEQUENCE)
ONE_SEQUENCE = click.argument("sequence", metavar="SEQ", type=_SEQUENCE)


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the filters, as one `selection`."""

    @wraps(command)
    def call(*args: Any, results: bool = False, **options: Any) -> None:
        chosen = {name: options.pop(name) for name in _NAMES}
        since, until = chosen["since"], chosen["until"]
        if results and chosen["client"]:
            raise click.UsageError(f"--results: results of the nodes have no client, got --client {chosen['client']}")
        if since is not None and until is not None and since >= until:
            raise click.UsageError(f"--until: expected a time after --since, got {_span(since, until)}")
        operation = Operation(chosen["operation"]) if chosen["operation"] else None
        command(*args, selection=Selection(**chosen | {"operation": operation, "results": results}), **options)

    for option in reversed(_FILTERS):
        call = option(call)
    return call


def _span(since: float, until: float) -> str:
    try:
        return f"{format_time(until)} (--since is {format_time(since)})"
    except (ValueError, OverflowError):
        return "an earlier one"  # of a year that no text names


def check_choice(sequences: tuple[int, ...], selection: Selection, every: bool) -> None:
    """Raises UsageError unless either sequences were given, or --all with or without filters."""
    if every == bool(sequences):
        came = "both" if every else "neither"
        raise click.UsageError(f"SEQ: expected sequences, or --all with or without filters, got {came}")
    if sequences and selection != Selection():
        raise click.UsageError("SEQ: expected --all beside filters, got sequences: filters choose among --all")
