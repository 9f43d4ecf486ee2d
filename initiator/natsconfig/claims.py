"""The accounts as JWT claims of version 2, as nats-server in operator mode reads them.

An export is private: whoever takes it shows an activation that the giver signed, so that an account that the operator
adds one day takes nothing by itself. Source: the claims of github.com/nats-io/jwt, version 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from initiator.core.accounts import Account, Grant, Layout, User

Claims = dict[str, Any]
_UNLIMITED = -1


def operator() -> Claims:
    return {"type": "operator", "version": 2}


def account(
    layout: Layout,
    one: Account,
    names: Mapping[str, str],
    activation: Callable[[Grant], str],
    revoked: Mapping[str, int] | None = None,
) -> Claims:
    """What an account may hold, gives and takes.

    Args:
        names: accounts' public keys by name.
        activation: the token that lets a grant be taken.
        revoked: users' public keys, and up to which second what was issued to them is void.
    """
    limits = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn"), _UNLIMITED)
    # nobody else's server joins through a client's account
    limits |= {"leaf": _UNLIMITED if one.jetstream else 0, "wildcards": True, "disallow_bearer": True}
    if one.jetstream:
        limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), _UNLIMITED)
    claims: Claims = {"limits": limits, "type": "account", "version": 2}
    if exports := layout.exports(one.name):
        claims["exports"] = [_export(grant) for grant in exports]
    if imports := layout.imports(one.name):
        claims["imports"] = [_import(grant, names[grant.giver], activation(grant)) for grant in imports]
    if revoked:
        claims["revocations"] = dict(revoked)
    return claims


def activation(grant: Grant) -> Claims:
    return {"subject": grant.subject, "kind": grant.kind, "type": "activation", "version": 2}


def user(one: User) -> Claims:
    claims: Claims = dict.fromkeys(("subs", "data", "payload"), _UNLIMITED)
    for direction, allowed in (("pub", one.publish), ("sub", one.subscribe)):
        claims[direction] = {"allow": list(allowed)} if allowed is not None else {}
    return claims | {"type": "user", "version": 2}


def _export(grant: Grant) -> Claims:
    found: Claims = {"name": grant.subject, "subject": grant.subject, "type": grant.kind, "token_req": True}
    if grant.kind == "service":
        found["response_type"] = "Stream" if grant.many else "Singleton"
    return found


def _import(grant: Grant, giver: str, token: str) -> Claims:
    found = {"name": grant.subject, "subject": grant.subject, "account": giver, "token": token, "type": grant.kind}
    return found | ({"local_subject": grant.known_as} if grant.known_as else {})


def as_read(layout: Layout) -> Mapping[str, Sequence[Claims] | Claims]:
    """All claims with names in the place of keys and tokens: for people, and to hold a review against."""
    names = {one.name: one.name for one in layout.accounts}
    return {
        one.name: {
            "account": account(layout, one, names, lambda grant: f"signed by {grant.giver} for {grant.taker}"),
            "users": {each.name: user(each) for each in one.users},
        }
        for one in layout.accounts
    }
