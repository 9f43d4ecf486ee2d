"""The queues of requests: a work-queue stream for each client, so that none can fill another's.

Invariants:
- a subject per client and operation, so that a stranger has no responders; a full queue refuses, so that its sender
  gets an error at once;
- no queue stands in the way of another's: each is made, changed and looked at by itself;
- a queue is never deleted, and its bound never lowered below what it holds: nothing acknowledged is lost.
  When its client has left and nothing waits in it, it listens to nothing any more;
- a queue that is made anew beside an older record goes on with sequences that were never used: what is recorded
  under a request's sequence (its refusal, say) stays that request's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from initiator.bus.errors import NotFoundError
from initiator.bus.forms import NANOSECOND, Form, nanoseconds, own_form
from initiator.bus.jetstream import JetStream, Stored
from initiator.bus.streams import info, names, update
from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.errors import Code, HaltError, InitiatorError
from initiator.log import get_logger

log = get_logger()

# Of a queue that takes nothing: the server reserves what a stream may hold.
_CLOSED_BYTES = 1024
_BOUND = "max_msgs_per_subject"
_STRAGGLERS_S = 0.5


def form(settings: Settings, client: str, kept: frozenset[str] = frozenset()) -> Form:
    """A client's queue.

    Args:
        kept: subjects that hold requests, although the client may not ask for that any more.
    """
    streams = settings.streams
    configured = settings.clients.get(client)
    wanted = {subjects.request(client, operation) for operation in configured.operations} if configured else set()
    taken = sorted(wanted | kept)
    return own_form(
        subjects.requests_stream(client),
        taken or [subjects.closed(client)],
        streams.replicas,
        description=f"requests of {client}; one subject per operation",
        retention="workqueue",
        max_bytes=streams.max_queued_bytes_per_client if taken else _CLOSED_BYTES,
        max_msg_size=streams.max_request_bytes,
        max_msgs_per_subject=streams.max_queued_per_client,
        discard_new_per_subject=True,
        # requests are joined by what they ask, not by a sender's Nats-Msg-Id
        duplicate_window=NANOSECOND // 10,
    )


async def ensure(js: JetStream, settings: Settings) -> dict[str, InitiatorError]:
    """Bring the queues of all clients, present and past, into the form that fits these settings.

    Returns:
        What went wrong, by client: one client's queue stands in nobody else's way.

    Raises:
        RetryError: NATS is away.
    """
    present = await clients(js)
    # leavers first: they make room for those who come
    order = sorted(present - settings.clients.keys()) + sorted(settings.clients)
    failed: dict[str, InitiatorError] = {}
    for client in order:
        try:
            await ensure_one(js, settings, client, lower=True)
        except InitiatorError as error:
            if not js.connection.connected:
                raise
            log.warning("queues.failed", client=client, code=error.code.value, reason=error.reason, hint=error.hint)
            failed[client] = error
    return failed


async def ensure_one(js: JetStream, settings: Settings, client: str, *, lower: bool = False) -> bool:
    """One client's queue; returns whether it is there.

    Args:
        lower: make its bound smaller where the settings say so and it holds no more; its door is closed for a moment.

    Raises:
        HaltError: it exists in a form that cannot be changed in place, or cannot be made.
        RetryError: there is no room for it, or NATS is away.
    """
    name = subjects.requests_stream(client)
    existing = await info(js, name)
    if existing is not None:
        if not _is_queue_of(client, existing["config"]):
            return _leave_alone(settings, client)
        await _update(js, settings, client, existing["config"], lower=lower)
    elif client in settings.clients:
        await _create(js, form(settings, client) | await _first_sequence(js))
    return existing is not None or client in settings.clients


def _is_queue_of(client: str, config: Mapping[str, Any]) -> bool:
    """Whether a stream by a queue's name is one: its subjects say so."""
    own = {subjects.request(client, operation) for operation in Operation} | {subjects.closed(client)}
    taken = set(config.get("subjects") or ())  # none: a mirror
    return bool(taken) and taken <= own


def _leave_alone(settings: Settings, client: str) -> bool:
    """A stream of somebody else's by a queue's name. Raises HaltError where a client needs that name."""
    name = subjects.requests_stream(client)
    if client not in settings.clients:
        log.debug("queues.foreign_stream", stream=name)
        return False
    hint = "move its data to a stream of another name: this one is the client's queue"
    raise HaltError(Code.STREAM_FORM, f"{name} takes subjects that are no requests of {client}", field=name, hint=hint)


async def _create(js: JetStream, new: Form) -> None:
    try:
        await js.api(f"STREAM.CREATE.{new['name']}", new)
    except HaltError as error:
        if await info(js, new["name"]) is not None:
            return  # another replica made it just now, with a first sequence of its own
        hint = (
            f"does another stream take its subjects, such as {subjects.REQUESTS_STREAM_PREFIX[:-1]}, the one queue of "
            "earlier versions? let that run empty, and delete it"
        )
        reason = f"{new['name']} cannot be made: {error.reason}"
        raise HaltError(error.code, reason, field=new["name"], hint=hint) from error


