"""Who may do what on NATS: the accounts, what they give to each other, and what each user in them may send and hear.

The one source for every form of a server's configuration: plain, JWT, `initiator dev`, the documentation and tests.

Permissions inside one account would not do: a client's reply subject escapes its publish permission, and the
server's answer would land on any subject that it names. So every party has an account of its own, with no JetStream
in it, and reaches the daemon's by exports and imports alone: there a reply subject is one of the sender's account.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from initiator.core import subjects
from initiator.core.authorization import is_authorizer
from initiator.core.model import Operation

INITIATOR, NODES, SYSTEM = "INITIATOR", "NODES", "SYS"
DAEMON, DAEMON_AT_NODES, NODE, ADMIN = "initiator", "initiator-nodes", "nodes", "sys"
RECORD_DOMAIN = "initiator"
"""The JetStream domain under which an auditor reads the record."""
_OUR_INBOX = "_INBOX_initiator.>"
"""Of everything that speaks with our own connection: the daemon, and `freeze`, `audit export`, `authorizer run`, …"""
_ALL_OPERATIONS = frozenset(Operation)
Kind = Literal["service", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One login.

    Attributes:
        publish, subscribe: what it may; None: everything that its account holds.
    """

    name: str
    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One subject that an account gives to one other: messages to it (`service`) or from it (`stream`).

    Attributes:
        many: a service whose one question has several answers.
        known_as: the subject in the taker's account, where it is another there.
    """

    kind: Kind
    subject: str
    giver: str
    taker: str
    many: bool = False
    known_as: str | None = None

    @property
    def local(self) -> str:
        """The subject in the taker's account."""
        return self.known_as or self.subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account; without JetStream unless it says so."""

    name: str
    users: tuple[User, ...]
    jetstream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """All accounts of one deployment, and all ways between them."""

    accounts: tuple[Account, ...]
    grants: tuple[Grant, ...]

    def exports(self, account: str) -> list[Grant]:
        return [grant for grant in self.grants if grant.giver == account]

    def imports(self, account: str) -> list[Grant]:
        return [grant for grant in self.grants if grant.taker == account]

    def users(self) -> Iterator[tuple[Account, User]]:
        for account in self.accounts:
            for user in account.users:
                yield account, user


@dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """For whom there shall be logins.

    Attributes:
        clients: by name, what each may ask for.
        authorizers: mpcium's ids of those who countersign.
        auditors: who may read the record.
        operators: who may use `freeze`, `stopline`, `dlq`, `top` and `check` with a login of their own.
        client_id: our ClientID at the nodes; None where their results are unscoped.
        domain, nodes_domain: JetStream domains of the two accounts with streams.
    """

    clients: Mapping[str, Collection[Operation]]
    authorizers: Sequence[str] = ()
    auditors: Sequence[str] = ()
    operators: Sequence[str] = ()
    client_id: str | None = "initiator"
    domain: str | None = None
    nodes_domain: str | None = None


def layout(parties: Parties) -> Layout:
    """The accounts for these parties.

    Raises:
        ValueError: a name that is no token of a subject, or that two of them would share.
    """
    _check_names(parties)
    accounts = [_initiator(parties), _nodes(parties)]
    grants: list[Grant] = []
    for name in parties.clients:
        given = _client_grants(name, parties.clients[name])
        accounts.append(_account(client_account(name), name, given))
        grants += given
    for name in parties.authorizers:
        given = _authorizer_grants(name)
        accounts.append(_account(authorizer_account(name), authorizer_user(name), given))
        grants += given
    for name in parties.auditors:
        given = _auditor_grants(name, api_prefix(parties.domain))
        accounts.append(_account(f"AUDITOR_{name}", auditor_user(name), given))
        grants += given
    accounts.append(Account(name=SYSTEM, users=(User(name=ADMIN),)))
    found = Layout(accounts=tuple(accounts), grants=tuple(grants))
    _check_users(found)
    return found


def client_account(client: str) -> str:
    return f"CLIENT_{client}"


def authorizer_account(authorizer: str) -> str:
    return f"AUTHORIZER_{authorizer}"


def authorizer_user(authorizer: str) -> str:
    """Its login; the prefix keeps it apart from a client of the same name."""
    return f"authorizer-{authorizer}"


def auditor_user(auditor: str) -> str:
    return f"auditor-{auditor}"


def operator_user(operator: str) -> str:
    return f"operator-{operator}"


def api_prefix(domain: str | None) -> str:
    return f"$JS.{domain}.API" if domain else "$JS.API"


def _calls(domain: str | None, calls: Sequence[str]) -> tuple[str, ...]:
    """Calls of JetStream's API, as permissions have them.

    A server of the domain holds a permission against the subject without it, which it has put in its place by then;
    one that only leads there holds it against what was sent.
    """
    return tuple(f"{api_prefix(one)}.{call}" for one in dict.fromkeys((domain, None)) for call in calls)


def _check_names(parties: Parties) -> None:
    for kind, names in (("client", parties.clients), ("auditor", parties.auditors), ("operator", parties.operators)):
        for name in names:
            if not subjects.is_client(name):
                raise ValueError(f"{kind}: expected 1 to 64 of A-Z a-z 0-9 _ -, got {name[:64]!r}")
    for name in parties.authorizers:
        if not is_authorizer(name):
            raise ValueError(f"authorizer: expected 1 to 64 of a-z 0-9 _ - (mpcium's form), got {name[:64]!r}")


def _check_users(found: Layout) -> None:
    seen: set[str] = set()
    for _, user in found.users():
        # confusion: two parties under one name would be one login; on some disks names differ by more than case
        if user.name.lower() in seen:
            raise ValueError(f"expected a name of its own for every party, got {user.name!r} twice")
        seen.add(user.name.lower())


def _inboxes(user: str) -> tuple[str, ...]:
    return ("_INBOX.>", f"_INBOX_{user}.>", _OUR_INBOX)


# --- the daemon and the nodes


def _initiator(parties: Parties) -> Account:
    """The daemon's account. Its streams are the daemon's own: the login is bounded by the account, not in it."""
    operators = tuple(_operator(name, parties.domain) for name in parties.operators)
    return Account(name=INITIATOR, users=(User(name=DAEMON), *operators), jetstream=True)


def _nodes(parties: Parties) -> Account:
    """The nodes' account. They need all of it (wire traps 2 to 4): their protocol, JetStream and both inboxes."""
    at_nodes = User(
        name=DAEMON_AT_NODES,
        publish=_at_nodes(parties.client_id, parties.nodes_domain),
        subscribe=(_OUR_INBOX,),
    )
    return Account(name=NODES, users=(User(name=NODE), at_nodes), jetstream=True)


