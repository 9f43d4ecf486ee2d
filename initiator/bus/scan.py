"""Many messages of a stream, read fast: through a consumer of the moment that acknowledges nothing.

For people's tools. What decides something is read one by one from the leader instead (`JetStream.next`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from initiator.bus.connection import Message
from initiator.bus.errors import unknown_outcome
from initiator.bus.forms import NANOSECOND
from initiator.bus.jetstream import JetStream, Stored
from initiator.bus.pull import parse_delivery
from initiator.errors import InitiatorError

BATCH = 256
SILENCE_S = 5.0
_LINGER_S = 30  # how long the server keeps the consumer of a reader that vanished


async def headers(js: JetStream, stream: str, filter_subject: str, since: float | None) -> AsyncIterator[Stored]:
    """The messages under a filter from a time on (Unix seconds, by the server's clock), oldest first, without payloads.

    What is stored after the first one was asked for is not in it.

    Raises:
        NotFoundError: no such stream.
        RetryError: the server fell silent.
    """
    made = await js.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": _form(filter_subject, since)})
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    inbox = js.connection.new_inbox()
    subscription = await js.connection.subscribe(inbox, arrived.put)
    try:
        left = int(made["num_pending"])
        while left > 0:
            batch = min(BATCH, left)
            await js.connection.publish(
                js.api_subject(f"CONSUMER.MSG.NEXT.{stream}.{made['name']}"),
                json.dumps({"batch": batch, "no_wait": True}).encode(),
                reply=inbox,
            )
            for _ in range(batch):
                message = await _next(arrived, stream)
                if not message.reply.startswith("$JS.ACK."):
                    return  # nothing more: the rest was deleted meanwhile
                yield _stored(message)
            left -= batch
    finally:
        with contextlib.suppress(InitiatorError):
            await subscription.unsubscribe()
            await js.api(f"CONSUMER.DELETE.{stream}.{made['name']}")


def _form(filter_subject: str, since: float | None) -> dict[str, Any]:
    form: dict[str, Any] = {
        "filter_subject": filter_subject,
        "ack_policy": "none",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "headers_only": True,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": _LINGER_S * NANOSECOND,
    }
    if since is not None:
        start = datetime.fromtimestamp(max(0.0, since), UTC).isoformat()
        form |= {"deliver_policy": "by_start_time", "opt_start_time": start}
    return form


async def _next(arrived: asyncio.Queue[Message], stream: str) -> Message:
    try:
        async with asyncio.timeout(SILENCE_S):
            return await arrived.get()
    except TimeoutError as error:
        raise unknown_outcome(f"{stream}: the server fell silent while it was read") from error


def _stored(message: Message) -> Stored:
    delivery = parse_delivery(message)
    return Stored(message.subject, delivery.sequence, b"", message.headers, delivery.stored_at)
