"""The exporter as a process: what is away is waited for, and what nobody heard is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit import progress, service
from initiator.audit.service import Service
from initiator.audit.store import CHECKPOINT, FileStore, Store
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.core import subjects
from initiator.errors import Code, HaltError, RetryError
from tests.integration.audit.conftest import ORIGIN
from tests.support.harness import settings_for
from tests.support.nats_cluster import connected
from tests.support.nats_restart import RestartableServer, restartable_server

KEY = Ed25519PrivateKey.generate()


async def begin(url: str) -> JetStream:
    """A record of two messages."""
    js = JetStream(await connected(NatsSettings(servers=(url,))))
    await js.api("STREAM.CREATE.INITIATOR_EVENTS", {"name": "INITIATOR_EVENTS", "subjects": ["initiator.reject.>"]})
    for number in (1, 2):
        await js.publish(f"initiator.reject.a.keygen.{number}.rejected", b"{}")
    return js


def service_of(url: str, open_store: Callable[[], Store], said: list[str]) -> Service:
    settings = settings_for(url, audit={"exporter": "max"})
    return Service(settings, open_store, KEY, ORIGIN, said.append)


async def test_whoever_follows_waits_for_what_is_away_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the log's store, then NATS, then the record, then a server that comes back."""
    monkeypatch.setattr(service, "POLL_S", 0.05)
    server, folder, said, stop = RestartableServer(tmp_path), tmp_path / "log", list[str](), asyncio.Event()
    away = [RetryError(Code.AUDIT_UNAVAILABLE, "the store is away")] * 2

    def open_store() -> Store:
        if away:
            raise away.pop()
        return FileStore.open_for_writing(folder)

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                assert not following.done(), following.result()
                await asyncio.sleep(0.02)

    one = service_of(server.url, open_store, said)
    following = asyncio.create_task(one.follow(stop))
    try:
        await until(lambda: len(said) >= 2)
        assert said[0] == "waiting: the store is away"
        assert said[1].startswith(f"waiting: {server.url}: ")
        await server.start()
        await until(lambda: any("stream not found" in line for line in said))
        js = await begin(server.url)
        await until(lambda: (folder / CHECKPOINT).exists())
        await server.kill()
        await server.start()
        await js.connection.until_connected()
        await js.publish("initiator.reject.a.keygen.3.rejected", b"{}")
        await until(lambda: one.sequence == 3)
        stop.set()
        await asyncio.wait_for(following, 30)
        await js.connection.close()
    finally:
        following.cancel()
        await one.close()
        await server.kill()
    assert (one.size, one.sequence) == (3, 3)
    assert said.count("waiting: the store is away") == 1  # it is said where it is news


async def test_an_export_that_nobody_heard_of_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TRY_AGAIN_S", 0.01)
    async with restartable_server(tmp_path) as server:
        js = await begin(server.url)
        for heard in (False, True):
            one = service_of(server.url, lambda: FileStore.open_for_writing(tmp_path / "log"), [])
            try:
                if heard:
                    form = {"name": subjects.EXPORTED_STREAM, "subjects": ["initiator.exported.>"]}
                    await js.api(f"STREAM.CREATE.{subjects.EXPORTED_STREAM}", form)
                    await one.once()
                else:
                    with pytest.raises(RetryError, match="the log is written, and the daemons were not told"):
                        await one.once()
                assert (tmp_path / "log" / CHECKPOINT).exists()
            finally:
                await one.close()
        assert await js.last(subjects.EXPORTED_STREAM, subjects.exported("max")) is not None
        await js.connection.close()


def only(password: str) -> str:
    return f"authorization {{ users: [ {{ user: max, password: {password} }} ] }}\n"


async def test_a_login_that_was_changed_is_read_again_and_one_that_was_revoked_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "POLL_S", 0.05)
    monkeypatch.setattr(service, "REOPEN_S", 0.3)
    server, said, password = RestartableServer(tmp_path, only("one")), list[str](), tmp_path / "password"
    password.write_text("one")
    login = {"user": "max", "password_file": str(password)}
    settings = settings_for(server.url, nats=login)
    one = Service(settings, lambda: FileStore.open_for_writing(tmp_path / "log"), KEY, ORIGIN, said.append)

    async def change(to: str) -> None:
        await server.kill()
        config = tmp_path / "nats.conf"
        before = next(line for line in config.read_text().splitlines() if line.startswith("authorization"))
        config.write_text(config.read_text().replace(before, only(to).strip()))
        await server.start()

    await server.start()
    following = asyncio.create_task(one.follow(asyncio.Event()))
    try:
        own = {"servers": [server.url], "user": "max"}
        js = JetStream(await connected(NatsSettings.model_validate(own | {"password": "one"}, strict=False)))
        await js.api("STREAM.CREATE.INITIATOR_EVENTS", {"name": "INITIATOR_EVENTS", "subjects": ["initiator.reject.>"]})
        await js.publish("initiator.reject.a.keygen.1.rejected", b"{}")
        await js.connection.close()
        async with asyncio.timeout(60):
            while one.size < 1:
                await asyncio.sleep(0.02)
        password.write_text("two")
        await change("two")
        js = JetStream(await connected(NatsSettings.model_validate(own | {"password": "two"}, strict=False)))
        await js.publish("initiator.reject.a.keygen.2.rejected", b"{}")
        await js.connection.close()
        async with asyncio.timeout(60):
            while one.size < 2:
                await asyncio.sleep(0.02)
        await change("three")
        with pytest.raises(HaltError) as refused:
            await asyncio.wait_for(following, 60)
        assert refused.value.code is Code.BUS_DENIED
    finally:
        following.cancel()
        await one.close()
        await server.kill()
