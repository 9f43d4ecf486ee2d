"""A cluster of simulated nodes, for tests in one process and for the process that `initiator dev` starts."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self

from initiator.dev.nodes.answers import Emit
from initiator.dev.nodes.behaviour import Behaviour
from initiator.dev.nodes.config import NodesConfig
from initiator.dev.nodes.node import Node
from initiator.dev.nodes.trust import Trust
from initiator.dev.nodes.vault import Vault


def _silent(event: str, fields: dict[str, Any]) -> None:
    del event, fields


class SimulatedCluster:
    """N nodes that trust one initiator.

    Use as `async with SimulatedCluster(config) as cluster:`; inside, all nodes serve.

    Args:
        emit: told everything the nodes do: an event's name and its fields.
        behaviour: how nodes answer; by default honestly, after `config.delay_s`.
    """

    def __init__(self, config: NodesConfig, *, emit: Emit = _silent, behaviour: Behaviour | None = None) -> None:
        self.config = config
        self._ready_at = float("inf")
        self._ready = True
        trust = Trust.load(config)
        vault = Vault(bytes.fromhex(config.chain_code), config.store)
        behaviour = behaviour or Behaviour(config.delay_s)
        self.nodes = tuple(
            Node(
                node_id,
                config,
                trust=trust,
                vault=vault,
                behaviour=behaviour,
                is_ready=lambda: self.ready,
                emit=emit,
            )
            for node_id in config.node_ids
        )

    @property
    def ready(self) -> bool:
        """Whether the nodes begin sessions; if not they answer with CLUSTER_NOT_READY or NOT_MAJORITY."""
        return self._ready and time.monotonic() >= self._ready_at

    def set_ready(self, ready: bool) -> None:
        """Lose or regain readiness, as when a peer goes away and comes back."""
        self._ready = ready

    async def start(self) -> None:
        """Start all nodes.

        Raises:
            ApiError: a stream or durable of another form is in the way.
        """
        self._ready_at = time.monotonic() + self.config.not_ready_for_s
        first, *others = self.nodes
        await first.start()
        await asyncio.gather(*(node.start() for node in others))

    async def stop(self) -> None:
        """Stop all nodes."""
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
