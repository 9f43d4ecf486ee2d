"""Streams deleted under a running daemon, and a record that is missing at the start."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from initiator import app as app_module
from initiator.app import App
from initiator.errors import Code
from initiator.flow import upkeep
from tests.support.harness import Bench, ScriptedSigner, bench, daemon, running, settings_for, source

RECORD = "INITIATOR_EVENTS"


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("upkeep")) as ready:
        yield ready


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LOOK_S", 0.1)


def wallet_id() -> str:
    return f"w{secrets.token_hex(6)}"


async def complete(server: Bench, client: str = "alice") -> int:
    """A keygen from its request to its end; returns the request's sequence."""
    wallet = wallet_id()
    sequence = await server.submit("keygen", {"wallet_id": wallet}, client=client)
    await server.until("keygen", wallet, "published")
    await server.answer("keygen", wallet, server.keygen_success(wallet))
    await server.until("keygen", wallet, "completed")
    return sequence


async def until(what: Any) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.02)


def streams_part(app: App) -> tuple[bool, Code | None]:
    found = next(part for part in app.health.snapshot() if part.name == "streams")
    return found.ok, found.code


async def names(server: Bench) -> set[str]:
    return {info.config.name or "" for info in await server.js.streams_info()}


async def test_all_but_the_record_is_made_anew_and_work_goes_on(server: Bench) -> None:
    settings = settings_for(server.url, mpcium={"sign": {"in_flight": 10}, "keygen": {"in_flight": 2}})
    async with daemon(settings) as app:
        await complete(server)
        before = await names(server)
        with capture_logs() as logs:
            for name in before - {RECORD}:
                await server.js.delete_stream(name)
            async with asyncio.timeout(20):
                while await names(server) != before:
                    await asyncio.sleep(0.05)
            assert await complete(server) > 1_000_000_000_000_000  # never a sequence that was there before
            await complete(server, "bob")
        made = {line["stream"] for line in logs if line["event"].endswith("_made_anew")}
        assert made == before - {RECORD}
        assert streams_part(app) == (True, None)


async def test_without_the_record_nothing_is_claimed_until_it_is_restored(server: Bench) -> None:
    signer = ScriptedSigner()
    async with daemon(settings_for(server.url), signer) as app:
        await complete(server)
        config = (await server.js.stream_info(RECORD)).config
        with capture_logs() as logs:
            await server.js.delete_stream(RECORD)
            await until(lambda: streams_part(app) == (False, Code.RECORD_LOST))
            wallet = wallet_id()
            calls = signer.calls
            await server.submit("keygen", {"wallet_id": wallet})
            await asyncio.sleep(0.5)
            assert RECORD not in await names(server)
            assert signer.calls == calls
            assert app.health.ready is False
            await server.js.add_stream(config)  # as a restored backup would
            await server.until("keygen", wallet, "published")
            await until(lambda: streams_part(app) == (True, None))
        assert not [line for line in logs if line["event"] == "request.handler_failed"]
        lost = [line for line in logs if line["event"] == "upkeep.record_lost"]
        assert [(line["code"], "restore it" in line["hint"]) for line in lost] == [("RECORD_LOST", True)]
        assert any(line["event"] == "upkeep.record_restored" for line in logs)


async def test_a_daemon_does_not_begin_on_an_empty_record_where_there_was_one(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        await complete(server)
    config = (await server.js.stream_info(RECORD)).config
    await server.js.delete_stream(RECORD)
    app = App(settings_for(server.url), source(ScriptedSigner()))
    serving = asyncio.create_task(app.run())
    await until(lambda: streams_part(app) == (False, Code.RECORD_LOST))
    await asyncio.sleep(1)
    assert RECORD not in await names(server)
    await server.js.add_stream(config)
    await until(lambda: app.health.ready)
    app.stop()
    assert await serving == 0


async def test_whoever_deletes_all_begins_anew(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        await complete(server)
    for name in await names(server):
        await server.js.delete_stream(name)
    app = App(settings_for(server.url), source(ScriptedSigner()))
    async with running(app):
        assert await complete(server) == 1


async def test_a_stream_that_cannot_be_made_anew_is_told(server: Bench) -> None:
    async with daemon(settings_for(server.url)) as app:
        await server.js.delete_stream("INITIATOR_DEAD")
        await server.js.add_stream(name="OTHER", subjects=["initiator.dead.>"])
        await until(lambda: streams_part(app) == (False, Code.STREAM_FORM))
        await server.js.delete_stream("OTHER")
        await until(lambda: streams_part(app) == (True, None))


async def test_an_error_that_nobody_foresaw_ends_no_chore(server: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "CHORE_AGAIN_S", 0.1)
    looks = 0
    look = upkeep.Upkeep.look

    async def stumbles(self: upkeep.Upkeep) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise KeyError("nobody foresaw this")
        await look(self)

    monkeypatch.setattr(upkeep.Upkeep, "look", stumbles)
    with capture_logs() as logs:
        async with daemon(settings_for(server.url)):
            await until(lambda: looks > 2)
    failed = [line["error_type"] for line in logs if line["event"] == "daemon.chore_failed"]
    assert failed == ["KeyError"]
