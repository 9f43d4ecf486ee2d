"""What a folder was told before, and how a further run may differ from that.

Invariants: nothing goes by being left out: what a run is not told stays as it was; a login goes by `--drop` alone, and
takes its files with it; a folder that holds other things is none of ours, and nothing is written into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from initiator.config.load import section_from
from initiator.config.section import Section
from initiator.core.accounts import Layout
from initiator.errors import Code, HaltError
from initiator.natsconfig.keyring import Keyring, unusable
from initiator.natsconfig.order import Form, LoginKind, Order

_NAME = "order.json"
_OF_A_LOGIN = ("nk", "password", "bcrypt", "key", "pem", "creds")
_OPTIONS = ("form", "login", "hosts", "listen", "leaf_listen", "nodes_listen", "days", "expire")
_IN_A_SERVER = ("listen", "leaf_listen", "nodes_listen", "domain")


class Told(Section):
    """The order of the run before.

    Attributes:
        domain: the JetStream domain that nats.conf was written with.
        logins: the account of each login.
    """

    form: Form
    login: LoginKind
    authorizers: tuple[str, ...]
    auditors: tuple[str, ...]
    operators: tuple[str, ...]
    hosts: tuple[str, ...]
    listen: str
    leaf_listen: str
    nodes_listen: str
    days: int
    expire: bool
    domain: str | None
    logins: dict[str, str]

    def options(self) -> dict[str, Any]:
        """Fields of the order that says the same again."""
        return {name: getattr(self, name) for name in _OPTIONS}

    def parties(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Authorizers, auditors and operators."""
        return self.authorizers, self.auditors, self.operators


def read(keyring: Keyring) -> Told | None:
    """What the folder was told; None where there is none yet, or nothing in it.

    Raises:
        HaltError: it holds other things.
    """
    text = keyring.text(_NAME)
    if text is None:
        _check_empty(keyring)
        return None
    try:
        content = json.loads(text)
    except ValueError:
        raise unusable(keyring.path(_NAME), "expected JSON", "restore it from a copy") from None
    return section_from(Told, content, str(keyring.path(_NAME)), hint="restore it from a copy", strict=False)


def _check_empty(keyring: Keyring) -> None:
    try:
        found = next(iter(sorted(keyring.folder.iterdir())), None)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unusable(keyring.folder, str(error.strerror)) from None
    if found is not None:
        reason = f"holds {found.name!r} and no {_NAME}: it was not written by this command"
        raise unusable(keyring.folder, reason, "name a folder that is new or empty")


def hold(keyring: Keyring, order: Order, found: Layout) -> Mapping[str, str]:
    """Note the order, before anything is made for it; returns the logins that go, with their accounts.

    Raises:
        HaltError: the folder is of another form, or a login would go without being dropped.
    """
    told = read(keyring)
    logins = _logins(found)
    known = told.logins if told else {}
    if told is not None:
        _check_form(keyring, told, order)
    for name in order.drop:
        _check_drop(name, known, logins)
    left = [name for name, account in known.items() if logins.get(name) != account and name not in order.drop]
    if left:
        words = " ".join(f"--drop {name}" for name in left)
        reason = f"nothing names {', '.join(left)} any more, and no login goes by being left out"
        raise unusable(keyring.folder, reason, f"name them again, or say {words}")
    _write(keyring, order, known | logins)
    return {name: known[name] for name in order.drop}


def void(keyring: Keyring, user: str) -> None:
    """Take what a login has away; who is still named gets it anew. Raises HaltError."""
    for suffix in _OF_A_LOGIN:
        keyring.remove(f"logins/{user}.{suffix}")


def let_go(keyring: Keyring, user: str) -> None:
    """Take all files of a login away. Raises HaltError."""
    void(keyring, user)
    keyring.remove(f"{user}.yaml")


def forget(keyring: Keyring, order: Order, found: Layout) -> None:
    """Whoever was dropped is gone from everything that was written: the order is done."""
    _write(keyring, order, _logins(found))


def moved(told: Told | None, order: Order) -> list[str]:
    """What the servers' files, which are their operator's, must be told by hand, in words."""
    if told is None:
        return []
    now = {name: getattr(order, name, None) for name in _IN_A_SERVER} | {"domain": order.domain}
    pairs = [(name.replace("_", "-"), getattr(told, name), now[name]) for name in _IN_A_SERVER]
    return [
        f"{name}: {before or 'none'} before, {after or 'none'} now" for name, before, after in pairs if before != after
    ]


def _logins(found: Layout) -> dict[str, str]:
    return {user.name: account.name for account, user in found.users()}


def _check_form(keyring: Keyring, told: Told, order: Order) -> None:
    before, wanted = (_form(one.form, one.login, one.hosts) for one in (told, order))
    if before != wanted:  # its keys would be of no use
        hint = "name another folder, or say it as it was"
        raise unusable(keyring.folder, f"holds the form {before!r}, got {wanted!r}", hint)


def _form(form: Form, login: LoginKind, hosts: tuple[str, ...]) -> str:
    return ("jwt" if form == "jwt" else f"plain {login}") + (" tls" if hosts else "")


def _check_drop(name: str, known: Mapping[str, str], logins: Mapping[str, str]) -> None:
    if name not in known:
        raise HaltError(Code.CONFIG_INVALID, f"there is no login {name[:64]!r}", field="--drop")
    if logins.get(name) == known[name]:
        hint = "take it out of the settings' clients, the policy's authorizers and the options first"
        raise HaltError(Code.CONFIG_INVALID, f"{name!r} is still named", field="--drop", hint=hint)


def _write(keyring: Keyring, order: Order, logins: Mapping[str, str]) -> None:
    parties = order.parties
    content: dict[str, Any] = {name: getattr(order, name) for name in _OPTIONS}
    content |= {"authorizers": parties.authorizers, "auditors": parties.auditors, "operators": parties.operators}
    content |= {"domain": order.domain, "logins": logins}
    keyring.file(_NAME, json.dumps(content, indent=2) + "\n")
