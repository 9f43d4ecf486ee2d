"""Standing pulls: messages of a durable arrive as soon as they exist, with no polling and no lost wake-ups.

A pull request asks for a batch and stays open at the server; messages come to one inbox. nats-py's `fetch` would
hold a partial batch until its timeout and not notice a restarted server or a deleted consumer. Here idle
heartbeats show that the request still stands; without them, or after any status that ends it, a new one is sent.

Invariant: never more than `want()` messages asked for and not yet received, so that the owner bounds what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nats.aio.subscription import Subscription

from initiator.bus.connection import Message
from initiator.bus.forms import nanoseconds
from initiator.bus.jetstream import JetStream
from initiator.errors import InitiatorError
from initiator.log import get_logger

log = get_logger()

EXPIRES_S = 30.0
IDLE_HEARTBEAT_S = 5.0
# 400 bad request and the 409s that no new request mends are left to the backoff and the durable's re-creation.
_CONSUMER_GONE = ("consumer deleted", "consumer not found", "no responders")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivered message of a work queue, with the means to settle it.

    Attributes:
        sequence: its sequence in the stream: the same at every redelivery.
        delivered: how often it was delivered, 1 the first time.
        stored_at: when the stream stored it, Unix seconds by the server's clock.
    """

    message: Message
    sequence: int
    delivered: int
    stored_at: float


def parse_delivery(message: Message) -> Delivery:
    """Read the ack subject: `$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<ns>.<pending>`, or its v2 form
    with domain and account hash after `ACK`."""
    tokens = message.reply.split(".")
    offset = 2 if len(tokens) == 9 else 4
    _stream, _consumer, delivered, sequence, _cseq, timestamp_ns = tokens[offset : offset + 6]
    return Delivery(message, int(sequence), int(delivered), int(timestamp_ns) / 1e9)


class Pull:
    """Keeps one standing pull request on a durable.

    Args:
        js: where the durable lives.
        stream: its stream.
        durable: its name.
        want: how many more messages the owner can take now.
        on_delivery: called for each message, in order; must not block.
        ensure: creates the durable, or brings it into its form; called first and whenever it is found missing.
    """

    def __init__(
        self,
        js: JetStream,
        stream: str,
        durable: str,
        want: Callable[[], int],
        on_delivery: Callable[[Delivery], None],
        ensure: Callable[[], Awaitable[None]],
    ) -> None:
        self._js = js
        self._stream = stream
        self._durable = durable
        self._want = want
        self._on_delivery = on_delivery
        self._ensure = ensure
        self._round = 0
        self._asked = 0
        self._heard = asyncio.Event()
        self._wake = asyncio.Event()
        self._gone = False
        self._last_heard = 0.0

    def wake(self) -> None:
        """The owner can take more now."""
        self._wake.set()

    @property
    def outstanding(self) -> int:
        """Messages asked for and not yet received."""
        return self._asked

    async def run(self) -> None:
        """Pull until cancelled; survives lost connections, leader changes and deleted durables."""
        inbox = self._js.connection.new_inbox()
        subscription = await self._listen(inbox)
        forget = self._js.connection.on_return(self._start_over)
        try:
            await self._keep_asking(inbox)
        finally:
            forget()
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _listen(self, inbox: str) -> Subscription:
        while True:
            await self._js.connection.until_connected()
            try:
                return await self._js.connection.subscribe(f"{inbox}.*", self._on_message)
            except InitiatorError as error:
                log.warning("pull.failed", durable=self._durable, code=error.code, reason=error.reason)
                await asyncio.sleep(0.5)

    async def _keep_asking(self, inbox: str) -> None:
        backoff_s = 0.1
        must_ensure = True
        while True:
            await self._js.connection.until_connected()
            try:
                if must_ensure or self._gone:
                    await self._ensure()
                    must_ensure = self._gone = False
                await self._ask_once(inbox)
                backoff_s = 0.1
            except Exception as error:
                self._note(error)
                must_ensure = True
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, 2.0)

    def _note(self, error: Exception) -> None:
        if isinstance(error, InitiatorError):
            log.warning("pull.failed", durable=self._durable, code=error.code, reason=error.reason)
        else:  # one that nobody foresaw must not end the pull: whose messages it asks for would wait for ever
            log.error("pull.failed", durable=self._durable, error_type=type(error).__name__, exc_info=error)

    async def _ask_once(self, inbox: str) -> None:
        """One pull request from its asking to its end: filled, expired, refused or silent."""
        self._wake.clear()
        batch = self._want()
        if batch <= 0:
            await self._wake.wait()
            return
        self._round += 1
        self._asked = batch
        self._last_heard = asyncio.get_running_loop().time()
        self._heard.clear()
        body = {"batch": batch, "expires": nanoseconds(EXPIRES_S), "idle_heartbeat": nanoseconds(IDLE_HEARTBEAT_S)}
        subject = self._js.api_subject(f"CONSUMER.MSG.NEXT.{self._stream}.{self._durable}")
        await self._js.connection.publish(subject, json.dumps(body).encode(), reply=f"{inbox}.{self._round}")
        await self._until_over()

    async def _until_over(self) -> None:
        loop = asyncio.get_running_loop()
        while self._asked > 0:
            self._heard.clear()
            remaining = self._last_heard + 2.5 * IDLE_HEARTBEAT_S - loop.time()
            if remaining <= 0:
                log.debug("pull.silent", durable=self._durable)
                break
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._heard.wait(), remaining)
        self._asked = 0

    def _start_over(self) -> None:
        """A reconnect: the server may have forgotten the request, or even the durable."""
        self._asked = 0
        self._gone = True
        self._heard.set()

    async def _on_message(self, message: Message) -> None:
        self._last_heard = asyncio.get_running_loop().time()
        # header injection: a sender's own `Status` header makes no status; a delivery has an ack subject, a status none
        if message.reply.startswith("$JS.ACK."):
            # A message of an earlier, given-up request is as good as any: it is delivered, so it is taken.
            self._asked = max(0, self._asked - 1)
            self._on_delivery(parse_delivery(message))
            if self._asked == 0:
                self._heard.set()
            return
        if message.status == "100" or not message.subject.endswith(f".{self._round}"):
            return
        description = message.headers.get("Description", "").lower()
        if message.status == "503" or any(text in description for text in _CONSUMER_GONE):
            self._gone = True
        if message.status in ("400", "409"):
            log.info("pull.ended", durable=self._durable, reason=description)
        self._asked = 0
        self._heard.set()