async def _first_sequence(js: JetStream) -> Form:
    """Nothing beside an empty record; else the microseconds of now: no queue has had a million requests a second."""
    record = await info(js, subjects.EVENTS_STREAM)
    return {"first_seq": time.time_ns() // 1000} if record is None or record["state"]["last_seq"] else {}


async def _update(js: JetStream, settings: Settings, client: str, actual: Mapping[str, Any], *, lower: bool) -> None:
    """Subjects that left the configuration go, unless they hold requests: those go on being served."""
    wanted = form(settings, client, await _with_requests(js, client))
    if wanted[_BOUND] < actual[_BOUND]:
        # the server would make room for a smaller bound by dropping the oldest
        if lower and await _most(js, client) <= wanted[_BOUND]:
            actual = await _closed_for_a_moment(js, client, actual)
        if not lower or await _most(js, client) > wanted[_BOUND]:
            if lower:
                log.warning("queues.bound_kept", client=client, asked=wanted[_BOUND], kept=actual[_BOUND])
            wanted[_BOUND] = actual[_BOUND]
    await update(js, wanted, actual)
    # a request that came between the look and the update is in the stream, and nothing would ask for it any more
    late = await _with_requests(js, client)
    if not late <= set(wanted["subjects"]):
        again = form(settings, client, late) | {_BOUND: wanted[_BOUND]}
        await update(js, again, dict(actual) | wanted)


async def _closed_for_a_moment(js: JetStream, client: str, actual: Mapping[str, Any]) -> Form:
    """The queue's form with its door closed, once what was under way to it has arrived."""
    closed = dict(actual) | {"subjects": [subjects.closed(client)]}
    await update(js, closed, actual)
    await asyncio.sleep(_STRAGGLERS_S)
    return closed


async def _most(js: JetStream, client: str) -> int:
    """How many requests of one kind the queue holds at most."""
    return max((await waiting(js, client)).values(), default=0)


async def _with_requests(js: JetStream, client: str) -> frozenset[str]:
    """All subjects that hold requests, also those that the queue takes no more: a crash may have left some behind."""
    return frozenset(await waiting(js, client))


async def clients(js: JetStream) -> set[str]:
    """Every client that has a queue, also one that left."""
    prefix = subjects.REQUESTS_STREAM_PREFIX
    found = {name.removeprefix(prefix) for name in await names(js) if name.startswith(prefix)}
    return {client for client in found if subjects.is_client(client)}


async def waiting(js: JetStream, client: str) -> dict[str, int]:
    """How many unfinished requests a client's queue holds, by subject; empty where there is no such queue."""
    found = await info(js, subjects.requests_stream(client), subjects_filter=">")
    return dict(found["state"].get("subjects") or {}) if found else {}


async def count(js: JetStream) -> tuple[dict[Operation, int], dict[str, int]]:
    """How many unfinished requests all queues hold: by operation, and by client."""
    by_operation = dict.fromkeys(Operation, 0)
    by_client: dict[str, int] = {}
    for client in await clients(js):
        for subject, number in (await waiting(js, client)).items():
            if parsed := subjects.parse_request(subject):
                by_operation[parsed.operation] += number
                by_client[client] = by_client.get(client, 0) + number
    return by_operation, by_client


async def oldest(js: JetStream, client: str) -> dict[subjects.RequestSubject, Stored]:
    """The oldest unfinished request of each kind."""
    found: dict[subjects.RequestSubject, Stored] = {}
    for subject in await waiting(js, client):
        parsed, stored = subjects.parse_request(subject), await js.next(subjects.requests_stream(client), subject, 1)
        if parsed and stored:
            found[parsed] = stored
    return found


async def taken_subjects(js: JetStream, client: str) -> list[subjects.RequestSubject]:
    """What a client's queue takes, or still holds."""
    found = await info(js, subjects.requests_stream(client))
    parsed = [subjects.parse_request(subject) for subject in (found["config"]["subjects"] if found else [])]
    return [subject for subject in parsed if subject is not None]


async def delivered(js: JetStream, client: str, operation: Operation) -> int:
    """The latest of a client's requests that any replica has been given, by its sequence; 0: none yet."""
    name = f"CONSUMER.INFO.{subjects.requests_stream(client)}.{subjects.durable(client, operation)}"
    try:
        return int((await js.api(name))["delivered"]["stream_seq"])
    except NotFoundError:
        return 0


def durable_form(settings: Settings, client: str, operation: Operation) -> Form:
    """The durable that all replicas share for one client and operation."""
    return {
        "durable_name": subjects.durable(client, operation),
        "description": f"{operation} requests of {client}",
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "filter_subject": subjects.request(client, operation),
        "ack_wait": nanoseconds(settings.worker.ack_wait_s),
        "max_deliver": -1,  # a request that reached a maximum would never be delivered again, only advised of
        "max_ack_pending": settings.worker.max_ack_pending,
        "max_waiting": 512,
    }
