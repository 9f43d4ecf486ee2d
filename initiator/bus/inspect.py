"""Streams looked at without touching them, for `initiator check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from initiator.bus import queues, streams
from initiator.bus.jetstream import JetStream
from initiator.config.schema import Settings
from initiator.core import subjects
from initiator.errors import Code, HaltError


async def own_stream(js: JetStream, form: Mapping[str, Any]) -> str:
    """One of our streams against its configured form; a missing one is made by the daemon at its start.

    Raises:
        HaltError: `STREAM_FORM`, where it departs from the form.
    """
    found = await streams.info(js, form["name"])
    if found is None:
        return "not there yet; the daemon creates it at its start"
    different = streams.differences(form, found["config"])
    if different:
        raise HaltError(
            Code.STREAM_FORM,
            "; ".join(different),
            field=form["name"],
            hint="the daemon brings it into the configured form at its start, where the server allows",
        )
    return _describe(found)


async def past_clients(js: JetStream, settings: Settings) -> str:
    """Whether streams can be listed, as the daemon does at its start, and whose queues are there though they left."""
    present = await queues.clients(js)
    left = sorted(present - settings.clients.keys())
    held = {client: sum((await queues.waiting(js, client)).values()) for client in left}
    words = [f"{client} ({count} requests wait)" if count else client for client, count in held.items()]
    return f"of {len(present)} clients" + (f"; left: {', '.join(words)}" if words else "")


async def node_stream(js: JetStream, form: Mapping[str, Any], routing: str) -> str:
    """One of mpcium's streams against the form of its Go nodes.

    Raises:
        HaltError: `STREAM_FORM` or `ROUTING_MISMATCH`.
    """
    found = await streams.info(js, form["name"])
    if found is None:
        return "not there yet; a node or the daemon creates it in mpcium's form"
    streams.check_node_form(dict(form), found["config"], routing)
    notes = [f"results are {routing}"] if form["name"] == subjects.NODE_RESULTS_STREAM else []
    sizes = streams.differences(form, found["config"], ("max_bytes", "max_age"))
    if sizes:
        notes.append(f"{'; '.join(sizes)} (mpcium older than v0.3.5? it is not supported)")
    return "; ".join([_describe(found), *notes])


def _describe(found: Mapping[str, Any]) -> str:
    state, config = found["state"], found["config"]
    return f"{state['messages']} messages, {state['bytes']} bytes, replicas {config['num_replicas']}"
