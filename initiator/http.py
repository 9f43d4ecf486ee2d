"""Health and metrics over HTTP/1.1: `/livez`, `/readyz`, `/startupz`, `/metrics`, GET and HEAD only.

Invariants: every connection has a deadline (slow clients cannot pile up), a bounded request and serves one answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from urllib.parse import parse_qs, urlsplit

import h11
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from initiator.config.schema import HttpSettings
from initiator.errors import Code, HaltError
from initiator.health import Health

DEADLINE_S = 5.0
MAX_CONNECTIONS = 64
MAX_REQUEST_BYTES = 16_384
Answer = tuple[int, str, bytes]


class HealthServer:
    """Serves a `Health` and a metrics registry."""

    def __init__(self, settings: HttpSettings, health: Health, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._health = health
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._open = 0
        self.port = settings.port

    async def start(self) -> None:
        """Listen.

        Raises:
            HaltError: the address is taken or not ours.
        """
        try:
            self._server = await asyncio.start_server(self._serve, self._settings.host, self._settings.port)
        except OSError as error:
            raise HaltError(
                Code.CONFIG_INVALID, f"{self._settings.host}:{self._settings.port}: {error.strerror}", field="http.port"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(DEADLINE_S):
                    await self._exchange(reader, writer)
        except (TimeoutError, OSError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        method = b"GET"
        try:
            request = await self._request(connection, reader)
            if request is None:
                return
            method = request.method
            status, content_type, body = self._answer(request)
        except h11.RemoteProtocolError:
            status, content_type, body = 400, "text/plain", b"bad request\n"
        headers = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("Connection", "close")]
        out = connection.send(h11.Response(status_code=status, headers=headers)) or b""
        if method != b"HEAD":
            out += connection.send(h11.Data(data=body)) or b""
        writer.write(out)
        await writer.drain()

    async def _request(self, connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            connection.receive_data(await reader.read(4096))

    def _answer(self, request: h11.Request) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            return 405, "text/plain", b"only GET and HEAD\n"
        url = urlsplit(request.target.decode("ascii", "replace"))
        wants_json = any(name == b"accept" and b"application/json" in value for name, value in request.headers)
        verbose = "verbose" in parse_qs(url.query, keep_blank_values=True)
        if url.path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)  # type: ignore[no-untyped-call]
        checks = {"/livez": True, "/readyz": self._health.ready, "/startupz": self._health.started}
        if url.path not in checks:
            return 404, "text/plain", b"not found\n"
        return self._health_answer(checks[url.path], verbose=verbose, wants_json=wants_json)

    def _health_answer(self, ok: bool, *, verbose: bool, wants_json: bool) -> Answer:
        status = 200 if ok else 503
        parts = self._health.snapshot()
        if wants_json:
            listed = [
                {"name": p.name, "ok": p.ok, "reason": p.reason, "code": p.code} | ({"note": p.note} if p.note else {})
                for p in parts
            ]
            return status, "application/json", json.dumps({"ok": ok, "parts": listed}).encode()
        lines = (
            [
                f"[+]{p.name} ok{': ' + p.note if p.note else ''}" if p.ok else f"[-]{p.name} failed: {p.reason}"
                for p in parts
            ]
            if verbose or not ok
            else []
        )
        return status, "text/plain", "\n".join([*lines, "ok" if ok else "not ok", ""]).encode()
