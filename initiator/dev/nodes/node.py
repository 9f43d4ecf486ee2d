"""One simulated peer node: a connection of its own, the streams and durables that a node makes, its subscriptions.

Source: mpcium's cmd/mpcium/main.go and pkg/eventconsumer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from initiator.dev.nodes import forwarder, jetstream, wire
from initiator.dev.nodes.answers import Answers, Emit
from initiator.dev.nodes.behaviour import Behaviour
from initiator.dev.nodes.config import NodesConfig
from initiator.dev.nodes.forwarder import Forwarder
from initiator.dev.nodes.handlers import Handlers
from initiator.dev.nodes.jetstream import Puller
from initiator.dev.nodes.sessions import Sessions
from initiator.dev.nodes.trust import Trust
from initiator.dev.nodes.vault import Vault

Handle: TypeAlias = Callable[[Msg], Awaitable[None]]
_CONNECT_TIMEOUT_S = 10.0
_GOODBYE_S = 1
_ADVISORIES = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"


class Node:
    """Started, it serves until it is stopped.

    Args:
        is_ready: whether the cluster is ready; asked for every request.
    """

    def __init__(
        self,
        node_id: str,
        config: NodesConfig,
        *,
        trust: Trust,
        vault: Vault,
        behaviour: Behaviour,
        is_ready: Callable[[], bool],
        emit: Emit,
    ) -> None:
        self.node_id = node_id
        self._config = config
        self._trust = trust
        self._vault = vault
        self._behaviour = behaviour
        self._is_ready = is_ready
        self._emit = emit
        self._tasks: set[asyncio.Task[None]] = set()
        self._nc: Client | None = None

    async def start(self) -> None:
        """Connect, make what a node makes at its start, and serve.

        Raises:
            ApiError: a stream or durable of another form is in the way.
            TimeoutError: no server lets this node in.
        """
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            nc = self._nc = await self._connect()
        await self._make_streams(nc)
        answers = Answers(nc, self.node_id, self._config.routing, self._behaviour, self._emit)
        handlers = Handlers(
            nc=nc,
            node_id=self.node_id,
            config=self._config,
            trust=self._trust,
            vault=self._vault,
            sessions=Sessions(self._config.timing),
            answers=answers,
        )
        await self._listen(nc, handlers)
        await nc.subscribe(_ADVISORIES, cb=self._exhausted(nc, answers))
        await self._consume(nc, answers)
        await nc.flush()
        self._emit("node.started", {"node": self.node_id, "routing": self._config.routing})

    async def stop(self) -> None:
        """Stop serving; what is not acked is delivered to another node."""
        while self._tasks:  # Python 3.11's wait_for, which nats-py uses, may return a message and no cancellation
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(tuple(self._tasks), timeout=1)
        if self._nc is not None:
            with contextlib.suppress(NatsError):  # what the server sends after this is for the next node, not for us
                await self._nc.flush(timeout=_GOODBYE_S)
            await self._nc.close()

    async def _connect(self) -> Client:
        return await nats.connect(
            list(self._config.servers),
            name=self.node_id,
            user=self._config.user,
            password=self._config.password,
            tls=self._config.tls,
            inbox_prefix="_INBOX_mpcium",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,
            ping_interval=5,
            error_cb=self._on_error,
        )

    async def _on_error(self, error: Exception) -> None:
        self._emit("node.connection_error", {"node": self.node_id, "reason": str(error)})

    async def _make_streams(self, nc: Client) -> None:
        keygen, signing = jetstream.KEYGEN_STREAM, jetstream.SIGNING_STREAM
        await jetstream.create_or_update_stream(nc, jetstream.request_stream(keygen, jetstream.KEYGEN_SUBJECT))
        await jetstream.create_or_update_stream(nc, jetstream.request_stream(signing, jetstream.SIGNING_SUBJECT))
        await jetstream.create_or_update_stream(nc, jetstream.result_stream(self._config.routing))
        for name in jetstream.RESULTS:
            complete = name == "mpc_signing_result" and self._config.routing == "scoped"
            await jetstream.create_or_update_result_durable(nc, name, f"mpc.{name}.{'complete' if complete else '*'}")

    async def _listen(self, nc: Client, handlers: Handlers) -> None:
        keygens = asyncio.Semaphore(self._config.max_concurrent_keygen)
        signings = asyncio.Semaphore(self._config.max_concurrent_signing)
        await nc.subscribe("mpc:generate", cb=self._concurrently("keygen", keygens, handlers.keygen))
        await nc.subscribe("mpc:sign", cb=self._concurrently("sign", signings, handlers.sign))
        await nc.subscribe("mpc:reshare", cb=self._in_turn("reshare", handlers.reshare))

    async def _consume(self, nc: Client, answers: Answers) -> None:
        lanes = (
            (forwarder.KEYGEN, jetstream.KEYGEN_STREAM, jetstream.KEYGEN_DURABLE, jetstream.KEYGEN_SUBJECT,
             self._config.max_concurrent_keygen),
            (forwarder.SIGN, jetstream.SIGNING_STREAM, jetstream.SIGNING_DURABLE, jetstream.SIGNING_SUBJECT,
             self._config.max_concurrent_signing),
        )  # fmt: skip
        for kind, stream, durable, subject, max_ack_pending in lanes:
            await jetstream.create_or_update_request_durable(nc, stream, durable, subject, max_ack_pending)
            way = Forwarder(nc, kind, self._config.timing, answers, self._is_ready)
            await way.start()
            self._spawn(Puller(nc, stream, durable, way.handle).run())

    def _exhausted(self, nc: Client, answers: Answers) -> Handle:
        """Answers for sign requests whose deliveries are used up; a keygen in that state gets no answer."""

        async def callback(message: Msg) -> None:
            notice = json.loads(message.data)
            if notice.get("stream") == jetstream.SIGNING_STREAM:
                data, headers = await jetstream.stored_message(nc, jetstream.SIGNING_STREAM, notice["stream_seq"])
                await answers.exhausted(wire.read_sign(data), headers)

        return callback

    def _concurrently(self, operation: str, limit: asyncio.Semaphore, handle: Handle) -> Handle:
        async def one(message: Msg) -> None:
            async with limit:
                await handle(message)

        async def callback(message: Msg) -> None:
            if self._behaviour.hears(self.node_id, operation):
                self._spawn(one(message))

        return callback

    def _in_turn(self, operation: str, handle: Handle) -> Handle:
        async def callback(message: Msg) -> None:
            if self._behaviour.hears(self.node_id, operation):
                await handle(message)

        return callback

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._emit("node.crashed", {"node": self.node_id, "reason": f"{type(error).__name__}: {error}"})
