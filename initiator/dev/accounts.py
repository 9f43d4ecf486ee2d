"""The NATS configuration of the development stack: an account each for the daemon, the nodes and every client.

Permissions inside one account would not do: a client's reply subject escapes its publish permission, and the
server's answer would land on any subject it names. A client's account reaches the daemon's by exports and imports
alone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from initiator.core import subjects

DAEMON, DAEMON_AT_NODES, NODES = "initiator", "initiator-nodes", "nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """User names and freshly made passwords, one login per part."""

    clients: Sequence[str]
    authorizers: Sequence[str] = ()
    passwords: Mapping[str, str] = field(repr=False)

    @classmethod
    def generate(cls, clients: Sequence[str], authorizers: Sequence[str] = ()) -> Logins:
        users = [DAEMON, DAEMON_AT_NODES, NODES, *clients, *authorizers]
        passwords = {user: secrets.token_urlsafe(18) for user in users}
        return cls(clients=tuple(clients), authorizers=tuple(authorizers), passwords=passwords)


# What the daemon may do in the nodes' account: publish requests, read back, consume results; nothing else.
_DAEMON_AT_NODES_PUBLISH = [
    "mpc.keygen_request.*",
    "mpc.signing_request.*",
    "mpc:reshare",
    "$JS.API.INFO",
    *(
        f"$JS.API.STREAM.{verb}.{stream}"
        for verb in ("INFO", "CREATE")
        for stream in ("mpc-keygen", "mpc-signing", "mpc")
    ),
    *(f"$JS.API.STREAM.MSG.GET.{stream}" for stream in ("mpc-keygen", "mpc-signing", "mpc")),
    "$JS.API.CONSUMER.DURABLE.CREATE.mpc.*",
    "$JS.API.CONSUMER.INFO.mpc.*",
    "$JS.API.CONSUMER.DELETE.mpc.*",
    "$JS.API.CONSUMER.MSG.NEXT.mpc.*",
    "$JS.ACK.mpc.>",
]


def server_config(logins: Logins, place: str) -> str:
    """The configuration of one nats-server.

    Args:
        place: the lines that say where it listens and where its store is.
    """
    clients = "\n".join(_client_account(name, logins.passwords[name]) for name in logins.clients)
    clients += "".join(_authorizer_account(name, logins.passwords[name]) for name in logins.authorizers)
    lines = [line for name in logins.clients for line in _exports(name)]
    lines += [line for name in logins.authorizers for line in _authorizer_exports(name)]
    exports = ",\n".join(lines)
    user = {name: f"user: {json.dumps(name)}, password: {json.dumps(word)}" for name, word in logins.passwords.items()}
    return f"""
server_name: initiator-dev
{place}
max_payload: 1MB
accounts {{
  INITIATOR {{
    jetstream: enabled
    users: [ {{ {user[DAEMON]} }} ]
    exports: [
{exports}
    ]
  }}
  NODES {{
    jetstream: enabled
    users: [
      {{ {user[NODES]} }}
      {{ {user[DAEMON_AT_NODES]}, permissions: {{
          publish: {json.dumps(_DAEMON_AT_NODES_PUBLISH)}
          subscribe: ["_INBOX_initiator.>"]
      }} }}
    ]
  }}
{clients}
}}
"""


def _exports(client: str) -> list[str]:
    account = f"accounts: [CLIENT_{client}]"
    services = [f"initiator.request.{client}.*", f"initiator.query.{client}.*", f"initiator.cancel.{client}"]
    return [
        *(f"      {{ service: {json.dumps(subject)}, {account} }}" for subject in services),
        f"      {{ stream: {json.dumps(f'initiator.out.{client}.>')}, {account} }}",
    ]


def _authorizer_exports(name: str) -> list[str]:
    account = f"accounts: [AUTHORIZER_{name}]"
    return [
        f"      {{ stream: {json.dumps(subjects.authorize(name, '*', '*'))}, {account} }}",
        f"      {{ service: {json.dumps(subjects.authorized(name, '*', '*'))}, {account} }}",
    ]


def _authorizer_account(name: str, password: str) -> str:
    asked, answers = subjects.authorize(name, "*", "*"), subjects.authorized(name, "*", "*")
    return f"""
  AUTHORIZER_{name} {{
    users: [ {{ user: {json.dumps(name)}, password: {json.dumps(password)} }} ]
    imports: [
      {{ stream: {{ account: INITIATOR, subject: {json.dumps(asked)} }} }},
      {{ service: {{ account: INITIATOR, subject: {json.dumps(answers)} }} }}
    ]
  }}"""


def _client_account(client: str, password: str) -> str:
    def imported(kind: str, subject: str) -> str:
        return f"      {{ {kind}: {{ account: INITIATOR, subject: {json.dumps(subject)} }} }}"

    imports = ",\n".join(
        [
            imported("service", f"initiator.request.{client}.*"),
            imported("service", f"initiator.query.{client}.*"),
            imported("service", f"initiator.cancel.{client}"),
            imported("stream", f"initiator.out.{client}.>"),
        ]
    )
    return f"""  CLIENT_{client} {{
    users: [ {{ user: {json.dumps(client)}, password: {json.dumps(password)} }} ]
    imports: [
{imports}
    ]
  }}"""
