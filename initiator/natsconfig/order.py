"""What a configuration shall be like, and the files that every form of it shares."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from initiator.core import subjects
from initiator.core.accounts import (
    DAEMON,
    DAEMON_AT_NODES,
    INITIATOR,
    NODE,
    NODES,
    RECORD_DOMAIN,
    SYSTEM,
    Account,
    Layout,
    Parties,
    User,
    layout,
)
from initiator.errors import Code, HaltError
from initiator.natsconfig import certificates
from initiator.natsconfig.keyring import Keyring, unusable
from initiator.natsconfig.plain import quoted

Form = Literal["plain", "jwt"]
ABOUT = "# Written by `initiator nats-config`: change the settings and run it again.\n"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
_LISTEN = re.compile(r"(\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]{1,253})):(?P<port>[0-9]{1,5})")
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
        revoke: JWT form: logins that are void from now on; their owners get new ones.
        drop: logins that go.
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
    drop: tuple[str, ...] = ()

    @property
    def domain(self) -> str | None:
        """The JetStream domain of the server, which holds both accounts with streams."""
        return self.parties.domain or self.parties.nodes_domain


def layout_of(order: Order) -> Layout:
    """The accounts. Raises HaltError for a name that is none."""
    try:
        found = layout(order.parties)
    except ValueError as error:
        raise HaltError(Code.CONFIG_INVALID, str(error), field="clients") from None
    _check_addresses(order)
    _check_domain(order)
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
        if not _NAME.fullmatch(host) and not _is_v6(host):
            reason = f"expected a host name or an address, got {host[:64]!r}"
            raise HaltError(Code.CONFIG_INVALID, reason, field="--host")
    listens = {"--listen": order.listen, "--leaf-listen": order.leaf_listen, "--nodes-listen": order.nodes_listen}
    for field, listen in listens.items():
        parts = _LISTEN.fullmatch(listen)
        if parts is None or not 0 < int(parts["port"]) < 65_536 or (parts["v6"] and not _is_v6(parts["v6"])):
            raise HaltError(Code.CONFIG_INVALID, f"expected HOST:PORT, got {listen[:64]!r}", field=field)


def _check_domain(order: Order) -> None:
    domain, nodes_domain = order.parties.domain, order.parties.nodes_domain
    if domain and nodes_domain and domain != nodes_domain:
        reason = f"expected {domain!r}, the domain of `nats`, since one server holds both, got {nodes_domain!r}"
        raise HaltError(Code.CONFIG_INVALID, reason, field="mpcium.nats.jetstream_domain")
    if order.domain and not subjects.is_client(order.domain):
        reason = f"expected 1 to 64 of A-Z a-z 0-9 _ -, got {order.domain[:64]!r}"
        raise HaltError(Code.CONFIG_INVALID, reason, field="nats.jetstream_domain")


def _is_v6(text: str) -> bool:
    try:
        return "%" not in text and ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


class Authority:
    """The certificates of one folder."""

    def __init__(self, keyring: Keyring, days: int, now: datetime.datetime) -> None:
        self._keyring, self._days, self._now = keyring, days, now
        self._key = keyring.secret("tls/ca.key", certificates.make_key)
        with self._held("tls/ca.key"):
            self._certificate = keyring.certificate("tls/ca.pem", lambda: certificates.authority(self._key, now))

    def server(self, hosts: tuple[str, ...]) -> None:
        """The server's key and certificate, made anew where it shall have other names."""
        key = self._keyring.secret("tls/server.key", certificates.make_key)
        signer = (self._certificate, self._key)
        make = partial(certificates.for_server, *signer, key, hosts, self._now, self._days)
        with self._held("tls"):
            known = self._keyring.certificate("tls/server.pem", make)
            if not certificates.is_for(known, hosts):
                self._keyring.replace("tls/server.pem", make())

    def user(self, name: str) -> None:
        key = self._keyring.secret(f"logins/{name}.key", certificates.make_key)
        signer = (self._certificate, self._key)
        make = partial(certificates.for_user, *signer, key, name, self._now, self._days)
        with self._held(f"logins/{name}.key"):
            self._keyring.certificate(f"logins/{name}.pem", make)

    @contextlib.contextmanager
    def _held(self, name: str) -> Iterator[None]:
        """Raises HaltError where a key or certificate is none."""
        try:
            yield
        except (ValueError, TypeError):
            raise unusable(self._keyring.path(name), "expected P-256 keys and certificates as PEM") from None


