"""The accounts as nats-server's own configuration language."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from initiator.core.accounts import SYSTEM, Account, Grant, Layout, User

_VARIABLE = re.compile(r"\$[A-Z_]{2,}_PASSWORD")
Login = Mapping[str, str]
"""How one user proves who it is: fields of the server's configuration, with their values as they stand there."""


def quoted(text: str) -> str:
    r"""A text that the server takes as it is, `$` included. Of JSON's escapes it knows `\"` and `\\`, and no `\u`."""
    return json.dumps(text, ensure_ascii=False)


def password(user: str, value: str) -> Login:
    """A login by name and password: itself (a server of one test), its bcrypt hash, or a `$VARIABLE`."""
    return {"user": quoted(user), "password": value if _VARIABLE.fullmatch(value) else quoted(value)}


def accounts_block(layout: Layout, logins: Mapping[str, Login]) -> str:
    """The accounts with their users.

    Args:
        logins: by user's name; a user without one cannot log in and is left out.
    """
    accounts = "\n".join(_account(layout, account, logins) for account in layout.accounts)
    return f"accounts {{\n{accounts}\n}}\nsystem_account: {SYSTEM}\n"


def _account(layout: Layout, account: Account, logins: Mapping[str, Login]) -> str:
    parts = ["    jetstream: enabled"] if account.jetstream else []
    users = [user_line(user, logins[user.name]) for user in account.users if user.name in logins]
    parts += _listed("users", users)
    parts += _listed("exports", map(_export, layout.exports(account.name)))
    parts += _listed("imports", map(_import, layout.imports(account.name)))
    return "\n".join([f"  {account.name} {{", *parts, "  }"])


def _listed(name: str, lines: Iterable[str]) -> list[str]:
    found = [f"      {{ {line} }}" for line in lines]
    return [f"    {name}: [", *found, "    ]"] if found else []


def user_line(user: User, login: Login) -> str:
    words = [f"{name}: {value}" for name, value in login.items()]
    permissions = []
    if user.publish is not None:
        permissions.append(f"publish: {_subjects(user.publish)}")
    if user.subscribe is not None:
        permissions.append(f"subscribe: {_subjects(user.subscribe)}")
    if permissions:
        inner = "\n".join(f"          {line}" for line in permissions)
        words.append(f"permissions: {{\n{inner}\n      }}")
    return ", ".join(words)


def _subjects(names: tuple[str, ...]) -> str:
    if len(names) <= 3:
        return json.dumps(names)
    return "[\n" + "\n".join(f"            {quoted(name)}" for name in names) + "\n          ]"


def _export(grant: Grant) -> str:
    many = ", response_type: stream" if grant.many else ""
    return f"{grant.kind}: {quoted(grant.subject)}, accounts: [{grant.taker}]{many}"


def _import(grant: Grant) -> str:
    known_as = f", to: {quoted(grant.known_as)}" if grant.known_as else ""
    return f"{grant.kind}: {{ account: {grant.giver}, subject: {quoted(grant.subject)} }}{known_as}"
