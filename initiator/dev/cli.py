"""`initiator dev`: the whole system on embedded defaults, and `--once`: its main job, shown and checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from initiator.config import context
from initiator.dev.stack import CHAIN_CODE, Stack, StackOptions, running_stack
from initiator.dev.trust import AUDIENCE
from initiator.errors import InitiatorError


@click.command()
@click.option("--once", is_flag=True, help="Show the main job once, check every result, and end.")
@click.option("--kms", type=click.Choice(["moto", "localstack", "local"]), default="moto", show_default=True)
@click.option("--nodes", "routing", type=click.Choice(["scoped", "unscoped"]), default="scoped", show_default=True,
              help="How the nodes route results; unscoped is mpcium v0.3.5's form.")  # fmt: skip
@click.option(
    "--authorizers", type=click.IntRange(0, 9), default=0, show_default=True, help="So many authorizers must sign, too."
)
@click.option(
    "--policy",
    type=click.Choice(["open", "strict"]),
    default="open",
    show_default=True,
    help="strict: clients sign their requests, and use their own wallets alone.",
)
@click.option("--audit-log", type=click.Path(file_okay=False, path_type=Path),
              help="Leave the audit log there, at the end of --once.")  # fmt: skip
@click.option("--env-file", type=click.Path(dir_okay=False, path_type=Path), help="Write addresses and logins there.")
def dev(
    once: bool, kms: Any, routing: Any, authorizers: int, policy: str, audit_log: Path | None, env_file: Path | None
) -> None:
    """Run NATS, a KMS emulator, the daemon and three simulated nodes here, each party with an account of its own."""
    if audit_log is not None and not once:
        raise click.UsageError("--audit-log needs --once; else `initiator audit export`, with the printed settings")
    # a demonstration must not wait as long for a refusal as mpcium's nodes do (45 s for each delivery)
    options = StackOptions(
        kms=kms, routing=routing, authorizers=authorizers, strict=policy == "strict",
        forward_wait_s=0.25 if once else 45.0,
    )  # fmt: skip
    sys.exit(asyncio.run(_dev(options, once, audit_log, env_file)))


async def _dev(options: StackOptions, once: bool, audit_log: Path | None, env_file: Path | None) -> int:
    _end_in_order()
    more = f", {options.authorizers} authorizers" if options.authorizers else ""
    more += ", a strict policy" if options.strict else ""
    click.echo(f"starting nats-server, KMS ({options.kms}), three nodes ({options.routing}) and the daemon{more} …")
    try:
        async with running_stack(options) as stack:
            if env_file is not None:
                _write_env(env_file, stack)
            if once:
                from initiator.dev.once import demonstrate

                return await demonstrate(stack, audit_log)
            with context_of(stack) as ours:
                _greet(stack, ours=ours)
                return await _keep_running(stack)
    except asyncio.CancelledError:
        return 130 if once else 0


def _end_in_order() -> None:
    """Whatever asks us to end, a closed terminal included, and whenever: what was started is ended first."""
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end() -> None:
        for number in numbers:  # once is enough: a second one must not come between
            loop.add_signal_handler(number, lambda: None)
        with contextlib.suppress(OSError):  # a closed terminal takes no words
            click.echo("stopping …")
        if main is not None:
            main.cancel()

    for number in numbers:
        loop.add_signal_handler(number, end)


@contextlib.contextmanager
def context_of(stack: Stack) -> Iterator[bool]:
    """The login that `initiator request` and its like use while this stack runs; yields whether it is this stack's.

    A stack that runs already keeps it: nobody's commands go to another one in the middle of what he does.
    """
    path = context.development_path()
    if _another_runs(path):
        yield False
        return
    content = _login_of(stack)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(content)
    except OSError as error:
        click.echo(f"commands do not find this stack by themselves: {path}: {error.strerror}", err=True)
        yield False
        return
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == content:  # else a later stack's
                path.unlink()


def _login_of(stack: Stack) -> str:
    client = stack.options.clients[0]
    login = {"servers": [stack.nats_url], "user": client, "password_file": stack.secret_file(client)}
    content: dict[str, Any] = {"client": client, "nats": login, "chain_code": CHAIN_CODE}
    if stack.trust is not None and (key := stack.trust.signing_key_of(client)):
        content |= {"signing_key_file": key, "audience": AUDIENCE}
    return json.dumps(content, indent=2)


def _another_runs(path: Path) -> bool:
    """Whether the server of the stack that left its login there still listens."""
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError):
        where = urlsplit(json.loads(path.read_text())["nats"]["servers"][0])
        with socket.create_connection((str(where.hostname), where.port or 4222), timeout=1.0):
            return True
    return False


def environment_of(stack: Stack) -> dict[str, str]:
    """What a client needs, as variables of a shell."""
    found = {"NATS_URL": stack.nats_url, "HEALTH_URL": f"http://127.0.0.1:{stack.http_port}/readyz?verbose"}
    for client in stack.options.clients:
        found[f"{client.upper()}_USER"] = client
        found[f"{client.upper()}_PASSWORD"] = stack.password(client)
    found["CHAIN_CODE"] = CHAIN_CODE
    found["INITIATOR_CONFIG"] = str(stack.config_path)
    if stack.public_key is not None:
        found["EVENT_INITIATOR_PUBKEY"] = stack.public_key.hex
    return found


def _write_env(path: Path, stack: Stack) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"export {name}='{value}'\n" for name, value in environment_of(stack).items())


def _greet(stack: Stack, *, ours: bool) -> None:
    client = stack.options.clients[0]
    login = f"-s {stack.nats_url} --user {client} --password {stack.password(client)}"
    program = "initiator" if shutil.which("initiator") else sys.argv[0]
    own = ""
    if not ours:
        path = stack.folder / "client.json"
        path.touch(mode=0o600)
        path.write_text(_login_of(stack))
        own = f" --context {path}"
        click.echo(f"commands go to another `initiator dev`, or to none, unless they name this one with{own}")
    click.echo(f"""
