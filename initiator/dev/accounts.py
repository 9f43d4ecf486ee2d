"""The NATS configuration of the development stack: the accounts of `core.accounts`, with passwords for its length."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from initiator.core.accounts import DAEMON, DAEMON_AT_NODES, NODE, Parties, authorizer_user, layout
from initiator.core.model import Operation
from initiator.natsconfig import plain

NODES = NODE
__all__ = ["DAEMON", "DAEMON_AT_NODES", "NODES", "Logins", "server_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """User names and freshly made passwords, one login per part."""

    clients: Sequence[str]
    authorizers: Sequence[str] = ()
    passwords: Mapping[str, str] = field(repr=False)

    @classmethod
    def generate(cls, clients: Sequence[str], authorizers: Sequence[str] = ()) -> Logins:
        users = [DAEMON, DAEMON_AT_NODES, NODES, *clients, *(authorizer_user(name) for name in authorizers)]
        passwords = {user: secrets.token_urlsafe(18) for user in users}
        return cls(clients=tuple(clients), authorizers=tuple(authorizers), passwords=passwords)


def server_config(logins: Logins, place: str, client_id: str | None = "initiator") -> str:
    """The configuration of one nats-server.

    Args:
        place: the lines that say where it listens and where its store is.
        client_id: the daemon's ClientID at the nodes; None where their results are unscoped.
    """
    clients = dict.fromkeys(logins.clients, tuple(Operation))
    parties = Parties(clients=clients, authorizers=logins.authorizers, client_id=client_id)
    known = {user: plain.password(user, word) for user, word in logins.passwords.items()}
    return f"server_name: initiator-dev\n{place}\nmax_payload: 1MB\n{plain.accounts_block(layout(parties), known)}"
