"""Nodes that answer late, twice, contradictorily, falsely, or not at all."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import IO, Any

from initiator.dev.nodes.behaviour import Answer, Behaviour, Publish
from tests.chaos.files import write_line

KINDS = ("nodes_late", "nodes_twice", "nodes_contradict", "nodes_lie", "nodes_silent", "nodes_not_ready")


class ChaosBehaviour(Behaviour):
    """While `kind` is set, a part of the answers goes wrong in its way. Every true answer is written down."""

    def __init__(self, delay_s: float, seed: int, answers: IO[bytes]) -> None:
        super().__init__(delay_s)
        self.kind = ""
        self._random = random.Random(seed)
        self._answers = answers
        self._chosen: dict[str, str] = {}

    async def answer(self, answer: Answer, publish: Publish) -> None:
        self._note(answer)
        kind = self._kind_for(answer)
        if kind == "nodes_silent":
            return
        if kind == "nodes_late":
            await asyncio.sleep(self._random.uniform(1.0, 20.0))
        if kind == "nodes_lie" and answer.success:
            await publish(self._lie(answer))
            await asyncio.sleep(self._random.uniform(0.0, 1.0))
        await super().answer(answer, publish)
        if kind == "nodes_twice":
            await publish(replace(answer, message_id=f"{answer.message_id}:again:{answer.node_id}"))
        if kind == "nodes_contradict":
            await publish(self._contradiction(answer))

    def _note(self, answer: Answer) -> None:
        body = {name: value for name, value in answer.body.items() if name.endswith("pub_key")}
        line = {"op": answer.operation, "id": answer.operation_id, "success": answer.success}
        write_line(self._answers, line | {"keys": {name: value.hex() for name, value in body.items() if value}})

    def _kind_for(self, answer: Answer) -> str:
        """All nodes of one session behave alike, or the honest ones would always be heard first."""
        if not self.kind and answer.operation_id not in self._chosen:
            return ""
        if answer.operation_id not in self._chosen:
            self._chosen[answer.operation_id] = self.kind if self._random.random() < 0.4 else ""
        return self._chosen[answer.operation_id]

    def _lie(self, answer: Answer) -> Answer:
        body: dict[str, Any] = dict(answer.body)
        for name in ("r", "signature", "ecdsa_pub_key", "pub_key"):
            if body.get(name):
                body[name] = bytes(byte ^ 0x5A for byte in body[name])
        return replace(answer, body=body, message_id=f"{answer.message_id}:lie")

    def _contradiction(self, answer: Answer) -> Answer:
        code = "ERROR_SESSION_DUPLICATE" if self._random.random() < 0.5 else "ERROR_UNKNOWN"
        body = {"result_type": "error", "error_code": code, "error_reason": "something else went wrong"}
        return replace(answer, body=answer.body | body, message_id=f"{answer.message_id}:not:{answer.node_id}")
