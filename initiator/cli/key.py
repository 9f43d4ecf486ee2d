"""`initiator key`: the public key for the nodes' configuration, and local keys for development."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import click

from initiator.cli import CliContext
from initiator.config.schema import LogSettings
from initiator.core.signer import PublicKey


@click.group()
def key() -> None:
    """Show the public key for the nodes, or make a local one."""


@key.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def show(context: CliContext, as_json: bool) -> None:
    """Ask the configured signer for its public key and print it as the nodes' configuration takes it."""
    from initiator import log

    settings = context.load().settings
    log.configure(LogSettings(level="warning"))  # to stderr: stdout is the key alone

    async def read() -> PublicKey:
        from initiator.app import connect_signer

        signer = await connect_signer(settings)
        try:
            return signer.public_key
        finally:
            await signer.close()

    _print(asyncio.run(read()), as_json=as_json)


@key.command()
@click.option("--algorithm", type=click.Choice(["p256", "ed25519"]), default="p256", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def generate(path: Path, algorithm: str, as_json: bool) -> None:
    """Make a local key for development in mpcium's format. Never for production: there the key lives in KMS."""
    from initiator import keyfile

    content, public_key = keyfile.generate("ed25519" if algorithm == "ed25519" else "p256")
    write_key(path, content)
    _print(public_key, as_json=as_json)


def write_key(path: Path, content: str) -> None:
    """Leave a private key in a new file of its owner's alone. Raises ClickException where there is a file already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{path} exists; keys are never overwritten") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(content)


@key.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def requester(path: Path) -> None:
    """Make a key with which a client signs its requests: an NKey seed, for the client alone. Prints its public key.

    The public key goes into the daemon's policy (`clients.NAME.keys`), the file into `--signing-key`.
    """
    from initiator.client.signing import RequestSigner, new_seed

    write_key(path, f"{new_seed()}\n")
    click.echo(RequestSigner.from_file(path).public_key)


def _print(public_key: PublicKey, *, as_json: bool) -> None:
    from initiator.core.spki import fingerprint

    if as_json:
        click.echo(
            json.dumps(
                {
                    "algorithm": public_key.algorithm,
                    "event_initiator_pubkey": public_key.hex,
                    "base64": base64.b64encode(public_key.encoded).decode(),
                    "fingerprint": fingerprint(public_key),
                }
            )
        )
        return
    click.echo(f"fingerprint: {fingerprint(public_key)}\n\n# for every node's config.yaml")
    click.echo(f'event_initiator_pubkey: "{public_key.hex}"\nevent_initiator_algorithm: "{public_key.algorithm}"')
