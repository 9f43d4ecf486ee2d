"""The table of forbidden actions: each is tried against the real server, and written into docs/nats.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

INITIATOR, NODES = "initiator", "nodes"
EVENT = "initiator.event.treasury.sign.tx_9.completed"
OUT = "initiator.out.treasury.sign.tx_9.completed"
ASKED = "initiator.request.treasury.sign"
ACK = "$JS.ACK.INITIATOR_REQUESTS_treasury.treasury_sign.1.1.1.1700000000000000000.0"
RESULT = "mpc.mpc_signing_result.initiator.complete"
API = "$JS.API."
RECORD = "$JS.initiator.API."  # as an auditor knows it


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that nobody may do.

    Attributes:
        who: the login that tries it.
        what: in words, for the table.
        verb: `send` a message to `subject`; `call`: a request there, and any answer is an effect; `inject`: an allowed
            message to `subject`, with `reply` for what its answer would do; `hear`: listen to `subject` while `source`
            says something on `spoken`.
        watched: in whose accounts an effect would show.
        inside: only permissions stand against it, since it stays in an account that the login shares.
    """

    who: str
    what: str
    verb: Literal["send", "call", "inject", "hear"]
    subject: str
    reply: str = ""
    body: str = ""
    source: str = INITIATOR
    spoken: str = OUT
    watched: tuple[str, ...] = (INITIATOR, NODES)
    inside: bool = False


def _client(what: str, verb: Literal["send", "call", "inject", "hear"], subject: str, **more: str) -> Action:
    return Action(who="payments", what=what, verb=verb, subject=subject, **more)  # type: ignore[arg-type]


_OWN, _QUERY, _CANCEL = (
    "initiator.request.payments.keygen",
    "initiator.query.payments.status",
    "initiator.cancel.payments",
)

CLIENT = (
    _client("ask in another client's name", "send", ASKED),
    _client("query another client's operations", "send", "initiator.query.treasury.status"),
    _client("cancel another client's operation", "send", "initiator.cancel.treasury"),
    _client("have the acknowledgement of its request overwrite a record", "inject", _OWN, reply=EVENT),
    _client("have it sent to the nodes as a request", "inject", _OWN, reply="mpc.signing_request.x"),
    _client("have it sent to the nodes as a reshare", "inject", _OWN, reply="mpc:reshare"),
    _client("have it queued as another client's request", "inject", _OWN, reply=ASKED),
    _client("have it delivered to another client as an event", "inject", _OWN, reply=OUT),
    _client("have it delivered into another client's inbox", "inject", _OWN, reply="_INBOX_treasury.1"),
    _client("have it purge another client's queue", "inject", _OWN,
            reply=f"{API}STREAM.PURGE.INITIATOR_REQUESTS_treasury"),
    _client("have the answer to a query stand as an authorizer's", "inject", _QUERY,
            reply="initiator.authorized.risk.sign.tx_9"),
    _client("have the answer to a query forge a result of the nodes", "inject", _QUERY, reply=RESULT),
    _client("have the answer to a cancellation pull another's request", "inject", _CANCEL,
            reply=f"{API}CONSUMER.MSG.NEXT.INITIATOR_REQUESTS_treasury.treasury_sign"),
    _client("write a record", "send", EVENT),
    _client("tell another client's programs an event", "send", OUT),
    _client("listen to another client's events", "hear", "initiator.out.treasury.>"),
    _client("listen to the record", "hear", "initiator.event.>", spoken=EVENT),
    _client("listen to everything", "hear", ">"),
    _client("listen to another client's requests", "hear", "initiator.request.>", source="treasury", spoken=ASKED),
    _client("listen to others' inboxes", "hear", "_INBOX_treasury.>", spoken="_INBOX_treasury.1"),
    _client("listen to what the nodes are asked", "hear", "mpc.>", source=NODES, spoken="mpc.signing_request.y"),
    _client("read the record's state", "call", f"{API}STREAM.INFO.INITIATOR_EVENTS"),
    _client("read the record", "call", f"{API}STREAM.MSG.GET.INITIATOR_EVENTS", body='{"seq":1}'),
    _client("read the record directly", "call", f"{API}DIRECT.GET.INITIATOR_EVENTS", body='{"seq":1}'),
    _client("make a consumer on the record", "call", f"{API}CONSUMER.CREATE.INITIATOR_EVENTS",
            body='{"stream_name":"INITIATOR_EVENTS","config":{"ack_policy":"none"}}'),
    _client("take another client's requests", "call",
            f"{API}CONSUMER.MSG.NEXT.INITIATOR_REQUESTS_treasury.treasury_sign", body='{"batch":1,"no_wait":true}'),
    _client("delete a message", "call", f"{API}STREAM.MSG.DELETE.INITIATOR_DEAD", body='{"seq":1}'),
    _client("purge another client's queue", "call", f"{API}STREAM.PURGE.INITIATOR_REQUESTS_treasury"),
    _client("delete a stream", "call", f"{API}STREAM.DELETE.INITIATOR_LIMITS"),
    _client("make a stream of its own", "call", f"{API}STREAM.CREATE.MINE", body='{"name":"MINE","subjects":["x.>"]}'),
    _client("list the streams", "call", f"{API}STREAM.NAMES"),
    _client("acknowledge another's request", "send", ACK),
    _client("ask the nodes for a wallet", "send", "mpc.keygen_request.x"),
    _client("replay a signed event to the nodes", "send", "mpc.signing_request.x"),
    _client("replay a signed reshare to the nodes", "send", "mpc:reshare"),
    _client("speak to the nodes on their older subjects", "send", "mpc:sign"),
    _client("forge a result of the nodes", "send", RESULT),
    _client("ask an authorizer in the daemon's name", "send", "initiator.authorize.risk.sign.tx_9"),
    _client("answer for an authorizer", "send", "initiator.authorized.risk.sign.tx_9"),
    _client("listen to what authorizers are asked", "hear", "initiator.authorize.>",
            spoken="initiator.authorize.risk.sign.tx_9"),
    _client("ask the replicas how they are", "send", "initiator.health"),
    Action(who="payments", what="tell its own programs an event (with a stolen login)", verb="send",
           subject="initiator.out.payments.sign.tx_9.completed", watched=("payments",), inside=True),
    Action(who="treasury", what="ask for an operation that its settings do not name", verb="send",
           subject="initiator.request.treasury.keygen"),
)  # fmt: skip

