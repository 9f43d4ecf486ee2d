"""JetStream as mpcium's Go nodes use it: the exact forms of their streams and durables, and a prefetching consumer.

The API is spoken directly, since the forms must be those of Go's client to the last field, left-out ones included.

Source: mpcium's pkg/messaging (jetstream_broker.go, message_queue.go) and nats.go's jetstream package.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, NoRespondersError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError

_SECOND = 1_000_000_000
_WEEK_S = 7 * 24 * 3600
_API_TIMEOUT_S = 5.0
_PREFETCH = 500
_EXPIRES_S = 2.0
_STREAM_NOT_FOUND = 10059

KEYGEN_STREAM, KEYGEN_SUBJECT, KEYGEN_DURABLE = "mpc-keygen", "mpc.keygen_request.*", "mpc_keygen_consumer"
SIGNING_STREAM, SIGNING_SUBJECT, SIGNING_DURABLE = "mpc-signing", "mpc.signing_request.*", "mpc_signing_consumer"
RESULT_STREAM = "mpc"
RESULTS = ("mpc_keygen_result", "mpc_signing_result", "mpc_reshare_result")


class ApiError(Exception):
    """JetStream refuses a request.

    Args:
        error: the server's error object: code, err_code, description.
    """

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('description')} ({error.get('err_code')})")
        self.err_code = error.get("err_code")


async def request(nc: Client, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    """One JetStream API call.

    Raises:
        ApiError: the server refuses it.
    """
    reply = await nc.request(f"$JS.API.{subject}", json.dumps(body).encode(), timeout=_API_TIMEOUT_S)
    answer: dict[str, Any] = json.loads(reply.data)
    if "error" in answer:
        raise ApiError(answer["error"])
    return answer


def request_stream(name: str, subject: str) -> dict[str, Any]:
    """`mpc-keygen` and `mpc-signing`: what is left out becomes the server's default."""
    return _stream(name, [subject]) | {"max_age": _WEEK_S * _SECOND}


def result_stream(routing: str) -> dict[str, Any]:
    """`mpc`: v0.3.5 narrows its subjects to one token."""
    tail = ">" if routing == "scoped" else "*"
    return _stream(RESULT_STREAM, [f"mpc.{name}.{tail}" for name in RESULTS]) | {"retention": "workqueue"}


def _stream(name: str, subjects: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"Stream for {name}",
        "subjects": subjects,
        "retention": "limits",
        "max_consumers": 0,
        "max_msgs": 0,
        "max_bytes": 100_000_000,
        "discard": "old",
        "max_age": 0,
        "max_msgs_per_subject": 0,
        "storage": "file",
        "num_replicas": 0,
        "consumer_limits": {},
    }


async def create_or_update_stream(nc: Client, form: dict[str, Any]) -> None:
    """Go's CreateOrUpdateStream: update first, create what is missing."""
    try:
        await request(nc, f"STREAM.UPDATE.{form['name']}", form)
    except ApiError as error:
        if error.err_code != _STREAM_NOT_FOUND:
            raise
        await request(nc, f"STREAM.CREATE.{form['name']}", form)


async def create_or_update_request_durable(
    nc: Client, stream: str, durable: str, subject: str, max_ack_pending: int
) -> None:
    """The durable that all nodes share for one kind of request."""
    form = {
        "name": durable,
        "durable_name": durable,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": 30 * _SECOND,
        "max_deliver": 4,
        "backoff": [30 * _SECOND] * 3,
        "filter_subject": subject,
        "replay_policy": "instant",
        "max_ack_pending": max_ack_pending,
    }
    body = {"stream_name": stream, "config": form, "action": ""}
    await request(nc, f"CONSUMER.CREATE.{stream}.{durable}.{subject}", body)


async def create_or_update_result_durable(nc: Client, name: str, subject: str) -> None:
    """One of the three unscoped result durables, which every node makes at its start and none reads."""
    form = {
        "name": name,
        "durable_name": name,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": 30 * _SECOND,
        "max_deliver": 3,
        "filter_subjects": [subject],
        "replay_policy": "instant",
        "max_ack_pending": 1000,
    }
    body = {"stream_name": RESULT_STREAM, "config": form, "action": ""}
    await request(nc, f"CONSUMER.CREATE.{RESULT_STREAM}.{name}", body)


async def stored_message(nc: Client, stream: str, sequence: int) -> tuple[bytes, dict[str, str]]:
    """The payload and headers of a stream's message."""
    message = (await request(nc, f"STREAM.MSG.GET.{stream}", {"seq": sequence}))["message"]
    lines = base64.b64decode(message.get("hdrs", "")).decode().split("\r\n")[1:]
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    return base64.b64decode(message.get("data", "")), headers


async def publish_once(nc: Client, subject: str, data: bytes, message_id: str) -> bool:
    """Publish a result.

    Returns:
        Whether it was the first with this id.

    Raises:
        ApiError: no stream takes this subject, or the stream refuses it.
        NatsError: the server does not answer; published again under the same id, it is stored once.
    """
    try:
        reply = await nc.request(subject, data, timeout=_API_TIMEOUT_S, headers={"Nats-Msg-Id": message_id})
    except NoRespondersError as error:
        raise ApiError({"description": f"no response from stream: {error}"}) from error
    ack: dict[str, Any] = json.loads(reply.data)
    if "error" in ack:
        raise ApiError(ack["error"])
    return not ack.get("duplicate", False)


class Puller:
    """Prefetches a durable's messages and hands them on one after the other, as Go's `Consume` does.

    So a message that waits behind a slow one is redelivered once its ack wait is over, as on the real nodes.
    """

    def __init__(self, nc: Client, stream: str, durable: str, handle: Callable[[Msg], Awaitable[None]]) -> None:
        self._nc = nc
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._handle = handle
        self._asked = 0

    async def run(self) -> None:
        """Consume until cancelled."""
        inbox = self._nc.new_inbox()
        subscription = await self._nc.subscribe(inbox)
        try:
            while True:
                if self._asked <= _PREFETCH // 2:
                    await self._ask(inbox, _PREFETCH - self._asked)
                try:
                    message = await subscription.next_msg(timeout=_EXPIRES_S + 1)
                except NatsTimeoutError:
                    self._asked = 0  # the server went away: everything asked for is forgotten
                    continue
                await self._take(message)
        finally:
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()

    async def _ask(self, inbox: str, batch: int) -> None:
        body = json.dumps({"batch": batch, "expires": int(_EXPIRES_S * _SECOND)}).encode()
        try:
            if not self._nc.is_connected:  # nats-py would keep it, and all others until the server is back
                raise ConnectionClosedError
            await self._nc.publish(self._subject, body, reply=inbox)
        except NatsError:
            await asyncio.sleep(0.5)
            return
        self._asked += batch

    async def _take(self, message: Msg) -> None:
        if message.reply:  # a delivery is to be acked; a status is not, and a sender's own header makes none
            self._asked = max(0, self._asked - 1)
            with contextlib.suppress(NatsError):  # the connection went away: the message is delivered again
                await self._handle(message)
            return
        headers = message.headers or {}
        pending = headers.get("Nats-Pending-Messages")
        self._asked = max(0, self._asked - int(pending)) if pending else 0
        if headers.get("Status") in ("503", "409"):  # the stream or the durable is gone, or too much was asked for
            await asyncio.sleep(0.5)
