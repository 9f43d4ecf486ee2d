"""From JetStream to all nodes: each node takes requests off the shared durable, one at a time, and forwards them.

A request is acked only when some node has replied, so that a crash redelivers it. One that nobody answers (a sign
event that does not verify) blocks its forwarder for `forward_wait_s` and is then handed back at once; after the
fourth delivery the server gives up on it and says so.

Source: mpcium's pkg/eventconsumer (keygen_consumer.go, sign_consumer.go).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from initiator.dev.nodes import errorcodes, wire
from initiator.dev.nodes.answers import Answers
from initiator.dev.nodes.config import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What differs between keygen and sign requests.

    Attributes:
        target: the core subject on which all nodes listen.
        read: mpcium's reading of the message.
        not_ready: the code and words of a cluster that is not ready.
    """

    operation: str
    id_field: str
    target: str
    read: Callable[[bytes], Any]
    not_ready: tuple[str, str]


KEYGEN = Kind(
    operation="keygen",
    id_field="wallet_id",
    target="mpc:generate",
    read=wire.read_keygen,
    not_ready=(errorcodes.CLUSTER_NOT_READY, "not all peers are ready"),
)
SIGN = Kind(
    operation="sign",
    id_field="tx_id",
    target="mpc:sign",
    read=wire.read_sign,
    not_ready=(errorcodes.NOT_MAJORITY, "not enough peers to process signing request: ready=1, required=2"),
)


class Forwarder:
    """One node's consumer of one kind of request."""

    def __init__(self, nc: Client, kind: Kind, timing: Timing, answers: Answers, is_ready: Callable[[], bool]) -> None:
        self._nc = nc
        self._kind = kind
        self._timing = timing
        self._answers = answers
        self._is_ready = is_ready
        # the nodes take replies outside their connection's own inbox prefix
        self._inbox = f"_INBOX.{uuid.uuid4().hex}"
        self._waiting: dict[str, asyncio.Event] = {}

    async def start(self) -> None:
        """Listen for the nodes' replies."""
        await self._nc.subscribe(f"{self._inbox}.*", cb=self._on_reply)

    async def _on_reply(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject)
        if waiting is not None:
            waiting.set()

    async def handle(self, message: Msg) -> None:
        """Answer what needs no session, forward the rest, and ack once a node replied."""
        headers = dict(message.headers or {})
        try:
            self._kind.read(message.data)
        except wire.UnmarshalError as error:
            await self._refuse(message, headers, errorcodes.UNMARSHAL_FAILURE, str(error))
            return
        if not self._is_ready():
            await self._refuse(message, headers, *self._kind.not_ready)
        elif await self._forward(message, headers):
            await message.ack()
        else:
            await message.nak()

    async def _refuse(self, message: Msg, headers: dict[str, str], code: str, reason: str) -> None:
        ids = wire.read_ids(message.data)
        operation_id = ids[self._kind.id_field]
        if self._kind.operation == "keygen":
            ids = {"wallet_id": ids["wallet_id"]}
        await self._answers.unforwarded(self._kind.operation, operation_id, headers, code, reason, **ids)
        await message.ack()

    async def _forward(self, message: Msg, headers: dict[str, str]) -> bool:
        session = str(uuid.uuid4())
        forwarded = {"SessionID": session}
        if "ClientID" in headers:
            forwarded["ClientID"] = headers["ClientID"]
        reply = f"{self._inbox}.{session}"
        replied = self._waiting[reply] = asyncio.Event()
        try:
            await self._nc.publish(self._kind.target, message.data, reply=reply, headers=forwarded)
            return await self._await_reply(message, replied)
        finally:
            del self._waiting[reply]

    async def _await_reply(self, message: Msg, replied: asyncio.Event) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timing.forward_wait_s
        while (left_s := deadline - loop.time()) > 0:
            try:
                async with asyncio.timeout(min(self._timing.progress_s, left_s)):
                    await replied.wait()
            except TimeoutError:
                await message.in_progress()
            else:
                return True
        return False