AUTHORIZER = (
    Action(who="authorizer-risk", what="answer for another authorizer", verb="send",
           subject="initiator.authorized.legal.sign.tx_9"),
    Action(who="authorizer-risk", what="listen to what another authorizer is asked", verb="hear",
           subject="initiator.authorize.legal.>", spoken="initiator.authorize.legal.sign.tx_9"),
    Action(who="authorizer-risk", what="ask another authorizer", verb="send",
           subject="initiator.authorize.legal.sign.tx_9"),
    Action(who="authorizer-risk", what="have the receipt of its answer written into the record", verb="inject",
           subject="initiator.authorized.risk.sign.tx_9", reply=EVENT),
    Action(who="authorizer-risk", what="ask for a signature itself", verb="send", subject=ASKED),
    Action(who="authorizer-risk", what="publish what it countersigned", verb="send", subject="mpc.signing_request.x"),
    Action(who="authorizer-risk", what="read the record", verb="call",
           subject=f"{API}STREAM.MSG.GET.INITIATOR_EVENTS", body='{"seq":1}'),
)  # fmt: skip

AUDITOR = (
    Action(who="auditor-max", what="delete an event", verb="call",
           subject=f"{API}STREAM.MSG.DELETE.INITIATOR_EVENTS", body='{"seq":1}'),
    Action(who="auditor-max", what="purge the record", verb="call", subject=f"{API}STREAM.PURGE.INITIATOR_EVENTS"),
    Action(who="auditor-max", what="change the record's form", verb="call",
           subject=f"{API}STREAM.UPDATE.INITIATOR_EVENTS", body='{"name":"INITIATOR_EVENTS","subjects":["x"]}'),
    Action(who="auditor-max", what="write an event", verb="send", subject=EVENT),
    Action(who="auditor-max", what="have an event that it reads written into a queue", verb="inject",
           subject=f"{RECORD}STREAM.MSG.GET.INITIATOR_EVENTS", body='{"seq":1}', reply=ASKED),
    Action(who="auditor-max", what="make a consumer on the record", verb="call",
           subject=f"{API}CONSUMER.CREATE.INITIATOR_EVENTS",
           body='{"stream_name":"INITIATOR_EVENTS","config":{"ack_policy":"none"}}'),
    Action(who="auditor-max", what="read a client's requests", verb="call",
           subject=f"{API}STREAM.MSG.GET.INITIATOR_REQUESTS_treasury", body='{"seq":1}'),
    Action(who="auditor-max", what="read dead letters", verb="call",
           subject=f"{API}STREAM.INFO.INITIATOR_DEAD"),
    Action(who="auditor-max", what="read what the nodes were sent", verb="call",
           subject=f"{API}STREAM.MSG.GET.mpc-keygen", body='{"seq":1}'),
    Action(who="auditor-max", what="say how far another's export has come", verb="send",
           subject="initiator.exported.other"),
    Action(who="auditor-max", what="listen to clients' events", verb="hear", subject="initiator.out.>"),
)  # fmt: skip

