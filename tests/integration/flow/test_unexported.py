"""Events wait for the audit's exporter: while the oldest has waited too long, nothing new is claimed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.app import App
from initiator.audit.exporter import Exporter
from initiator.audit.progress import Progress
from initiator.audit.store import FileStore
from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.errors import Code, RetryError
from initiator.flow import unexported
from initiator.flow.clock import SystemClock
from initiator.flow.unexported import Unexported
from initiator.health import Health
from initiator.metrics import Metrics
from tests.support.governed import name
from tests.support.harness import Bench, ScriptedSigner, running, settings_for, source

LAG_S = 1.0


@pytest.fixture
def server(own_server: Bench) -> Bench:
    return own_server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unexported, "LOOK_S", 0.1)


def app(server: Bench, **audit: Any) -> App:
    settings = settings_for(server.url, audit={"exporter": "max", "max_lag_s": LAG_S} | audit)
    return App(settings, source(ScriptedSigner()))


@pytest_asyncio.fixture
async def js(server: Bench) -> AsyncIterator[JetStream]:
    connection = Connection(NatsSettings(servers=(server.url,)), "audit-test")
    await connection.open()
    yield JetStream(connection)
    await connection.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.02)


async def unready(started: App) -> None:
    await until(lambda: not started.health.ready)


async def export(js: JetStream, folder: Path, key: Ed25519PrivateKey, exporter: str = "max") -> None:
    made = Exporter(js, FileStore(folder), key, "audit.example.com/initiator")
    while await made.export():
        pass
    await Progress(js, exporter).tell(made.sequence)


async def test_nothing_is_claimed_until_the_exporter_has_caught_up(
    server: Bench, js: JetStream, tmp_path: Path
) -> None:
    key, first, second, third = Ed25519PrivateKey.generate(), name("w"), name("w"), name("w")
    async with running(app(server)) as started:
        await server.submit("keygen", {"wallet_id": first})
        await server.until("keygen", first, "published")
        await unready(started)
        part = next(one for one in started.health.snapshot() if one.name == "audit")
        assert (part.ok, part.code) == (False, Code.AUDIT_BEHIND)
        await server.submit("keygen", {"wallet_id": second})
        # what is in flight goes on to its end
        await server.answer("keygen", first, server.keygen_success(first))
        await server.until("keygen", first, "completed")
        await asyncio.sleep(0.5)
        assert server.states("keygen", second) == []
        await export(js, tmp_path / "other", key, exporter="other")  # not the one that counts
        await asyncio.sleep(0.5)
        assert server.states("keygen", second) == []
        await export(js, tmp_path / "log", key)
        await server.until("keygen", second, "published")
        # and what came since waits again, however much was exported before
        await unready(started)
        await server.submit("keygen", {"wallet_id": third})
        await asyncio.sleep(0.5)
        assert server.states("keygen", third) == []


async def test_where_nobody_is_expected_nobody_is_waited_for(server: Bench) -> None:
    async with running(app(server, exporter=None)):
        for wallet in (name("w"), name("w")):
            await server.submit("keygen", {"wallet_id": wallet})
            await server.until("keygen", wallet, "published")
            await asyncio.sleep(LAG_S + 0.3)
    assert "INITIATOR_EXPORTED" not in [info.config.name for info in await server.js.streams_info()]


RUBBISH = [
    b"rubbish", b'{"sequence": true}', b'{"sequence": -1}', b'{"sequence": "9"}', b"[]",
    b'{"sequence": 1000000000000000000000000000000}',
]  # fmt: skip


@pytest.mark.parametrize("said", RUBBISH)
async def test_what_no_exporter_says_counts_for_nothing(server: Bench, js: JetStream, said: bytes) -> None:
    wallet = name("w")
    async with running(app(server)) as started:
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        await js.publish("initiator.exported.max", said)
        await unready(started)


async def test_a_word_about_what_is_not_on_record_ages(server: Bench, js: JetStream) -> None:
    """A record that was set back behind the log: its exporter halts, and what comes is in no log."""
    async with running(app(server)) as started:
        await js.publish("initiator.exported.max", b'{"sequence": 1000000}')
        await unready(started)


class Hands(SystemClock):
    """A clock that a test can put forward."""

    ahead_s, looks = 0.0, 0

    def now(self) -> float:
        return super().now() + self.ahead_s

    async def sleep(self, seconds: float) -> None:
        self.looks += 1
        await super().sleep(seconds)

    async def later(self, ahead_s: float) -> None:
        """Until it was looked that much later."""
        self.ahead_s, before = ahead_s, self.looks
        await until(lambda: self.looks >= before + 2)


async def test_what_cannot_be_seen_is_taken_for_too_old(js: JetStream) -> None:
    """Before anything is known, and once nobody could look for as long as an event may wait."""
    clock = Hands()
    gate = Unexported(js, "max", 3600.0, Health(()), Metrics(), clock)
    looking = asyncio.create_task(gate.run())
    try:
        await clock.later(0.0)  # there are no streams
        with pytest.raises(RetryError, match="nobody knows yet"):
            gate.check()
        await js.api("STREAM.CREATE.INITIATOR_EVENTS", {"name": "INITIATOR_EVENTS", "subjects": ["initiator.event.>"]})
        form = {"name": "INITIATOR_EXPORTED", "subjects": ["initiator.exported.>"]}
        await js.api("STREAM.CREATE.INITIATOR_EXPORTED", form)
        await js.publish("initiator.event.a.keygen.w.accepted", b"{}")
        await Progress(js, "max").tell(1)
        await clock.later(0.0)
        gate.check()
        await js.api("STREAM.DELETE.INITIATOR_EXPORTED")
        await clock.later(1800.0)
        gate.check()
        await clock.later(3700.0)
        with pytest.raises(RetryError, match="or may have: no new id is claimed above 3600 s"):
            gate.check()
    finally:
        looking.cancel()
