"""How streams and durables are made in their form, compared with it, and grown to it.

Invariants:
- our own streams are created and grown to the configured form; what cannot be changed in place halts (`STREAM_FORM`);
- mpcium's streams are never updated: a missing one is created in exactly the form of mpcium's Go nodes (which
  create-or-update them at every start), a foreign one is reported;
- the nodes' request durables are never touched: recreating them replays up to seven days of requests.

Source: mpcium's jetstream_broker.go and message_queue.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from initiator.bus.errors import NotFoundError
from initiator.bus.forms import Form, events_form, node_forms, node_results_form, own_forms
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.errors import Code, HaltError
from initiator.log import get_logger

log = get_logger()

RESTORE = (
    "restore it from a backup; only if nothing that was ever signed matters any more, stop all daemons and delete all "
    "INITIATOR_ streams: then a new record is begun"
)

# What the server fills in and what other forms may rightly differ in is not compared.
_COMPARED_NODE_FIELDS = ("subjects", "retention", "storage", "discard", "max_age", "max_bytes")


async def info(js: JetStream, name: str, *, subjects_filter: str = "") -> dict[str, Any] | None:
    """`STREAM.INFO`, or None where there is no such stream; with counts by subject for those that match."""
    try:
        return await js.api(f"STREAM.INFO.{name}", {"subjects_filter": subjects_filter, "deleted_details": False})
    except NotFoundError:
        return None


def differences(form: Mapping[str, Any], actual: Mapping[str, Any], fields: Iterable[str] | None = None) -> list[str]:
    """Where a stream's config departs from a form, one `field: expected …, got …` each."""
    found = []
    for field in fields or form.keys():
        want, got = form.get(field), actual.get(field)
        if field == "subjects":
            want, got = sorted(want or []), sorted(got or [])
        if (want or 0) != (got or 0):
            found.append(f"{field}: expected {want!r}, got {got!r}")
    return found


async def make(js: JetStream, form: Form) -> bool:
    """Make a stream in this form if it is missing; returns whether it was."""
    if await info(js, form["name"]) is not None:
        return False
    await js.api(f"STREAM.CREATE.{form['name']}", form)
    return True


async def ensure_own(js: JetStream, settings: Settings) -> None:
    """Create our streams but the queues, or grow them to the configured form.

    Raises:
        HaltError: `STREAM_FORM`: a stream exists in a form that cannot be changed in place; `RECORD_LOST`: the record
            is missing although it was there once.
    """
    record, *others = own_forms(settings)
    if await info(js, record["name"]) is None:
        await _check_never_made(js, {form["name"] for form in others})
    for form in (record, *others):
        existing = await info(js, form["name"])
        if existing is None:
            await js.api(f"STREAM.CREATE.{form['name']}", form)
        else:
            await update(js, form, existing["config"])


async def take_orders(js: JetStream, settings: Settings) -> None:
    """Let the record take operators' orders, where an older version has made it or brought it back into its form.

    Raises:
        HaltError: `RECORD_LOST`: there is no record.
    """
    form, existing = events_form(settings), await info(js, subjects.EVENTS_STREAM)
    if existing is None:
        reason = f"there is no {subjects.EVENTS_STREAM}: nothing can be signed, and no order be kept"
        raise HaltError(
            Code.RECORD_LOST, reason, hint="a daemon makes it at its first start; if there was one: restore"
        )
    if missing := set(form["subjects"]) - set(existing["config"]["subjects"]):
        log.warning("streams.orders_taken", subjects=sorted(missing))
        await update(js, {"name": form["name"], "subjects": form["subjects"]}, existing["config"])


async def _check_never_made(js: JetStream, others: set[str]) -> None:
    """A record that was there once is not made anew: an empty one would let every id be signed again."""
    # the limit's stream is made by whoever asks KMS first, perhaps before the record; all others come after it
    later = others - {subjects.LIMITS_STREAM}
    present = [name for name in await names(js) if name in later or await _is_queue(js, name)]
    if present and await info(js, subjects.EVENTS_STREAM) is None:  # another replica may just have made both
        reason = f"{subjects.EVENTS_STREAM} is missing, although {present[0]}, which is made after it, is there"
        raise HaltError(Code.RECORD_LOST, reason, field=subjects.EVENTS_STREAM, hint=RESTORE)


async def _is_queue(js: JetStream, name: str) -> bool:
    found = await info(js, name) if name.startswith(subjects.REQUESTS_STREAM_PREFIX) else None
    taken = (found["config"].get("subjects") or [""]) if found else [""]
    return all(subject.startswith(("initiator.request.", "initiator.closed.")) for subject in taken)