def _at_nodes(client_id: str | None, domain: str | None) -> tuple[str, ...]:
    """What the daemon may send in the nodes' account: requests, reads, and its own results' durables."""
    streams = (subjects.NODE_KEYGEN_STREAM, subjects.NODE_SIGNING_STREAM, subjects.NODE_RESULTS_STREAM)
    results = subjects.NODE_RESULTS_STREAM
    durables = [subjects.node_result_durable(operation, client_id) for operation in Operation]
    calls = (
        "INFO",
        *(f"STREAM.{verb}.{stream}" for verb in ("INFO", "CREATE", "MSG.GET") for stream in streams),
        *(
            f"CONSUMER.{call}.{results}.{durable}"
            for call in ("DURABLE.CREATE", "INFO", "DELETE", "MSG.NEXT")
            for durable in durables
        ),
    )
    return (
        "mpc.keygen_request.*",
        "mpc.signing_request.*",
        subjects.NODE_RESHARE_SUBJECT,
        *_calls(domain, calls),
        *(f"$JS.ACK.{results}.{durable}.>" for durable in durables),
    )


def _operator(name: str, domain: str | None) -> User:
    """A person with `freeze`, `stopline`, `dlq`, `top` and `check`: against mistakes, not against malice.

    It shares the daemon's account, so what it could do with a reply subject it can do; the name in the server's log
    is its own, and it can be taken away alone.
    """
    dead, read = subjects.DEAD_STREAM, (subjects.DEAD_STREAM, subjects.EVENTS_STREAM)
    calls = ("INFO", "STREAM.NAMES", "STREAM.INFO.*", "STREAM.MSG.GET.*", "CONSUMER.INFO.*.*")
    letters = (
        f"STREAM.MSG.DELETE.{dead}",
        *(f"CONSUMER.CREATE.{stream}" for stream in read),
        *(f"CONSUMER.{call}.{stream}.*" for call in ("MSG.NEXT", "DELETE") for stream in read),
        f"STREAM.PURGE.{subjects.LIMITS_STREAM}",  # the counter of a stop line that is in force no more
    )
    orders = (subjects.ORDERS, f"{subjects.LIMITS}.*", subjects.ROLLCALL)
    return User(
        name=operator_user(name),
        publish=("initiator.request.*.*", subjects.HEALTH, *orders, *_calls(domain, (*calls, *letters))),
        subscribe=("initiator.out.>", _OUR_INBOX),
    )


