"""How nodes behave between having an answer and giving it: the seam for a chaos harness.

The default is an honest node that takes its time. A subclass may answer late, twice, something else or not at all;
it decides per answer and per node, and may keep what state it likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A result on its way.

    Attributes:
        operation: keygen, sign or reshare.
        operation_id: wallet_id, tx_id or session_id.
        subject: where it goes.
        message_id: its `Nats-Msg-Id`: of all with the same one, the server takes the first.
        body: the result's fields in Go's order; bytes or None where Go has bytes.
    """

    node_id: str
    operation: str
    operation_id: str
    subject: str
    message_id: str
    body: dict[str, Any]

    @property
    def success(self) -> bool:
        return bool(self.body["result_type"] == "success")


Publish: TypeAlias = Callable[[Answer], Awaitable[None]]


class Behaviour:
    """An honest node.

    Args:
        delay_s: how long an answer takes.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s

    async def answer(self, answer: Answer, publish: Publish) -> None:
        """Give an answer, by calling `publish` once, never, or as often as it likes."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        await publish(answer)

    def hears(self, node_id: str, operation: str) -> bool:
        """Whether a node takes part in an operation at all; a deaf one says nothing."""
        del node_id, operation
        return True
