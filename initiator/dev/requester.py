"""A service that asks the daemon, with a client's least permissions: its own subjects and no JetStream API."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgpack
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from initiator.client import RequestSigner
from initiator.core.events import format_time
from initiator.core.model import ContentType, Operation
from initiator.core.validate import parse_by_any
from initiator.errors import Code, HaltError

Encoding = Literal["json", "msgpack"]
EXPIRES_S = 600.0


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as the client received it."""

    state: str
    op: str
    id: str
    body: dict[str, Any]
    repeated: bool


class Requester:
    """One client of the stack."""

    def __init__(self, connection: Client, name: str, signer: RequestSigner | None = None) -> None:
        self.connection = connection
        self.name = name
        self.signer = signer
        self.seen: list[Seen] = []
        self.on_seen: Callable[[Seen], None] = lambda _seen: None
        self._arrived = asyncio.Condition()

    async def _on_event(self, message: Msg) -> None:
        _, _, _client, op, operation_id, state = message.subject.split(".")
        headers = message.headers or {}
        body = decode(headers.get("Content-Type", ""), message.data)
        async with self._arrived:
            seen = Seen(state, op, operation_id, body, "Initiator-Repeated" in headers)
            self.seen.append(seen)
            self._arrived.notify_all()
        self.on_seen(seen)

    async def submit(self, op: str, fields: Mapping[str, Any], encoding: Encoding = "msgpack") -> int:
        """Publish one request; returns its sequence in the queue.

        Raises:
            HaltError: the queue refused it.
        """
        headers: dict[str, str] = {}
        if self.signer is not None:
            fields = {"expires_at": format_time(time.time() + EXPIRES_S), **fields}
            request = parse_by_any(Operation(op), dict(fields), ContentType.MSGPACK)
            headers = await self.signer.header(self.name, request)
        if encoding == "json":
            plain = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in fields.items()}
            return await self.submit_raw(op, json.dumps(plain).encode(), headers | {"Content-Type": "application/json"})
        packed = msgpack.packb(dict(fields))
        return await self.submit_raw(op, packed, headers | {"Content-Type": "application/msgpack"})

    async def submit_raw(self, op: str, payload: bytes, headers: dict[str, str] | None = None) -> int:
        """Publish any bytes as a request; returns its sequence."""
        answer = await self.connection.request(
            f"initiator.request.{self.name}.{op}", payload, timeout=5, headers=headers or {}
        )
        body = json.loads(answer.data)
        if "error" in body:
            raise HaltError(Code.STREAM_FULL, f"{body['error'].get('err_code')}: {body['error'].get('description')}")
        sequence: int = body["seq"]
        return sequence

    async def query(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the daemon: `status`, `history` or `events`."""
        answer = await self.connection.request(
            f"initiator.query.{self.name}.{kind}", json.dumps(dict(body)).encode(), timeout=5
        )
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def wait_for(self, op: str, operation_id: str, *states: str, timeout_s: float = 20.0) -> Seen:
        """The first event of an operation in one of these states (default: the final ones).

        Raises:
            TimeoutError: none came in time.
        """
        wanted = states or ("completed", "failed")

        def found() -> Seen | None:
            return next((s for s in self.seen if (s.op, s.id) == (op, operation_id) and s.state in wanted), None)

        async with asyncio.timeout(timeout_s), self._arrived:
            while (seen := found()) is None:
                await self._arrived.wait()
            return seen

    async def wait_for_rejection(self, op: str, sequence: int, timeout_s: float = 20.0) -> Seen:
        """The rejection of the request with this sequence."""
        return await self.wait_for(op, str(sequence), "rejected", timeout_s=timeout_s)


def decode(content_type: str, data: bytes) -> dict[str, Any]:
    """An event's body; in JSON, bytes are base64 strings."""
    body: dict[str, Any] = json.loads(data) if content_type == "application/json" else msgpack.unpackb(data)
    return body


def as_bytes(value: bytes | str) -> bytes:
    """A bytes field of an event in either encoding."""
    return value if isinstance(value, bytes) else base64.b64decode(value)


@contextlib.asynccontextmanager
async def requester(
    url: str, name: str, password: str, signer: RequestSigner | None = None
) -> AsyncIterator[Requester]:
    """A connected client that listens to its events."""
    connection = await nats.connect(url, user=name, password=password, inbox_prefix=f"_INBOX_{name}")
    try:
        client = Requester(connection, name, signer)
        await connection.subscribe(f"initiator.out.{name}.>", cb=client._on_event)
        await connection.flush()
        yield client
    finally:
        await connection.close()
