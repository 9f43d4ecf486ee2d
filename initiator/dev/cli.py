"""`initiator dev`: the whole system on embedded defaults, and `--once`: its main job, shown and checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click

from initiator.config import context
from initiator.dev.stack import CHAIN_CODE, Stack, StackOptions, running_stack


@click.command()
@click.option("--once", is_flag=True, help="Show the main job once, check every result, and end.")
@click.option("--kms", type=click.Choice(["moto", "localstack", "local"]), default="moto", show_default=True)
@click.option("--nodes", "routing", type=click.Choice(["scoped", "unscoped"]), default="scoped", show_default=True,
              help="How the nodes route results; unscoped is mpcium v0.3.5's form.")  # fmt: skip
@click.option("--env-file", type=click.Path(dir_okay=False, path_type=Path), help="Write addresses and logins there.")
def dev(once: bool, kms: Any, routing: Any, env_file: Path | None) -> None:
    """Run NATS, a KMS emulator, the daemon and three simulated nodes here, each party with an account of its own."""
    sys.exit(asyncio.run(_dev(once, kms, routing, env_file)))


async def _dev(
    once: bool,
    kms: Literal["moto", "localstack", "local"],
    routing: Literal["scoped", "unscoped"],
    env_file: Path | None,
) -> int:
    # a demonstration must not wait as long for a refusal as mpcium's nodes do (45 s for each delivery)
    options = StackOptions(kms=kms, routing=routing, forward_wait_s=0.25 if once else 45.0)
    click.echo(f"starting nats-server, KMS ({kms}), three nodes ({routing}) and the daemon …")
    async with running_stack(options) as stack:
        if env_file is not None:
            _write_env(env_file, stack)
        if once:
            from initiator.dev.once import demonstrate

            return await demonstrate(stack)
        with context_of(stack):
            _greet(stack)
            return await _until_interrupted(stack)


@contextlib.contextmanager
def context_of(stack: Stack) -> Iterator[None]:
    """The login that `initiator request` and its like use while this stack runs."""
    client = stack.options.clients[0]
    login = {"servers": [stack.nats_url], "user": client, "password_file": stack.secret_file(client)}
    content = json.dumps({"client": client, "nats": login, "chain_code": CHAIN_CODE}, indent=2)
    path = context.development_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(content)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == content:  # else a later stack's
                path.unlink()


def environment_of(stack: Stack) -> dict[str, str]:
    """What a client needs, as variables of a shell."""
    found = {"NATS_URL": stack.nats_url, "HEALTH_URL": f"http://127.0.0.1:{stack.http_port}/readyz?verbose"}
    for client in stack.options.clients:
        found[f"{client.upper()}_USER"] = client
        found[f"{client.upper()}_PASSWORD"] = stack.password(client)
    found["INITIATOR_CONFIG"] = str(stack.config_path)
    if stack.public_key is not None:
        found["EVENT_INITIATOR_PUBKEY"] = stack.public_key.hex
    return found


def _write_env(path: Path, stack: Stack) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"export {name}='{value}'\n" for name, value in environment_of(stack).items())


def _greet(stack: Stack) -> None:
    client = stack.options.clients[0]
    login = f"-s {stack.nats_url} --user {client} --password {stack.password(client)}"
    click.echo(f"""
ready.

  NATS            {stack.nats_url}
  clients         {", ".join(f"{name} / {stack.password(name)}" for name in stack.options.clients)}
  health          http://127.0.0.1:{stack.http_port}/readyz?verbose
  metrics         http://127.0.0.1:{stack.http_port}/metrics
  daemon's log    {stack.folder / "initiator.log"}
  its settings    {stack.config_path}

try, in another terminal:

  initiator request keygen --wallet-id w1 --wait
  initiator request sign --wallet-id w1 --key-type ed25519 --tx 0102030405 --wait
  initiator events --follow

or, with the nats command line:

  nats {login} subscribe 'initiator.out.{client}.>' &
  nats {login} request initiator.request.{client}.keygen '{{"wallet_id":"w1"}}' -H Content-Type:application/json
  nats {login} request initiator.query.{client}.status '{{"op":"keygen","id":"w1"}}'

Ctrl-C ends everything.""")


async def _until_interrupted(stack: Stack) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    daemon = stack.daemon
    if daemon is None:
        return 1
    ended = asyncio.create_task(daemon.wait())
    await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
    if ended.done() and not stop.is_set():
        click.echo(f"the daemon ended by itself:\n{stack.daemon_log()[-2000:]}", err=True)
        return 1
    ended.cancel()
    click.echo("stopping …")
    return 0
