"""`initiator nats-config`: nats-server's configuration, with an account and a login for each party."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import cast

import click

from initiator.cli import CliContext
from initiator.config.policyfile import load_policy
from initiator.config.schema import Settings
from initiator.core.accounts import Parties
from initiator.natsconfig.order import Form, LoginKind, Order, Written


@click.command("nats-config")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--form", type=click.Choice(["plain", "jwt"]), default="plain", show_default=True,
              help="One configuration file, or operator mode with JWTs and credentials files.")  # fmt: skip
@click.option("--login", type=click.Choice(["password", "nkey", "mtls"]), default=None, show_default="nkey",
              help="How users of the plain form log in; mpcium's nodes know no NKeys: a password then.")  # fmt: skip
@click.option(
    "--authorizer",
    "authorizers",
    metavar="ID",
    multiple=True,
    help="One who countersigns, beside those that the policy names; repeatable.",
)
@click.option("--auditor", "auditors", metavar="NAME", multiple=True, help="One who reads the record; repeatable.")
@click.option(
    "--operator", "operators", metavar="NAME", multiple=True, help="One who uses freeze, stopline, dlq, top and check."
)
@click.option("--host", "hosts", metavar="NAME", multiple=True,
              help="A name or address of the server, for its certificate; without one there is no TLS.")  # fmt: skip
@click.option(
    "--listen", metavar="HOST:PORT", default="127.0.0.1:4222", show_default=True, help="The server's address."
)
@click.option("--leaf-listen", metavar="HOST:PORT", default="127.0.0.1:7422", show_default=True,
              help="JWT form: where the nodes' own server comes in.")  # fmt: skip
@click.option("--nodes-listen", metavar="HOST:PORT", default="127.0.0.1:4223", show_default=True,
              help="JWT form: the address of that server.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Certificates hold so long.")
@click.option("--expire", is_flag=True, help="JWT form: credentials hold no longer either; a later run renews them.")
@click.option("--revoke", metavar="USER", multiple=True, help="JWT form: make a login void, and a new one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def nats_config(
    context: CliContext, folder: Path, form: str, login: str | None, authorizers: tuple[str, ...],
    auditors: tuple[str, ...], operators: tuple[str, ...], hosts: tuple[str, ...], listen: str, leaf_listen: str,
    nodes_listen: str, days: int, expire: bool, revoke: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Write nats-server's configuration into FOLDER: an account for the daemon, the nodes, every client of the
    settings and every authorizer of the policy, with what each may do and hear, and a new key or password for each,
    readable for you alone.

    Run it again after the clients changed: keys and passwords that are there stay.
    """
    if form == "jwt" and login:
        raise click.UsageError(f"--login: expected none with --form jwt (all have credentials), got {login}")
    if revoke and form != "jwt":
        raise click.UsageError("--revoke: expected --form jwt; else remove the login's files and run this again")
    settings = context.load().settings
    parties = _parties(settings, authorizers, auditors, operators)
    order = Order(
        parties=parties, form=cast("Form", form), login=cast("LoginKind", login or "nkey"), hosts=hosts, listen=listen,
        leaf_listen=leaf_listen, nodes_listen=nodes_listen, days=days, expire=expire, revoke=revoke,
    )  # fmt: skip
    _tell(folder, order, write(folder, order), as_json=as_json)


def _parties(
    settings: Settings, authorizers: tuple[str, ...], auditors: tuple[str, ...], operators: tuple[str, ...]
) -> Parties:
    nodes = settings.mpcium.nats or settings.nats
    named = load_policy(settings.policy.file).authorizers if settings.policy.file else {}
    return Parties(
        clients={name: client.operations for name, client in settings.clients.items()},
        authorizers=tuple(dict.fromkeys((*named, *authorizers))),
        auditors=auditors,
        operators=operators,
        client_id=settings.mpcium.scoped_client_id,
        domain=settings.nats.jetstream_domain,
        nodes_domain=nodes.jetstream_domain,
    )


def write(folder: Path, order: Order) -> Written:
    """Write the configuration; raises HaltError."""
    from initiator.natsconfig import jwtform, plainform
    from initiator.natsconfig.keyring import Keyring

    keyring = Keyring(folder.absolute())
    now = datetime.datetime.now(datetime.UTC)
    (jwtform if order.form == "jwt" else plainform).write(keyring, order, now)
    return Written(made=keyring.made, changed=keyring.changed, strays=list(keyring.strays("logins")))


def _tell(folder: Path, order: Order, written: Written, *, as_json: bool) -> None:
    if as_json:
        told = {"folder": str(folder), "made": written.made, "changed": written.changed, "unused": written.strays}
        click.echo(json.dumps(told))
        return
    for word, names in (("made", written.made), ("wrote", written.changed)):
        for name in names:
            click.echo(f"{word:<6} {name}")
    if not written.made and not written.changed:
        click.echo("nothing changed")
    for name in written.strays:
        click.echo(f"unused {name}: it opens nothing any more; remove it", err=True)
    if not order.parties.clients:
        click.echo("no client in the settings: nobody may ask for anything", err=True)
    if not order.hosts:
        click.echo("no TLS (--host): only where nobody else can listen", err=True)
    click.echo(f"\nnats-server -c {folder / 'nats.conf'}  (after a change: nats-server --signal reload)")