AT_NODES = (
    Action(who="initiator-nodes", what="forge a result", verb="send", subject=RESULT, inside=True),
    Action(who="initiator-nodes", what="delete the nodes' consumer (seven days of requests would replay)", verb="call",
           subject=f"{API}CONSUMER.DELETE.mpc-signing.mpc_signing_consumer", inside=True),
    Action(who="initiator-nodes", what="make a consumer for somebody else's results", verb="call",
           subject=f"{API}CONSUMER.DURABLE.CREATE.mpc.mpc_keygen_result_other",
           body='{"stream_name":"mpc","config":{"durable_name":"mpc_keygen_result_other","ack_policy":"explicit",'
                '"filter_subject":"mpc.mpc_keygen_result.other.*"}}', inside=True),
    Action(who="initiator-nodes", what="change the nodes' stream", verb="call",
           subject=f"{API}STREAM.UPDATE.mpc-keygen",
           body='{"name":"mpc-keygen","subjects":["mpc.keygen_request.*"],"max_msgs":1}', inside=True),
    Action(who="initiator-nodes", what="purge the results", verb="call", subject=f"{API}STREAM.PURGE.mpc", inside=True),
    Action(who="initiator-nodes", what="acknowledge a request for the nodes", verb="send",
           subject="$JS.ACK.mpc-signing.mpc_signing_consumer.1.1.1.1700000000000000000.0", inside=True),
    Action(who="initiator-nodes", what="listen to the nodes' protocol", verb="hear", subject=">",
           source=NODES, spoken="sign:w1:tx_9", inside=True),
    Action(who="initiator-nodes", what="write a record", verb="send", subject=EVENT, watched=(INITIATOR,)),
)  # fmt: skip

OTHERS = (
    Action(who=NODES, what="write a record", verb="send", subject=EVENT, watched=(INITIATOR,)),
    Action(who=NODES, what="ask for a signature", verb="send", subject=ASKED, watched=(INITIATOR,)),
    Action(who=NODES, what="read the record", verb="call", subject=f"{API}STREAM.MSG.GET.INITIATOR_EVENTS",
           body='{"seq":1}', watched=(INITIATOR,)),
    Action(who=NODES, what="listen to clients", verb="hear", subject="initiator.>", watched=(INITIATOR,)),
    Action(who=INITIATOR, what="reach the nodes with its first login", verb="send", subject="mpc.signing_request.x",
           watched=(NODES,)),
    Action(who="operator-ann", what="write a record by mistake", verb="send", subject=EVENT, watched=(INITIATOR,),
           inside=True),
    Action(who="operator-ann", what="purge the record by mistake", verb="call",
           subject=f"{API}STREAM.PURGE.INITIATOR_EVENTS", inside=True),
)  # fmt: skip

ACTIONS = (*CLIENT, *AUTHORIZER, *AUDITOR, *AT_NODES, *OTHERS)

SYSTEM = {
    "payments": "ask the servers who is connected",
    "auditor-max": "ask the servers who is connected",
    "initiator": "ask the servers who is connected",
    "nodes": "ask the servers who is connected",
}

LOGINS = {
    "nobody": "come in without a login",
    "stranger": "come in with a key or password that nobody gave out",
    "impostor": "come in as another client, with its own key",
    "foreign": "come in with a certificate of another authority, or with credentials of another operator's account",
    "bare": "come in over mutual TLS without a certificate",
    "expired": "come in with credentials that have ended (JWT)",
    "revoked": "stay or come back with a login that was revoked (JWT) or taken out (NKey)",
}


def table() -> str:
    """The table of the documentation."""
    rows = [(action.who, action.what, _subject(action)) for action in ACTIONS]
    rows += [(who, what, "`$SYS.REQ.SERVER.PING`") for who, what in SYSTEM.items()]
    rows += [("anybody", what, "login") for what in LOGINS.values()]
    lines = ["| no. | login | tries to | by |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {n} | {' | '.join(row)} |" for n, row in enumerate(rows, 1))])


def _subject(action: Action) -> str:
    by = f"`{action.subject}`"
    if action.verb == "inject":
        by += f", reply `{action.reply}`"
    if action.verb == "hear":
        by = f"subscription to {by}"
    return by + (" (permission alone)" if action.inside else "")
