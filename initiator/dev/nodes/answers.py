"""One node's answers: from fields to a published result, by way of its behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from nats.aio.client import Client
from nats.errors import Error as NatsError

from initiator.dev.nodes import errorcodes, jetstream, results, wire
from initiator.dev.nodes.behaviour import Answer, Behaviour
from initiator.dev.nodes.config import Routing

Emit: TypeAlias = Callable[[str, dict[str, Any]], None]
Headers: TypeAlias = dict[str, str]
AGAIN_S = 0.5
EXHAUSTED_REASON = "Signing failed: maximum delivery attempts exceeded"


class Answers:
    """Publishes results on behalf of one node, and tells what it did."""

    def __init__(self, nc: Client, node_id: str, routing: Routing, behaviour: Behaviour, emit: Emit) -> None:
        self._nc = nc
        self._node_id = node_id
        self._routing = routing
        self._behaviour = behaviour
        self._emit = emit

    def verified(self, operation: str, operation_id: str) -> None:
        """Tell that this node believes an event."""
        self._emit("node.verified", {"node": self._node_id, "op": operation, "id": operation_id})

    def refused(self, operation: str, operation_id: str, reason: str) -> None:
        """Tell that this node does not believe an event."""
        self._emit("node.refused", {"node": self._node_id, "op": operation, "id": operation_id, "reason": reason})

    async def success(self, operation: str, operation_id: str, headers: Headers, **fields: Any) -> None:
        """Answer with a success."""
        await self._answer(operation, operation_id, headers, {"result_type": "success"} | fields)

    async def failure(
        self, operation: str, operation_id: str, headers: Headers, context: str, error: str, **fields: Any
    ) -> None:
        """Answer with an error whose code is guessed from its text, as mpcium guesses."""
        told = {"error_code": errorcodes.guess(error), "error_reason": f"{context}: {error}"}
        await self._answer(operation, operation_id, headers, told | fields)

    async def unforwarded(
        self, operation: str, operation_id: str, headers: Headers, code: str, reason: str, **fields: Any
    ) -> None:
        """Answer with an error of the forwarding node, which begins no session and names its code itself."""
        await self._answer(operation, operation_id, headers, {"error_code": code, "error_reason": reason} | fields)

    async def exhausted(self, message: wire.Sign, headers: Headers) -> None:
        """Answer for a sign request that the server gave up on.

        The node reads the request into a result, so whatever has the same name is repeated: our own signature too.
        """
        client = results.client_of(headers, self._routing)
        fields = {
            "error_code": errorcodes.MAX_DELIVERY_ATTEMPTS,
            "error_reason": EXHAUSTED_REASON,
            "is_timeout": True,
            "network_internal_code": message.network_internal_code,
            "wallet_id": message.wallet_id,
            "tx_id": message.tx_id,
            "signature": message.signature or None,
        }
        unscoped = self._routing == "unscoped"
        answer = Answer(
            node_id=self._node_id,
            operation="sign",
            operation_id=message.tx_id,
            subject="mpc.mpc_signing_result.*" if unscoped else results.subject("sign", client, message.tx_id),
            message_id=message.tx_id if unscoped else results.message_id("sign", client, message.tx_id, ""),
            body=results.body("sign", **fields),
        )
        await self._behaviour.answer(answer, self._publish)

    async def _answer(self, operation: str, operation_id: str, headers: Headers, fields: dict[str, Any]) -> None:
        client = results.client_of(headers, self._routing)
        where = operation_id
        if operation == "reshare" and self._routing == "unscoped" and "error_code" in fields:
            where = fields["wallet_id"]  # v0.3.5 sends a reshare's errors to the wallet's subject
        if operation != "sign" and not where:
            return  # no subject without an id
        answer = Answer(
            node_id=self._node_id,
            operation=operation,
            operation_id=operation_id,
            subject=results.subject(operation, client, where),
            message_id=results.message_id(operation, client, where, headers.get("SessionID", "")),
            body=results.body(operation, **fields),
        )
        await self._behaviour.answer(answer, self._publish)

    async def _publish(self, answer: Answer) -> None:
        told = {"node": answer.node_id, "op": answer.operation, "id": answer.operation_id}
        try:
            first = await self._until_answered(answer, told)
        except (jetstream.ApiError, NatsError) as error:
            self._emit("node.publish_failed", told | {"subject": answer.subject, "reason": str(error)})
            return
        told["result"] = answer.body["result_type"]
        if not answer.success:
            told["code"] = answer.body["error_code"]
        self._emit("node.answered", told | {"first": first})

    async def _until_answered(self, answer: Answer, told: dict[str, Any]) -> bool:
        """Publish for as long as the server is away: a result that was lost with it would never come again."""
        data = wire.dumps(answer.body.items())
        while True:
            try:
                return await jetstream.publish_once(self._nc, answer.subject, data, answer.message_id)
            except NatsError as error:
                if self._nc.is_closed:
                    raise
                self._emit("node.publish_retried", told | {"reason": f"{type(error).__name__}: {error}"})
                await asyncio.sleep(AGAIN_S)