# --- the others: an account each


def _account(name: str, user: str, grants: Sequence[Grant]) -> Account:
    """An account whose one login may do what it was granted, so that a stolen one cannot tell its own programs lies."""
    publish = tuple(grant.local for grant in grants if grant.kind == "service")
    listen = tuple(grant.local for grant in grants if grant.kind == "stream")
    return Account(name=name, users=(User(name=user, publish=publish, subscribe=(*listen, *_inboxes(user))),))


def _client_grants(client: str, operations: Collection[Operation]) -> list[Grant]:
    """Requests with their acknowledgement, questions, cancellation; and the events of its own operations."""
    asked = ["*"] if set(operations) >= _ALL_OPERATIONS else sorted(operations)
    services = [f"initiator.request.{client}.{operation}" for operation in asked]
    services += [f"initiator.query.{client}.*", f"initiator.cancel.{client}"]
    taker = client_account(client)
    return [
        *(Grant(kind="service", subject=subject, giver=INITIATOR, taker=taker) for subject in services),
        Grant(kind="stream", subject=f"initiator.out.{client}.>", giver=INITIATOR, taker=taker),
    ]


def _authorizer_grants(name: str) -> list[Grant]:
    """It is asked by the daemon alone, and answers on a subject of its own."""
    asked, answered = subjects.authorize(name, "*", "*"), subjects.authorized(name, "*", "*")
    taker = authorizer_account(name)
    return [
        Grant(kind="stream", subject=asked, giver=INITIATOR, taker=taker),
        Grant(kind="service", subject=answered, giver=INITIATOR, taker=taker),
    ]


def _auditor_grants(name: str, api: str) -> list[Grant]:
    """Reads of the record, message by message: no consumer, so nothing that could ack, delete or move anything.

    And it says how far its own export has come.

    In the auditor's account they are a JetStream domain's: `$JS.API` there is its own, and says that there is none.
    """
    record = subjects.EVENTS_STREAM
    calls = {f"STREAM.INFO.{record}": False, f"STREAM.MSG.GET.{record}": False}
    calls |= {f"DIRECT.GET.{record}": True, f"DIRECT.GET.{record}.>": True}
    here = api_prefix(RECORD_DOMAIN)
    taker = f"AUDITOR_{name}"
    reads = [
        Grant(kind="service", subject=f"{api}.{call}", giver=INITIATOR, taker=taker, many=many,
              known_as=f"{here}.{call}")
        for call, many in calls.items()
    ]  # fmt: skip
    return [*reads, Grant(kind="service", subject=subjects.exported(name), giver=INITIATOR, taker=taker)]
