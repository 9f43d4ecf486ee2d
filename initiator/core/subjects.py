"""Every subject this product speaks on, built and parsed in one place.

Sources: our own names from the design (`docs/architecture.md`), mpcium's from its message and event packages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from initiator.core.model import Operation

REQUESTS_STREAM_PREFIX = "INITIATOR_REQUESTS_"
EVENTS_STREAM = "INITIATOR_EVENTS"
DEAD_STREAM = "INITIATOR_DEAD"
TAKEOVERS_STREAM = "INITIATOR_TAKEOVERS"
LIMITS_STREAM = "INITIATOR_LIMITS"
ALLOWANCES_STREAM = "INITIATOR_ALLOWANCES"
SLOTS_STREAMS = {op: f"INITIATOR_SLOTS_{op.upper()}" for op in Operation}

LIMITS = "initiator.limit"
LIMIT = f"{LIMITS}.signatures"
ALLOWANCES = "initiator.allowance"

NODE_KEYGEN_STREAM = "mpc-keygen"
NODE_SIGNING_STREAM = "mpc-signing"
NODE_RESULTS_STREAM = "mpc"
NODE_RESHARE_SUBJECT = "mpc:reshare"
NODE_STREAMS = {Operation.KEYGEN: NODE_KEYGEN_STREAM, Operation.SIGN: NODE_SIGNING_STREAM}
_NODE_PREFIX = {Operation.KEYGEN: "mpc.keygen_request", Operation.SIGN: "mpc.signing_request"}
_RESULT_PREFIX = {
    Operation.KEYGEN: "mpc.mpc_keygen_result",
    Operation.SIGN: "mpc.mpc_signing_result",
    Operation.RESHARE: "mpc.mpc_reshare_result",
}

EVENTS = "initiator.event"
# The stream republishes subjects of exactly six tokens. A state whose bytes must not leave the daemon's account
# (`signed.sealed`) has a seventh and so never matches.
_SEALED = "sealed"
REPUBLISH_SOURCE = "initiator.*.*.*.*.*"
REPUBLISH_DESTINATION = "initiator.out.{{wildcard(2)}}.{{wildcard(3)}}.{{wildcard(4)}}.{{wildcard(5)}}"

# What operators have ordered, and the stop lines that were reached; in the record, never republished.
CONTROL = "initiator.control"
ORDERS = f"{CONTROL}.orders"

# Where each replica says how it is, and that it has seen the orders; in the daemon's own account.
HEALTH = "initiator.health"
ROLLCALL = "initiator.rollcall"
REPLICAS_STREAM = "INITIATOR_REPLICAS"

EXPORTED_STREAM = "INITIATOR_EXPORTED"

# In the place of a client in dead letters: `$` is in no client name.
NODE_RESULTS = "$results"

_CLIENT = re.compile(r"[A-Za-z0-9_-]{1,64}")  # the same names that the settings allow
_SEQUENCE = re.compile(r"[0-9]{1,20}")
_OPERATIONS = {operation.value: operation for operation in Operation}


@dataclass(frozen=True, slots=True)
class RequestSubject:
    """Who asks (NATS decides who may publish there) and for what."""

    client: str
    operation: Operation


@dataclass(frozen=True, slots=True)
class DeadSubject:
    """Whose dead letter (None: a result of the nodes), for which operation, and its sequence before it died."""

    client: str | None
    operation: Operation
    sequence: int


def is_client(text: str) -> bool:
    """Whether a text from outside can be a client's name at all; anything else must not reach a subject."""
    return _CLIENT.fullmatch(text) is not None


def requests_stream(client: str) -> str:
    """The stream that queues one client's requests."""
    return f"{REQUESTS_STREAM_PREFIX}{client}"


def request(client: str, operation: Operation) -> str:
    return f"initiator.request.{client}.{operation}"


def closed(client: str) -> str:
    """What the queue of a client that left listens to: nobody may publish there."""
    return f"initiator.closed.{client}"


def parse_request(subject: str) -> RequestSubject | None:
    """The client and operation of a request subject, or None where it is not one."""
    match subject.split("."):
        # injection: NATS carries `*`, `>` and odd characters in published subjects, too; none of them is a client
        case ["initiator", "request", client, operation] if operation in _OPERATIONS and is_client(client):
            return RequestSubject(client, _OPERATIONS[operation])
        case _:
            return None


