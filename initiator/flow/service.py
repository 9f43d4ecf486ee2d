"""The daemon as a service by NATS' own conventions: `nats micro ls|info|stats` shows every replica.

Answers `$SRV.PING|INFO|STATS`, each also with `.initiator` and `.initiator.<id>`, from each replica for itself, and
`initiator.health` with how each replica is, for `initiator top`. These subjects live in the daemon's own account:
clients, in theirs, neither see nor reach them.

Source: NATS' service API (ADR-32 of its architecture documents), whose field names and types these are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from initiator import __version__
from initiator.bus.connection import Connection, Message
from initiator.core import subjects
from initiator.core.events import format_time
from initiator.core.model import ContentType
from initiator.flow.answering import QUEUE_GROUP, Answering, Endpoint
from initiator.flow.clock import Clock
from initiator.health import Health

NAME = "initiator"
DESCRIPTION = "event initiator of an mpcium MPC wallet cluster"


class Service:
    """What one replica says of itself.

    Args:
        metadata: what an operator wants to see of each replica, such as its key's fingerprint.
        held: how many requests this replica has in its hands.
        replica_id: by which operators know this replica.
    """

    def __init__(
        self,
        connection: Connection,
        answering: Answering,
        metadata: Mapping[str, str],
        health: Health,
        held: Callable[[], int],
        clock: Clock,
        replica_id: str,
    ) -> None:
        self._connection = connection
        self._answering = answering
        self._metadata = dict(metadata)
        self._health = health
        self._held = held
        self._id = replica_id
        self._started = format_time(clock.now())
        self._kinds = {"PING": self._ping, "INFO": self._info, "STATS": self._stats}

    async def start(self) -> None:
        """Begin to answer."""
        for kind in self._kinds:
            for place in (kind, f"{kind}.{NAME}", f"{kind}.{NAME}.{self._id}"):
                await self._connection.subscribe(f"$SRV.{place}", self._on_message)
        await self._connection.subscribe(subjects.HEALTH, self._on_health)

    async def _on_message(self, message: Message) -> None:
        if not message.reply:
            return
        kind = message.subject.split(".")[1]
        said = self._identity(kind) | self._kinds[kind]()
        headers = {"Content-Type": ContentType.JSON.value}
        await self._connection.publish(message.reply, json.dumps(said).encode(), headers)

    async def _on_health(self, message: Message) -> None:
        if not message.reply:
            return
        parts = [
            {"name": part.name, "ok": part.ok, "code": part.code, "reason": part.reason, "note": part.note}
            for part in self._health.snapshot()
        ]
        said: dict[str, Any] = {"id": self._id, "version": __version__, "started": self._started}
        said |= {"metadata": self._metadata, "ready": self._health.ready, "held": self._held(), "parts": parts}
        headers = {"Content-Type": ContentType.JSON.value}
        await self._connection.publish(message.reply, json.dumps(said).encode(), headers)

    def _identity(self, kind: str) -> dict[str, Any]:
        return {
            "type": f"io.nats.micro.v1.{kind.lower()}_response",
            "name": NAME,
            "id": self._id,
            "version": __version__,
            "metadata": self._metadata,
        }

    def _ping(self) -> dict[str, Any]:
        return {}

    def _info(self) -> dict[str, Any]:
        return {"description": DESCRIPTION, "endpoints": [_place(one) for one in self._answering.endpoints]}

    def _stats(self) -> dict[str, Any]:
        return {"started": self._started, "endpoints": [_counts(one) for one in self._answering.endpoints]}


def _place(endpoint: Endpoint) -> dict[str, Any]:
    return {"name": endpoint.name, "subject": endpoint.subject, "queue_group": QUEUE_GROUP, "metadata": {}}


def _counts(endpoint: Endpoint) -> dict[str, Any]:
    average_ns = endpoint.processing_ns // endpoint.requests if endpoint.requests else 0
    return {
        "name": endpoint.name,
        "subject": endpoint.subject,
        "queue_group": QUEUE_GROUP,
        "num_requests": endpoint.requests,
        "num_errors": endpoint.errors,
        "last_error": endpoint.last_error,
        "processing_time": endpoint.processing_ns,
        "average_processing_time": average_ns,
        "data": {},
    }
