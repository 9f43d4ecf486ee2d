"""`initiator authorizer`: the other side of an operation that others must sign, too."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from initiator.cli import tell_memory_open
from initiator.core.model import Operation

if TYPE_CHECKING:
    from initiator.authorizer.desk import Desk
    from initiator.config.authorizer import AuthorizerSettings

_CONFIG = click.option("--config", "path", required=True, type=click.Path(dir_okay=False), help="Its settings.")


@click.group()
def authorizer() -> None:
    """Sign, or refuse to, what the policy wants others to sign, too: as a service, or in person."""


@authorizer.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--id", "authorizer_id", required=True, help="The authorizer's id, in lower case.")
@click.option("--algorithm", type=click.Choice(["ed25519", "p256"]), default="ed25519", show_default=True)
def key(path: Path, authorizer_id: str, algorithm: Any) -> None:
    """Make a key in mpcium's own format, and print what the nodes and the daemon's policy need of it."""
    from initiator import keyfile
    from initiator.cli.key import write_key
    from initiator.core.authorization import is_authorizer

    if not is_authorizer(authorizer_id):
        raise click.BadParameter("expected lower-case letters, digits, _ and -", param_hint="--id")
    content, public = keyfile.generate(algorithm)
    write_key(path, content)
    click.echo("# every node's config.yaml; whom required_authorizers does not name the nodes do not wait for")
    click.echo(f"authorization:\n  enabled: true\n  required_authorizers: [{authorizer_id}]\n  authorizer_public_keys:")
    click.echo(f'    {authorizer_id}: {{public_key: "{public.hex}", algorithm: {algorithm}}}')
    click.echo("\n# the daemon's policy\nauthorizers:")
    click.echo(f'  {authorizer_id}: {{algorithm: {algorithm}, public_key: "{public.hex}"}}')


def _desk(settings: AuthorizerSettings) -> Desk:
    from initiator.authorizer.decisions import Decisions
    from initiator.authorizer.desk import Desk
    from initiator.config.policyfile import load_policy
    from initiator.core.spki import parse_public_key
    from initiator.keyfile import load_local_signer

    pin = parse_public_key(settings.event_initiator_pubkey, settings.event_initiator_algorithm)
    policy = load_policy(settings.policy) if settings.policy else None
    signer = load_local_signer(settings.key)
    decisions = Decisions(settings.decisions)
    return Desk(settings.authorizer_id, signer, pin, settings.audience, policy, settings.unmatched, decisions)


# --- the service


@authorizer.command()
@_CONFIG
def run(path: str) -> None:
    """Answer by rules, until SIGTERM: what the policy allows is signed, what it denies is denied."""
    from initiator import log, memory
    from initiator.config.authorizer import load_authorizer

    unclosed = memory.close()
    settings = load_authorizer(path)
    log.configure(settings.log)
    tell_memory_open(unclosed)
    asyncio.run(_serve(settings, _desk(settings)))


async def _serve(settings: AuthorizerSettings, desk: Desk) -> None:
    from initiator.authorizer.service import AuthorizerService
    from initiator.bus.connection import Connection

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    connection = Connection(settings.nats, f"authorizer-{settings.authorizer_id}")
    try:
        await connection.open()
        await AuthorizerService(desk, connection).run(stop)
    finally:
        await connection.close()


# --- a person


def _digest(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9a-fA-F]{64}", value):  # an empty one, of a variable that is not set, would hold nothing
        raise click.BadParameter("expected the 64 hex digits that --list shows")
    return value.lower()


def _reason(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    from initiator.core.authorization import MAX_REASON_CHARS, is_reason

    text = None if value is None else value.strip()
    if text is not None and not is_reason(text):
        raise click.BadParameter(f"expected 1 to {MAX_REASON_CHARS} printable characters")
    return text


@authorizer.command()
@_CONFIG
@click.option("--op", "op", type=click.Choice([op.value for op in Operation]), help="Only this operation …")
@click.option("--id", "operation_id", help="… with this id.")
@click.option("--wait", "wait_s", default=12.0, show_default=True, help="Seconds to wait for the first one.")
@click.option("--list", "only_list", is_flag=True, help="Show what is pending, and decide nothing.")
@click.option("--yes", is_flag=True, help="Sign without asking; needs --op and --id.")
@click.option("--digest", metavar="HEX", callback=_digest, help="With --yes: only if --list showed this digest for it.")
@click.option("--deny", "denied", metavar="REASON", callback=_reason, help="Say no; needs --op and --id.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each; with --list, --yes or --deny.")
def approve(
    path: str, op: str | None, operation_id: str | None, wait_s: float, only_list: bool, yes: bool, digest: str | None,
    denied: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what waits for you, and sign or deny it.

    With --op and --id it returns once that one is decided; else after some six seconds, in which all that waits has
    been asked for; where nothing waits, after --wait.

    Exit codes: 0 signed (or listed), 1 nothing waits or was decided, 3 denied, 4 refused.
    """
    from initiator import log, memory
    from initiator.cli.approving import Wish, in_person
    from initiator.config.authorizer import load_authorizer
    from initiator.config.schema import LogSettings

    memory.close()
    log.configure(LogSettings(level="error"))
    if only_list + yes + (denied is not None) > 1:
        raise click.UsageError("--list, --yes and --deny: at most one of them")
    if (yes or denied is not None) and not (op and operation_id):
        raise click.UsageError("--yes and --deny need --op and --id: nothing is decided unseen")
    if digest is not None and not yes:
        raise click.UsageError("--digest stands with --yes")
    decided = yes or denied is not None or only_list
    if as_json and not decided:
        raise click.UsageError("--json asks nobody: --list, or --op and --id with --yes or --deny")
    if not (decided or sys.stdin.isatty()):
        raise click.UsageError("nobody can be asked here: --list, or --op and --id with --yes or --deny")
    settings = load_authorizer(path)
    wish = Wish(op, operation_id, wait_s, only_list=only_list, yes=yes, digest=digest, denied=denied, as_json=as_json)
    sys.exit(asyncio.run(in_person(settings, _desk(settings), wish)))
