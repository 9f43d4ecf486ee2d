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
from initiator.bus import queues
from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings, Settings
from initiator.errors import Code, RetryError
from initiator.flow import upkeep
from initiator.flow.clock import SystemClock
from initiator.flow.watchdog import Watchdog
from initiator.health import Health
from initiator.metrics import Metrics
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


async def subjects_of(server: Bench, client: str) -> list[str]:
    return (await server.js.stream_info(f"INITIATOR_REQUESTS_{client}")).config.subjects or []


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


async def test_a_stream_that_cannot_be_made_anew_is_told(server: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    look, may_look = upkeep.Upkeep.look, asyncio.Event()
    may_look.set()

    async def gated(self: upkeep.Upkeep) -> None:
        await may_look.wait()
        await look(self)

    monkeypatch.setattr(upkeep.Upkeep, "look", gated)
    async with daemon(settings_for(server.url)) as app:
        may_look.clear()
        await asyncio.sleep(0.5)
        await server.js.delete_stream("INITIATOR_DEAD")
        await server.js.add_stream(name="OTHER", subjects=["initiator.dead.>"])
        may_look.set()
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


async def test_after_a_total_loss_no_replica_begins_an_empty_record_beside_one_that_knows(server: Bench) -> None:
    settings = settings_for(server.url)
    async with daemon(settings) as first:
        await complete(server)
        for name in await names(server):
            await server.js.delete_stream(name)
        await until(lambda: streams_part(first) == (False, Code.RECORD_LOST))
        async with asyncio.timeout(10):
            while "INITIATOR_DEAD" not in await names(server):
                await asyncio.sleep(0.05)
        second = App(settings, source(ScriptedSigner()))
        serving = asyncio.create_task(second.run())
        await until(lambda: streams_part(second) == (False, Code.RECORD_LOST))
        await asyncio.sleep(0.5)
        assert RECORD not in await names(server)
        second.stop()
        assert await serving == 0


async def test_a_queue_that_cannot_be_made_is_told_and_stops_nobody_else(
    server: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LOOK_S", 0.5)
    await server.js.add_stream(name="OTHER", subjects=["initiator.request.bob.sign"])
    app = App(settings_for(server.url), source(ScriptedSigner()))
    serving = asyncio.create_task(app.run())
    await until(lambda: streams_part(app) == (False, Code.STREAM_FORM))
    await complete(server)
    part = next(part for part in app.health.snapshot() if part.name == "streams")
    assert part.reason.startswith("the queue of bob: ")
    await server.js.delete_stream("OTHER")
    await until(lambda: app.health.ready)
    await complete(server, "bob")
    app.stop()
    assert await serving == 0


async def test_what_nobody_takes_is_found_and_answered(server: Bench) -> None:
    """A replica of the old configuration opened the queue of a client that had left, and went away again."""
    alone = Settings.model_validate(settings_for(server.url).model_dump() | {"clients": {"alice": {}}})
    with capture_logs() as logs:
        async with daemon(alone):
            async with daemon(settings_for(server.url)):
                pass
            sequence = await server.submit("keygen", {"wallet_id": wallet_id()}, client="bob")
            await complete(server)
            refused = await server.rejection(sequence, client="bob", timeout_s=20)
            assert refused["code"] == "POLICY_DENIED"
    assert [line["pairs"] for line in logs if line["event"] == "assembly.forgotten_requests"] == [["bob keygen"]]


async def test_a_replica_that_does_not_know_a_new_client_leaves_its_requests_alone(server: Bench) -> None:
    alone = Settings.model_validate(settings_for(server.url).model_dump() | {"clients": {"alice": {}}})
    async with daemon(settings_for(server.url)), daemon(alone):
        async with asyncio.timeout(10):  # its start has closed a queue that it does not know
            while "initiator.request.bob.keygen" not in await subjects_of(server, "bob"):
                await asyncio.sleep(0.05)
        for _ in range(5):
            await complete(server, "bob")
    assert not [event for event in server.seen if event["state"] == "rejected"]


async def test_the_watchdog_sees_past_a_queue_that_cannot_be_read(
    server: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(settings_for(server.url)):
        oldest = queues.oldest

        async def unreadable(js: JetStream, client: str) -> Any:
            if client == "alice":
                raise RetryError(Code.BUS_UNAVAILABLE, "no answer in time")
            return await oldest(js, client)

        monkeypatch.setattr(queues, "oldest", unreadable)
        connection = Connection(NatsSettings(servers=(server.url,)), "test")
        await connection.open()
        settings = settings_for(server.url)
        dog = Watchdog(JetStream(connection), settings, Health(()), Metrics(), SystemClock())
        await server.submit("keygen", {"wallet_id": wallet_id()}, client="bob")
        with capture_logs() as logs:
            found = await dog._oldest_waiting()
        await connection.close()
    assert [stored.subject for stored in found.values()] == ["initiator.request.bob.keygen"]
    assert [line["client"] for line in logs if line["event"] == "watchdog.queue_unreadable"] == ["alice"]


async def test_a_record_made_by_hand_is_brought_into_form(server: Bench) -> None:
    async with daemon(settings_for(server.url)) as app:
        await complete(server)
        await server.js.delete_stream(RECORD)
        await until(lambda: streams_part(app) == (False, Code.RECORD_LOST))
        await server.js.add_stream(name=RECORD, subjects=["initiator.event.>", "initiator.reject.>"])
        await until(lambda: streams_part(app) != (False, Code.RECORD_LOST))
        assert streams_part(app) in ((True, None), (False, Code.STREAM_FORM))
        if streams_part(app)[0]:
            await complete(server)
