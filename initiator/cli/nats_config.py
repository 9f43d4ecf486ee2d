"""`initiator nats-config`: nats-server's configuration, with an account and a login for each party."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from initiator.cli import CliContext
from initiator.config.policyfile import load_policy
from initiator.config.schema import Settings
from initiator.core.accounts import Parties, auditor_user, authorizer_user, operator_user
from initiator.errors import Code, HaltError
from initiator.natsconfig.order import Order

if TYPE_CHECKING:
    from initiator.natsconfig.keyring import Keyring


@click.command("nats-config")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--form", type=click.Choice(["plain", "jwt"]), show_default="plain",
              help="One configuration file, or operator mode with JWTs and credentials files.")  # fmt: skip
@click.option("--login", type=click.Choice(["password", "nkey", "mtls"]), show_default="nkey",
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
@click.option("--drop", metavar="USER", multiple=True, help="A login that goes; repeatable.")
@click.option("--host", "hosts", metavar="NAME", multiple=True,
              help="A name or address of the server, for its certificate; without one there is no TLS.")  # fmt: skip
@click.option("--listen", metavar="HOST:PORT", show_default="127.0.0.1:4222", help="The server's address.")
@click.option("--leaf-listen", metavar="HOST:PORT", show_default="127.0.0.1:7422",
              help="JWT form: where the nodes' own server comes in.")  # fmt: skip
@click.option("--nodes-listen", metavar="HOST:PORT", show_default="127.0.0.1:4223",
              help="JWT form: the address of that server.")  # fmt: skip
@click.option("--days", type=click.IntRange(1, 3650), show_default="365", help="Certificates hold so long.")
@click.option("--expire/--no-expire", default=None,
              help="JWT form: credentials hold no longer either; a later run renews them.")  # fmt: skip
@click.option("--revoke", metavar="USER", multiple=True, help="Make a login void, and a new one; not of certificates.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def nats_config(
    context: CliContext, /, folder: Path, authorizers: tuple[str, ...], auditors: tuple[str, ...],
    operators: tuple[str, ...], as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Write nats-server's configuration into FOLDER: an account for the daemon, the nodes, every client of the
    settings and every authorizer of the policy, with what each may do and hear, and a new key or password for each,
    readable for you alone.

    Run it again after the clients changed, with what is new: options that it was given before hold on, keys and
    passwords that are there stay, and a login goes by --drop alone.
    """
    from initiator.natsconfig import folder as folders
    from initiator.natsconfig.keyring import Keyring

    settings = context.load().settings
    _keep_out(folder, context.config_path)
    keyring = Keyring(folder.absolute())
    told = folders.read(keyring)
    before = told.parties() if told else ((), (), ())
    parties = _parties(settings, before, (authorizers, auditors, operators), options["drop"])
    given = {name: value for name, value in options.items() if value not in (None, ())}
    order = Order(parties=parties, **((told.options() if told else {}) | given))
    _check(order, given)
    write(keyring, order)
    _tell(keyring, order, folders.moved(told, order), as_json=as_json)


def _keep_out(folder: Path, config_path: str | None) -> None:
    """Raises HaltError where the configuration in use would lie among the files that are written."""
    path = config_path or os.environ.get("INITIATOR_CONFIG")
    if path and Path(path).resolve().is_relative_to(folder.resolve()):
        reason = "lies in the folder that is written, which has an initiator.yaml of its own"
        raise HaltError(Code.CONFIG_INVALID, reason, field=path, hint="keep the daemon's configuration elsewhere")


def _check(order: Order, given: Mapping[str, Any]) -> None:
    if order.form == "jwt" and "login" in given:
        raise click.UsageError(f"--login: expected none with --form jwt (all have credentials), got {order.login}")
    if order.form == "plain" and order.expire:
        raise click.UsageError("--expire: expected --form jwt; in plain form certificates alone end, after --days")
    if order.revoke and (order.form, order.login) == ("plain", "mtls"):
        raise click.UsageError("--revoke: nats-server reads no revocation lists: make a new authority (docs/nats.md)")


Names = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Authorizers, auditors, operators."""


def _parties(settings: Settings, before: Names, given: Names, drop: Collection[str]) -> Parties:
    """Who is named now, and who was before and is not dropped."""
    nodes = settings.mpcium.nats or settings.nats
    of_policy = tuple(load_policy(settings.policy.file).authorizers) if settings.policy.file else ()
    users = (authorizer_user, auditor_user, operator_user)
    kept = [[name for name in names if user(name) not in drop] for names, user in zip(before, users, strict=True)]
    return Parties(
        clients={name: client.operations for name, client in settings.clients.items()},
        authorizers=tuple(dict.fromkeys((*kept[0], *of_policy, *given[0]))),
        auditors=tuple(dict.fromkeys((*kept[1], *given[1]))),
        operators=tuple(dict.fromkeys((*kept[2], *given[2]))),
        client_id=settings.mpcium.scoped_client_id,
        domain=settings.nats.jetstream_domain,
        nodes_domain=nodes.jetstream_domain,
    )


def write(keyring: Keyring, order: Order) -> None:
    """Write the configuration; raises HaltError."""
    from initiator.natsconfig import jwtform, plainform

    now = datetime.datetime.now(datetime.UTC)
    (jwtform if order.form == "jwt" else plainform).write(keyring, order, now)


def _tell(keyring: Keyring, order: Order, moved: Sequence[str], *, as_json: bool) -> None:
    did = {
        "made": keyring.made,
        "wrote": keyring.changed,
        "gone": [name for name in keyring.removed if name not in keyring.made],
    }
    unused = list(keyring.strays("logins"))
    if as_json:
        told = {"folder": str(keyring.folder), "made": did["made"], "changed": did["wrote"], "removed": did["gone"]}
        click.echo(json.dumps(told | {"unused": unused, "moved": moved}))
        return
    for word, names in did.items():
        for name in names:
            click.echo(f"{word:<6} {name}")
    if not any(did.values()):
        click.echo("nothing changed")
    for name in unused:
        click.echo(f"unused {name}: no login has it; remove it", err=True)
    for words in moved:
        click.echo(f"{words}: nats.conf and leaf.conf are yours, change it there", err=True)
    if not order.parties.clients:
        click.echo("no client in the settings: nobody may ask for anything", err=True)
    if not order.hosts:
        click.echo("no TLS (--host): only where nobody else can listen", err=True)
    more = f"\nnats-server -c {keyring.folder / 'leaf.conf'}" if order.form == "jwt" else ""
    click.echo(f"\nnats-server -c {keyring.folder / 'nats.conf'}{more}\nafter a change: nats-server --signal reload")
