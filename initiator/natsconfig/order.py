"""What a configuration shall be like, and the files that every form of it shares."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from initiator.core.accounts import (
    DAEMON,
    DAEMON_AT_NODES,
    INITIATOR,
    NODE,
    RECORD_DOMAIN,
    SYSTEM,
    Layout,
    Parties,
    layout,
)
from initiator.errors import Code, HaltError
from initiator.natsconfig import certificates
from initiator.natsconfig.keyring import Keyring

Form = Literal["plain", "jwt"]
ABOUT = "# Written by `initiator nats-config`: change the settings and run it again.\n"
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_ANYWHERE = ("0.0.0.0", "[::]")  # noqa: S104 - where a server listens, not where it is reached
LoginKind = Literal["password", "nkey", "mtls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to write.

    Attributes:
        login: how users of the plain form log in; in JWT form all have credentials.
        hosts: names and addresses of the server for its certificate; none: no TLS.
        listen: host and port of the server.
        leaf_listen: where the hub of the JWT form takes in the nodes' own server.
        days: how long certificates hold; in JWT form also users' credentials, if `expire` says so.
        nodes_listen: and where the nodes log in to that server.
    """

    parties: Parties
    form: Form = "plain"
    login: LoginKind = "nkey"
    hosts: tuple[str, ...] = ()
    listen: str = "127.0.0.1:4222"
    leaf_listen: str = "127.0.0.1:7422"
    nodes_listen: str = "127.0.0.1:4223"
    days: int = 365
    expire: bool = False
    revoke: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a run did: new secrets, changed files, and files that open nothing any more."""

    made: list[str]
    changed: list[str]
    strays: list[str]


def layout_of(order: Order) -> Layout:
    """The accounts. Raises HaltError for a name that is none."""
    try:
        found = layout(order.parties)
    except ValueError as error:
        raise HaltError(Code.CONFIG_INVALID, str(error), field="clients") from None
    _check_addresses(order)
    known = {user.name for _, user in found.users()}
    for name in order.revoke:
        if name not in known:
            raise HaltError(Code.CONFIG_INVALID, f"expected one of {', '.join(sorted(known))}, got {name[:64]!r}",
                            field="--revoke")  # fmt: skip
    return found


def _check_addresses(order: Order) -> None:
    if order.form == "plain" and order.login == "mtls" and not order.hosts:
        raise HaltError(Code.CONFIG_INVALID, "expected the server's names for its certificate", field="--host")
    for host in order.hosts:
        if not _HOST.fullmatch(host):
            reason = f"expected a host name or an address, got {host[:64]!r}"
            raise HaltError(Code.CONFIG_INVALID, reason, field="--host")
    listens = {"--listen": order.listen, "--leaf-listen": order.leaf_listen, "--nodes-listen": order.nodes_listen}
    for field, listen in listens.items():
        host, _, port = listen.rpartition(":")
        if not _HOST.fullmatch(host.strip("[]")) or not port.isascii() or not port.isdigit() or int(port) > 65_535:
            raise HaltError(Code.CONFIG_INVALID, f"expected HOST:PORT, got {listen[:64]!r}", field=field)


def hold_form(keyring: Keyring, order: Order) -> None:
    """Raises HaltError where the folder holds a configuration of another form: its keys would be of no use."""
    wanted = order.form if order.form == "jwt" else f"plain {order.login}"
    wanted += " tls" if order.hosts else ""
    path = keyring.path("form")
    found = path.read_text("utf-8").strip() if path.exists() else wanted
    if found != wanted:
        hint = "name another folder, or say it as it was"
        raise HaltError(Code.CONFIG_INVALID, f"holds the form {found!r}, got {wanted!r}", field=str(keyring.folder),
                        hint=hint)  # fmt: skip
    keyring.file("form", f"{wanted}\n")


class Authority:
    """The certificates of one folder."""

    def __init__(self, keyring: Keyring, days: int, now: datetime.datetime) -> None:
        self._keyring, self._days, self._now = keyring, days, now
        self._key = keyring.secret("tls/ca.key", certificates.make_key)
        self._certificate = keyring.secret("tls/ca.pem", lambda: certificates.authority(self._key, now))

    def server(self, hosts: tuple[str, ...]) -> None:
        key = self._keyring.secret("tls/server.key", certificates.make_key)
        signer = (self._certificate, self._key)
        make = partial(certificates.for_server, *signer, key, hosts, self._now, self._days)
        self._keyring.secret("tls/server.pem", make)

    def user(self, name: str) -> None:
        key = self._keyring.secret(f"logins/{name}.key", certificates.make_key)
        signer = (self._certificate, self._key)
        make = partial(certificates.for_user, *signer, key, name, self._now, self._days)
        self._keyring.secret(f"logins/{name}.pem", make)


def tls_block(folder: Path, *, mutual: bool) -> str:
    """The server's TLS; `mutual`: nobody comes in without a certificate of ours, and its name is the user's."""
    names = {"cert_file": "server.pem", "key_file": "server.key"} | ({"ca_file": "ca.pem"} if mutual else {})
    lines = [f"  {key}: {json.dumps(str(folder / 'tls' / name))}" for key, name in names.items()]
    lines += ["  verify_and_map: true"] if mutual else []
    return "\n".join(["tls {", *lines, "}"])


def server_text(keyring: Keyring, order: Order, *, mutual: bool, more: str = "") -> str:
    """`nats.conf`: what its operator may change, with the accounts by reference."""
    store = json.dumps(str(keyring.folder / "jetstream"))
    parts = [
        "# Written once by `initiator nats-config`, and yours from then on; accounts.conf is written anew by each run.",
        "server_name: nats-1",
        f"listen: {json.dumps(order.listen)}",
        "# every acknowledged message is on disk (by default: within two minutes)",
        f"jetstream {{ store_dir: {store}, sync_interval: always }}",
        "max_payload: 1MB",
    ]
    parts += [tls_block(keyring.folder, mutual=mutual)] if order.hosts else []
    parts += [more] if more else []
    return "\n".join([*parts, "include accounts.conf", ""])


def logins_of(
    keyring: Keyring, order: Order, found: Layout, login: Mapping[str, Mapping[str, str]], nodes_at: str | None = None
) -> None:
    """For every user the settings that log it in, as the daemon and clients read them.

    Args:
        login: by user: settings of a `nats` section, with files as names in the folder.
        nodes_at: where the nodes log in, if not at the server of the others.
    """
    url = url_of(order, order.listen)
    sections = {user: _section(keyring, order, fields, url) for user, fields in login.items()}
    daemon: dict[str, Any] = {"nats": sections[DAEMON], "mpcium": {"nats": sections[DAEMON_AT_NODES]}}
    keyring.file("initiator.yaml", _yaml("the daemon's logins: take them over into its configuration", daemon))
    for account, user in found.users():
        name = user.name
        if name == NODE and nodes_at is not None:
            sections[name] = dict(sections[name]) | {"servers": [nodes_at]}
        if account.name.startswith("CLIENT_"):
            about = f"{name}'s login: the file of --context (docs/clients.md)"
            keyring.file(f"{name}.yaml", _yaml(about, {"client": name, "nats": sections[name]}))
        elif account.name == INITIATOR and name != DAEMON:
            about = f"{name}'s logins: for freeze, stopline, dlq, top and check, in the place of the daemon's `nats`"
            keyring.file(f"{name}.yaml", _yaml(about, {"nats": sections[name]}))
        elif account.name not in (INITIATOR, SYSTEM) and name != DAEMON_AT_NODES:
            domain = {"jetstream_domain": RECORD_DOMAIN} if account.name.startswith("AUDITOR_") else {}
            keyring.file(f"{name}.yaml", _yaml(f"{name}'s login", {"nats": sections[name] | domain}))


def url_of(order: Order, listen: str) -> str:
    """Where a server that listens there is reached: by the name in its certificate, if it has one."""
    host, _, port = listen.rpartition(":")
    return (
        f"tls://{order.hosts[0]}:{port}"
        if order.hosts
        else f"nats://{'127.0.0.1' if host in _ANYWHERE else host}:{port}"
    )


def _section(keyring: Keyring, order: Order, fields: Mapping[str, str], url: str) -> dict[str, Any]:
    absolute = {k: str(keyring.path(v)) if k.endswith("_file") else v for k, v in fields.items()}
    tls: dict[str, str] = {k: absolute.pop(k) for k in ("cert_file", "key_file") if k in absolute}
    if order.hosts:
        tls = {"ca_file": str(keyring.path("tls/ca.pem"))} | tls
    return {"servers": [url], **absolute} | ({"tls": tls} if tls else {})


def _yaml(about: str, content: dict[str, Any]) -> str:
    return f"# {about}\n{json.dumps(content, indent=2)}\n"  # JSON is YAML