async def names(js: JetStream) -> list[str]:
    """The names of all streams."""
    found: list[str] = []
    offset, total = 0, 1
    while offset < total:
        page = await js.api("STREAM.NAMES", {"offset": offset})
        some = page.get("streams") or []
        found += some
        offset, total = offset + max(1, len(some)), page.get("total", 0)
    return found


async def update(js: JetStream, form: Form, actual: Mapping[str, Any]) -> None:
    """Bring a stream of ours into its form; raises as `ensure_own`."""
    different = differences(form, actual)
    if not different:
        return
    try:
        await js.api(f"STREAM.UPDATE.{form['name']}", dict(actual) | form)
    except HaltError as error:
        raise HaltError(
            Code.STREAM_FORM,
            f"{form['name']} cannot be brought into the configured form: {'; '.join(different)} ({error.reason})",
            field="streams",
            hint="undo the setting, or move the data to a stream of the new form with the nats tools",
        ) from error


async def ensure_nodes(js: JetStream, routing: str) -> None:
    """Create mpcium's streams where they are missing; compare where they are there.

    Raises:
        HaltError: `STREAM_FORM` for a form that Go nodes would refuse, `ROUTING_MISMATCH` where the result
            stream's subjects and the configured routing disagree.
    """
    for form in node_forms(routing):
        existing = await info(js, form["name"])
        if existing is None:
            await js.api(f"STREAM.CREATE.{form['name']}", form)
        else:
            check_node_form(form, existing["config"], routing)


def check_node_form(form: Form, actual: Mapping[str, Any], routing: str) -> None:
    """Raises what `ensure_nodes` raises, for one stream."""
    different = differences(form, actual, _COMPARED_NODE_FIELDS)
    if not different:
        return
    if form["name"] == subjects.NODE_RESULTS_STREAM and set(actual["subjects"]) == set(
        node_results_form("unscoped" if routing == "scoped" else "scoped")["subjects"]
    ):
        raise HaltError(
            Code.ROUTING_MISMATCH,
            f"configured routing is {routing!r}, but the nodes' result stream has {actual['subjects']}",
            field="mpcium.routing",
            hint="`scoped` is for mpcium after v0.3.5 (subjects end in .>), `unscoped` for v0.3.5 (.*)",
        )
    # Sizes are what versions differ in (v0.3.4 and older: 10,485,760 bytes); they do no harm to us.
    fatal = [text for text in different if not text.startswith(("max_bytes", "max_age"))]
    if fatal:
        raise HaltError(
            Code.STREAM_FORM,
            f"{form['name']} has a foreign form: {'; '.join(fatal)}",
            field=form["name"],
            hint="mpcium's Go nodes cannot start on it either (error 10052); its TypeScript client makes such "
            "streams: let a Go node create them first",
        )


async def ensure_durable(js: JetStream, stream: str, form: Form) -> None:
    """Create a durable, or bring it into this form.

    Raises:
        HaltError: another consumer's filter overlaps (a work queue allows only one), or the form is refused.
    """
    name = form["durable_name"]
    await js.api(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": form})


async def keep_durable(js: JetStream, stream: str, form: Form, before: float) -> bool:
    """Bring a durable back into this form where a node's start changed it, and deliver again what it gave up on.

    A message that was delivered as often as the durable allows is delivered no more, also after the limit is raised;
    a durable made anew delivers whatever the work queue still holds.

    Args:
        before: only a message stored before this moment (Unix seconds) can have been given up on.

    Returns:
        Whether there was such a message.

    Raises:
        NotFoundError: the durable is gone; whoever pulls from it creates it.
    """
    name = form["durable_name"]
    oldest = await js.next(stream, form["filter_subjects"][0], 1)
    found = await js.api(f"CONSUMER.INFO.{stream}.{name}")
    if oldest is not None and oldest.time < before and not found["num_pending"] and not found["num_ack_pending"]:
        log.warning("streams.stranded_results", durable=name, sequence=oldest.sequence)
        await js.api(f"CONSUMER.DELETE.{stream}.{name}")
        await ensure_durable(js, stream, form)
        return True
    if found["config"].get("max_deliver", -1) != form["max_deliver"]:
        log.info("streams.durable_restored", durable=name, max_deliver=found["config"].get("max_deliver"))
        await ensure_durable(js, stream, form)
    return False