def tls_block(folder: Path, *, mutual: bool) -> str:
    """The server's TLS; `mutual`: nobody comes in without a certificate of ours, and its name is the user's."""
    names = {"cert_file": "server.pem", "key_file": "server.key"} | ({"ca_file": "ca.pem"} if mutual else {})
    lines = [f"  {key}: {quoted(str(folder / 'tls' / name))}" for key, name in names.items()]
    lines += ["  verify_and_map: true"] if mutual else []
    return "\n".join(["tls {", *lines, "}"])


def server_text(keyring: Keyring, order: Order, *, mutual: bool, more: str = "") -> str:
    """`nats.conf`: what its operator may change, with the accounts by reference."""
    store = quoted(str(keyring.folder / "jetstream"))
    domain = f", domain: {quoted(order.domain)}" if order.domain else ""
    parts = [
        "# Written once by `initiator nats-config`, and yours from then on; accounts.conf is written anew by each run.",
        "server_name: nats-1",
        f"listen: {quoted(order.listen)}",
        "# every acknowledged message is on disk (by default: within two minutes)",
        f"jetstream {{ store_dir: {store}, sync_interval: always{domain} }}",
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
    for account, user in found.users():
        sections[user.name] |= _domain(order, account, user)
    if nodes_at is not None:
        sections[NODE]["servers"] = [nodes_at]
    daemon: dict[str, Any] = {"nats": sections[DAEMON], "mpcium": {"nats": sections[DAEMON_AT_NODES]}}
    keyring.file("initiator.yaml", _yaml("the daemon's logins: take them over into its configuration", daemon))
    for account, user in found.users():
        name, own = user.name, {"nats": sections[user.name]}
        if account.name.startswith("CLIENT_"):
            about = f"{name}'s login: the file of --context (docs/clients.md)"
            keyring.file(f"{name}.yaml", _yaml(about, {"client": name} | own))
        elif account.name.startswith("AUDITOR_"):
            about = f"{name}'s login, and the name under which it exports: the --config of `initiator audit export`"
            keyring.file(f"{name}.yaml", _yaml(about, own | {"audit": {"exporter": name.removeprefix("auditor-")}}))
        elif account.name == INITIATOR and name != DAEMON:
            about = f"{name}'s logins: for freeze, stopline, dlq, top and check, in the place of the daemon's `nats`"
            keyring.file(f"{name}.yaml", _yaml(about, own))
        elif account.name not in (INITIATOR, SYSTEM) and name != DAEMON_AT_NODES:
            keyring.file(f"{name}.yaml", _yaml(f"{name}'s login", own))


def _domain(order: Order, account: Account, user: User) -> dict[str, str]:
    """The JetStream domain by which a user calls, if it is to name one: mpcium's nodes know none."""
    if account.name.startswith("AUDITOR_"):
        return {"jetstream_domain": RECORD_DOMAIN}
    named = {INITIATOR: order.parties.domain, NODES: order.parties.nodes_domain}.get(account.name)
    return {"jetstream_domain": named} if named and user.name != NODE else {}


def url_of(order: Order, listen: str) -> str:
    """Where a server that listens there is reached: by the name in its certificate, if it has one."""
    host, _, port = listen.rpartition(":")
    if order.hosts:
        name = order.hosts[0]
        return f"tls://{f'[{name}]' if _is_v6(name) else name}:{port}"
    return f"nats://{'127.0.0.1' if host in _ANYWHERE else host}:{port}"


def _section(keyring: Keyring, order: Order, fields: Mapping[str, str], url: str) -> dict[str, Any]:
    absolute = {k: str(keyring.path(v)) if k.endswith("_file") else v for k, v in fields.items()}
    tls: dict[str, str] = {k: absolute.pop(k) for k in ("cert_file", "key_file") if k in absolute}
    if order.hosts:
        tls = {"ca_file": str(keyring.path("tls/ca.pem"))} | tls
    return {"servers": [url], **absolute} | ({"tls": tls} if tls else {})


def _yaml(about: str, content: dict[str, Any]) -> str:
    return f"# {about}\n{json.dumps(content, indent=2, ensure_ascii=False)}\n"  # JSON is YAML