ready.

  NATS            {stack.nats_url}
  clients         {", ".join(f"{name} / {stack.password(name)}" for name in stack.options.clients)}
  chain code      {CHAIN_CODE}
  health          http://127.0.0.1:{stack.http_port}/readyz?verbose
  metrics         http://127.0.0.1:{stack.http_port}/metrics
  daemon          pid {stack.daemon.pid if stack.daemon else "-"}; when it dies, it is started again
  its log         {stack.folder / "initiator.log"}
  its settings    {stack.config_path}

All of it is gone with this program, wallets included.

try, in another terminal:

  {program} request keygen --wallet-id w1 --wait{own}
  {program} request sign --wallet-id w1 --key-type ed25519 --tx 0102030405 --wait{own}
  {program} events --follow{own}
  {program} --config {stack.config_path} top

or, with the nats command line:

  nats {login} subscribe 'initiator.out.{client}.>' &
  nats {login} request initiator.request.{client}.keygen '{{"wallet_id":"w1"}}' -H Content-Type:application/json
  nats {login} request initiator.query.{client}.status '{{"op":"keygen","id":"w1"}}'

Ctrl-C ends everything.""")


async def _keep_running(stack: Stack) -> int:
    """Keep the daemon running, as a cluster would."""
    while stack.daemon is not None:
        code = await stack.daemon.wait()
        click.echo(f"the daemon ended ({_how(code)}); it is started again …", err=True)
        try:
            await stack.start_daemon()
        except (InitiatorError, TimeoutError) as error:
            click.echo(f"it does not start again: {error}", err=True)
            return 1
        click.echo(f"ready; the daemon is pid {stack.daemon.pid if stack.daemon else '-'}", err=True)
    return 1


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
