"""The forms of all streams and durables: how each must be.

Sources: mpcium's jetstream_broker.go and message_queue.go; the design for our own.
"""

from __future__ import annotations

from typing import Any

from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.core.model import Operation

NANOSECOND = 1_000_000_000
Form = dict[str, Any]


def nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECOND)


def own_form(name: str, stream_subjects: list[str], replicas: int, **extra: Any) -> Form:
    base: Form = {
        "name": name,
        "subjects": stream_subjects,
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": replicas,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_consumers": -1,
    }
    return base | extra


def events_form(settings: Settings) -> Form:
    """The record: refuses to forget (no deletes, no purges, finals as long as configured); republishes what it stored.

    What expires sooner or later than the stream's age says so itself: see `record.Retention`.
    """
    streams = settings.streams
    return own_form(
        subjects.EVENTS_STREAM,
        [f"{subjects.EVENTS}.>", "initiator.reject.>", f"{subjects.CONTROL}.>"],
        streams.replicas,
        description="the record of all operations; the last event of an id is its state",
        max_bytes=streams.max_events_bytes,
        max_age=nanoseconds(streams.final_max_age_s or streams.intermediate_max_age_s),
        allow_msg_ttl=True,
        allow_direct=True,
        deny_delete=True,
        deny_purge=True,
        republish={"src": subjects.REPUBLISH_SOURCE, "dest": subjects.REPUBLISH_DESTINATION},
    )


def dead_form(settings: Settings) -> Form:
    streams = settings.streams
    return own_form(
        subjects.DEAD_STREAM,
        ["initiator.dead.>"],
        streams.replicas,
        description="requests that were refused or gave out, results that nothing can use, with their headers",
        discard="old",
        max_bytes=streams.max_dead_bytes,
        max_age=nanoseconds(streams.dead_max_age_s),
    )


def takeovers_form(settings: Settings) -> Form:
    """Marks of takeovers, a few for each request whose holder died."""
    return own_form(
        subjects.TAKEOVERS_STREAM,
        ["initiator.takeover.*.*.*"],
        settings.streams.replicas,
        description="marks of takeovers, by request: after five deaths in one state it is given up",
        discard="old",
        max_bytes=16_777_216,
        max_age=nanoseconds(86_400),
    )


def _last_word_form(settings: Settings, name: str, subject: str, description: str, **extra: Any) -> Form:
    """A stream that keeps the last message of each subject."""
    newest = {"description": description, "discard": "old", "max_msgs_per_subject": 1}
    return own_form(name, [subject], settings.streams.replicas, **newest, **extra)


def limits_form(settings: Settings) -> Form:
    """Until when places under a shared limit are taken: one message a limit."""
    about = "limits over all replicas: until when places are taken"
    return _last_word_form(settings, subjects.LIMITS_STREAM, f"{subjects.LIMITS}.*", about)


def allowances_form(settings: Settings) -> Form:
    """Places taken of the policy's limits: one message for each limit and whoever it counts, gone after its period."""
    about = "places taken of the policy's limits, by period"
    return _last_word_form(settings, subjects.ALLOWANCES_STREAM, f"{subjects.ALLOWANCES}.>", about, allow_msg_ttl=True)


def replicas_form(settings: Settings) -> Form:
    """Who may be signing now: one message a replica, for as long as it renews it."""
    about = "replicas that may sign; one that does not say so again within half a minute is gone"
    return _last_word_form(settings, subjects.REPLICAS_STREAM, subjects.replica("*"), about, max_age=nanoseconds(30))


def exported_form(settings: Settings) -> Form:
    """How far each exporter of the audit log has come: one message an exporter."""
    about = "how far the exporters of the audit log have come"
    return _last_word_form(settings, subjects.EXPORTED_STREAM, subjects.exported("*"), about)


def slots_form(settings: Settings, operation: Operation) -> Form:
    """The cap in flight at the nodes: as many messages as slots, one subject per id."""
    return own_form(
        subjects.SLOTS_STREAMS[operation],
        [f"initiator.slot.{operation}.*"],
        settings.streams.replicas,
        description=f"slots of the {operation} lane: one message for each id in flight at the nodes",
        max_msgs=settings.mpcium.lane(operation).in_flight,
    )


def own_forms(settings: Settings) -> list[Form]:
    """Every stream of ours but the queues, in the order in which they are needed."""
    capped = [op for op in Operation if settings.mpcium.lane(op).in_flight]
    slots = [slots_form(settings, op) for op in capped]
    first = [events_form(settings), dead_form(settings), takeovers_form(settings), limits_form(settings)]
    exported = [exported_form(settings)] if settings.audit.exporter else []
    return [*first, allowances_form(settings), replicas_form(settings), *exported, *slots]


def node_request_form(operation: Operation) -> Form:
    """mpcium's request stream of keygen or sign, as its Go nodes create it."""
    name = subjects.NODE_STREAMS[operation]
    subject = {Operation.KEYGEN: "mpc.keygen_request.*", Operation.SIGN: "mpc.signing_request.*"}[operation]
    return {
        "name": name,
        "description": f"Stream for {name}",
        "subjects": [subject],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": nanoseconds(7 * 86_400),
        "max_bytes": 100_000_000,
        "max_msgs": -1,
        "max_consumers": -1,
        "num_replicas": 1,
        "duplicate_window": nanoseconds(120),
    }


def node_results_form(routing: str) -> Form:
    """mpcium's result stream: subjects end in `.>` where results are scoped, in `.*` on v0.3.5."""
    tail = ">" if routing == "scoped" else "*"
    return {
        "name": subjects.NODE_RESULTS_STREAM,
        "description": f"Stream for {subjects.NODE_RESULTS_STREAM}",
        "subjects": [f"mpc.mpc_{kind}_result.{tail}" for kind in ("keygen", "signing", "reshare")],
        "retention": "workqueue",
        "storage": "file",
        "discard": "old",
        "max_age": 0,
        "max_bytes": 100_000_000,
        "max_msgs": -1,
        "max_consumers": -1,
        "num_replicas": 1,
    }


def node_forms(routing: str) -> list[Form]:
    return [node_request_form(Operation.KEYGEN), node_request_form(Operation.SIGN), node_results_form(routing)]


def result_durable_form(operation: Operation, client_id: str | None) -> Form:
    """A result durable by mpcium's own name and in its form, but for the number of deliveries."""
    return {
        "durable_name": subjects.node_result_durable(operation, client_id),
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "filter_subjects": [subjects.node_result_filter(operation, client_id)],
        "ack_wait": nanoseconds(30),
        # mpcium's clients say 3: a result that three holders died with would be stranded (wire trap 14)
        "max_deliver": -1,
        "max_ack_pending": 1000,
    }
