"""Health and metrics over a real socket: what is answered, and that rubbish harms nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from initiator import http
from initiator.config.schema import HttpSettings
from initiator.errors import Code, HaltError
from initiator.health import Health
from initiator.http import HealthServer
from initiator.metrics import Metrics


@pytest.fixture
def health() -> Health:
    found = Health(("nats", "signer"))
    found.set("nats", True)
    found.set("signer", True)
    found.mark_started()
    return found


@pytest.fixture
async def server(health: Health) -> AsyncIterator[HealthServer]:
    running = HealthServer(HttpSettings(port=0), health, Metrics().registry)
    await running.start()
    try:
        yield running
    finally:
        await running.close()


async def say(server: HealthServer, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Raw bytes in; status, headers and body out (status 0: closed without an answer)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(raw)
        await writer.drain()
        async with asyncio.timeout(10):
            answer = await reader.read()
    except ConnectionError:
        return 0, {}, b""
    finally:
        writer.close()
    if not answer:
        return 0, {}, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    return int(first.split(" ")[1]), headers, body


async def get(server: HealthServer, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return await say(server, "\r\n".join(lines).encode())


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
async def test_a_healthy_daemon_is_ok(server: HealthServer, path: str) -> None:
    status, headers, body = await get(server, path)
    assert (status, body) == (200, b"ok\n")
    assert headers["connection"] == "close"
    status, _, body = await get(server, path, method="HEAD")
    assert (status, body) == (200, b"")


async def test_readiness_names_the_part_that_is_away(server: HealthServer, health: Health) -> None:
    health.set("signer", False, "the key is disabled", Code.KMS_KEY_UNUSABLE)
    status, _, body = await get(server, "/readyz")
    assert (status, body) == (503, b"[+]nats ok\n[-]signer failed: the key is disabled\nnot ok\n")
    status, _, body = await get(server, "/readyz", "Accept: application/json")
    assert (status, json.loads(body)["parts"][1]) == (
        503,
        {"name": "signer", "ok": False, "reason": "the key is disabled", "code": "KMS_KEY_UNUSABLE"},
    )
    assert (await get(server, "/livez"))[0] == 200
    assert (await get(server, "/readyz?verbose"))[2].count(b"\n") == 3


async def test_readiness_notes_what_is_amiss_while_all_is_well_enough(server: HealthServer, health: Health) -> None:
    health.set("signer", True, note="eu-central-1 is open")
    assert (await get(server, "/readyz"))[::2] == (200, b"ok\n")
    assert (await get(server, "/readyz?verbose"))[2] == b"[+]nats ok\n[+]signer ok: eu-central-1 is open\nok\n"
    _, _, body = await get(server, "/readyz", "Accept: application/json")
    assert [part.get("note") for part in json.loads(body)["parts"]] == [None, "eu-central-1 is open"]


async def test_metrics_are_in_openmetrics_text(server: HealthServer) -> None:
    status, headers, body = await get(server, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert b"# TYPE initiator_" in body


BAD = [
    (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
    (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"GET /readyz HTTP/1.1\r\n\r\n", 400),
    (b"rubbish\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (b"GET /readyz HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", 400),
    (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
    (b"GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
    (b"GET /readyz HTTP/1.1\r\nHo st: x\r\n\r\n", 400),
]


@pytest.mark.parametrize(("raw", "status"), BAD, ids=[str(raw[:40]) for raw, _ in BAD])
async def test_a_bad_request_gets_its_status_and_the_next_one_is_served(
    server: HealthServer, raw: bytes, status: int
) -> None:
    assert (await say(server, raw))[0] in (status, 0 if len(raw) > 16_384 else status)
    assert (await get(server, "/readyz"))[0] == 200


async def test_one_connection_gets_one_answer(server: HealthServer) -> None:
    status, _, body = await say(server, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
    assert (status, body) == (200, b"ok\n")


async def test_slow_and_silent_clients_are_let_go(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "DEADLINE_S", 0.2)
    connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(10)]
    for _, writer in connections[:5]:
        writer.write(b"GET /readyz HT")
    async with asyncio.timeout(5):
        for reader, writer in connections:
            assert await reader.read() == b""
            writer.close()
    assert (await get(server, "/readyz"))[0] == 200


async def test_more_connections_than_it_takes_are_closed_and_not_queued(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 4)
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
    await asyncio.sleep(0.05)
    assert (await get(server, "/readyz"))[0] == 0
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(5):
        while (await get(server, "/readyz"))[0] != 200:
            await asyncio.sleep(0.02)


async def test_a_port_that_is_taken_is_named(server: HealthServer, health: Health) -> None:
    second = HealthServer(HttpSettings(port=server.port), health, Metrics().registry)
    with pytest.raises(HaltError) as error:
        await second.start()
    assert (error.value.code, error.value.field) == (Code.CONFIG_INVALID, "http.port")
    assert str(server.port) in error.value.reason
