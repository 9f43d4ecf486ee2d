"""`initiator authorizer`: the other side of an operation that others must sign, too."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from initiator.cli import tell_memory_open
from initiator.core.model import Operation
from initiator.errors import RejectError

if TYPE_CHECKING:
    from initiator.authorizer.desk import Case, Desk
    from initiator.bus.connection import Connection, Message
    from initiator.config.authorizer import AuthorizerSettings
    from initiator.core.authorization import Answer

_CONFIG = click.option("--config", "path", required=True, type=click.Path(dir_okay=False), help="Its settings.")
APPROVED, NOTHING, DENIED, REFUSED = 0, 1, 3, 4


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


@authorizer.command()
@_CONFIG
@click.option("--op", "op", type=click.Choice([op.value for op in Operation]), help="Only this operation …")
@click.option("--id", "operation_id", help="… with this id.")
@click.option("--wait", "wait_s", default=12.0, show_default=True, help="Seconds to listen; asked again every five.")
@click.option("--list", "only_list", is_flag=True, help="Show what is pending, and decide nothing.")
@click.option("--yes", is_flag=True, help="Sign without asking; needs --op and --id.")
@click.option("--digest", metavar="HEX", help="With --yes: only if it is exactly what --list showed with this digest.")
@click.option("--deny", "denied", metavar="REASON", help="Say no; needs --op and --id.")
def approve(
    path: str, op: str | None, operation_id: str | None, wait_s: float, only_list: bool, yes: bool, digest: str | None,
    denied: str | None,
) -> None:  # fmt: skip
    """Show what waits for you, and sign or deny it.

    Exit codes: 0 signed (or listed), 1 nothing waits or was decided, 3 denied, 4 refused by the daemon.
    """
    from initiator import log, memory
    from initiator.config.authorizer import load_authorizer
    from initiator.config.schema import LogSettings

    memory.close()
    log.configure(LogSettings(level="error"))
    if (yes or denied) and not (op and operation_id):
        raise click.UsageError("--yes and --deny need --op and --id: nothing is decided unseen")
    if digest and not yes:
        raise click.UsageError("--digest stands with --yes")
    if not (yes or denied or only_list or sys.stdin.isatty()):
        raise click.UsageError("nobody can be asked here: --list, or --op and --id with --yes or --deny")
    settings = load_authorizer(path)
    person = _Person(_desk(settings), (op, operation_id), only_list=only_list, yes=yes, digest=digest, denied=denied)
    sys.exit(asyncio.run(_in_person(settings, person, wait_s)))


async def _in_person(settings: AuthorizerSettings, person: _Person, wait_s: float) -> int:
    from initiator.bus.connection import Connection
    from initiator.core import subjects

    connection = Connection(settings.nats, f"authorizer-{settings.authorizer_id}")
    asked: asyncio.Queue[Message] = asyncio.Queue()

    async def on_asking(received: Message) -> None:
        asked.put_nowait(received)

    try:
        await connection.open()
        await connection.subscribe(subjects.authorize(settings.authorizer_id, "*", "*"), on_asking)
        return await person.decide_all(connection, asked, wait_s)
    finally:
        await connection.close()


class _Person:
    """Somebody at a terminal, with what they asked for."""

    def __init__(
        self, desk: Desk, wanted: tuple[str | None, str | None], *, only_list: bool, yes: bool, digest: str | None,
        denied: str | None,
    ) -> None:  # fmt: skip
        self._desk = desk
        self._wanted = wanted
        self._only_list = only_list
        self._yes = yes
        self._digest = digest
        self._denied = denied
        self._seen: set[tuple[str, str]] = set()

    async def decide_all(self, connection: Connection, asked: asyncio.Queue[Message], wait_s: float) -> int:
        """Everything that is asked within a while; returns the exit code."""
        code, until = NOTHING, time.monotonic() + wait_s
        while True:
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    received = await asked.get()
            except TimeoutError:
                if code == NOTHING:
                    click.echo("nothing waits for you", err=True)
                return code
            case = self._read(received)
            if case is None:
                continue
            decided = await self._decide(connection, case)
            code = decided if decided is not None else max(code, 0)
            if all(self._wanted):
                return code
            until = max(until, time.monotonic() + 1.0)

    def _read(self, received: Message) -> Case | None:
        try:
            case = self._desk.read(received.subject, received.data, time.time())
        except RejectError as error:
            click.echo(f"refused: {error.field}: {error.reason}", err=True)
            return None
        key = (case.asking.operation.value, case.asking.operation_id)
        if key in self._seen or any(want not in (None, have) for want, have in zip(self._wanted, key, strict=True)):
            return None
        self._seen.add(key)
        return case

    async def _decide(self, connection: Connection, case: Case) -> int | None:
        """Show it, decide it; the exit code, None where nothing was decided."""
        from initiator.authorizer import shown
        from initiator.core.authorization import Answer

        for line in shown.lines(case, time.time()):
            click.echo(line)
        if self._only_list:
            click.echo()
            return APPROVED
        if self._digest and self._digest.lower() != case.digest:
            click.echo("refused: --digest: this is another request than the one that you mean", err=True)
            return REFUSED
        denied = self._denied
        if not self._yes and denied is None:
            _forget_what_was_typed()
            answer = await asyncio.to_thread(click.prompt, "sign it? [y/N/deny]", default="n", show_default=False)
            if answer.strip().lower() == "deny":
                denied = await asyncio.to_thread(click.prompt, "reason")
            elif answer.strip().lower() not in ("y", "yes"):
                click.echo("left as it is: it is asked for again until its deadline")
                return None
        try:
            made = Answer(self._desk.authorizer_id, denied=denied) if denied else await self._desk.sign(case)
        except RejectError as error:
            click.echo(f"refused: {error.field}: {error.reason}", err=True)
            return REFUSED
        return await self._send(connection, case, made)

    async def _send(self, connection: Connection, case: Case, made: Answer) -> int:
        from initiator.authorizer.service import reply_to

        said = await reply_to(connection, case, made)
        state = said.get("state")
        if state == "recorded":
            missing = ", ".join(map(str, said.get("missing") or [])) or "nobody"
            click.echo("denied" if made.denied else f"signed and recorded; missing: {missing}")
            return DENIED if made.denied else APPROVED
        if state == "refused":
            click.echo(f"refused by the daemon: {said.get('code')} {said.get('reason')}", err=True)
        else:
            click.echo("nobody holds it now: it is over, or is taken over in a moment; try again", err=True)
        return REFUSED


def _forget_what_was_typed() -> None:
    """An answer counts only if it came after its question: a key that was hit before signs nothing."""
    import termios

    if sys.stdin.isatty():
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