def event(client: str, operation: Operation, operation_id: str, state: str) -> str:
    return f"{EVENTS}.{client}.{operation}.{operation_id}.{state}"


def sealed(state: str) -> str:
    """The last tokens of an event that is not republished."""
    return f"{state}.{_SEALED}"


def guard_filter(operation: Operation, operation_id: str) -> str:
    """The one filter of every guarded publish of an id: two filters would let two writers win on R3."""
    return f"{EVENTS}.*.{operation}.{operation_id}.>"


def reject(client: str, operation: Operation, request_seq: int) -> str:
    return f"initiator.reject.{client}.{operation}.{request_seq}.rejected"


def dead(client: str, operation: Operation, request_seq: int) -> str:
    return f"initiator.dead.{client}.{operation}.{request_seq}"


def dead_result(operation: Operation, result_seq: int) -> str:
    """Dead letter of a node's result."""
    return f"initiator.dead.{NODE_RESULTS}.{operation}.{result_seq}"


def parse_dead(subject: str) -> DeadSubject | None:
    """What a dead letter's subject says, or None where it is none."""
    match subject.split("."):
        case ["initiator", "dead", client, operation, sequence] if (
            operation in _OPERATIONS and _SEQUENCE.fullmatch(sequence) and (client == NODE_RESULTS or is_client(client))
        ):
            who = None if client == NODE_RESULTS else client
            return DeadSubject(who, _OPERATIONS[operation], int(sequence))
        case _:
            return None


def takeover(client: str, operation: Operation, request_seq: int) -> str:
    return f"initiator.takeover.{client}.{operation}.{request_seq}"


def allowance(limit: str, period_s: int, bucket: str) -> str:
    """The count of one limit for one client, wallet, or both; a limit with another period begins another count."""
    return f"{ALLOWANCES}.{limit}.{period_s}.{bucket}"


def replica(replica_id: str) -> str:
    """Where a replica that may sign says that it is there."""
    return f"initiator.replica.{replica_id}"


def line_counter(line_id: str) -> str:
    """How many calls of a stop line are spent."""
    return f"{LIMITS}.line-{line_id}"


def line_reached(line_id: str, limit: int) -> str:
    return f"{CONTROL}.reached.{line_id}.{limit}"


def exported(exporter: str) -> str:
    """Where an exporter of the audit log says how far it has come; wildcards allowed."""
    return f"initiator.exported.{exporter}"


def slot(operation: Operation, operation_id: str) -> str:
    return f"initiator.slot.{operation}.{operation_id}"


def authorize(authorizer: str, operation: str, operation_id: str) -> str:
    """Where one authorizer is asked; wildcards allowed."""
    return f"initiator.authorize.{authorizer}.{operation}.{operation_id}"


def authorized(authorizer: str, operation: str, operation_id: str) -> str:
    """Where one authorizer answers; wildcards allowed."""
    return f"initiator.authorized.{authorizer}.{operation}.{operation_id}"


def out(client: str, operation: Operation, operation_id: str, state: str) -> str:
    return f"initiator.out.{client}.{operation}.{operation_id}.{state}"


def durable(client: str, operation: Operation) -> str:
    """Name of the durable that serves one client's requests of one operation (client names hold no `.`)."""
    return f"{client}_{operation}"


def node_request(operation: Operation, operation_id: str, attempt: int) -> str:
    """Where the nodes take a signed event: one token, a function of operation, id and attempt.

    `~` is outside the id alphabet, so no two (id, attempt) pairs share a token.
    """
    if operation is Operation.RESHARE:
        return NODE_RESHARE_SUBJECT
    return f"{_NODE_PREFIX[operation]}.{operation_id}~{attempt}"


def node_result_filter(operation: Operation, client_id: str | None) -> str:
    """Filter for results: scoped to `client_id` (v0.3.6 and newer), or unscoped (None: v0.3.5)."""
    if client_id is None:
        return f"{_RESULT_PREFIX[operation]}.*"
    return f"{_RESULT_PREFIX[operation]}.{client_id}.*"


def node_result_durable(operation: Operation, client_id: str | None) -> str:
    """mpcium's own name for that durable; the nodes create the unscoped ones themselves."""
    name = {"keygen": "mpc_keygen_result", "sign": "mpc_signing_result", "reshare": "mpc_reshare_result"}[operation]
    return name if client_id is None else f"{name}_{client_id}"
