"""A record with a bit of everything in it, exported as a log."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit.checks import Auditor, Report
from initiator.audit.exporter import Exporter
from initiator.audit.reading import LogReader
from initiator.audit.store import FileStore
from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.core.signer import PublicKey
from initiator.core.tlog import Checkpoint, LogKey
from tests.support.governed import KEYGEN, Governed, keys_of, name, signature, soon
from tests.support.harness import Bench, ScriptedSigner, bench, daemon, running, settings_for, sign_request

ORIGIN = "audit.example.com/initiator"


@dataclass
class Place:
    """A record, and the folder of its log."""

    server: Bench
    js: JetStream
    folder: Path
    key: Ed25519PrivateKey
    initiator: PublicKey
    tx_id: str = ""

    @property
    def log_key(self) -> LogKey:
        return LogKey(ORIGIN, self.key.public_key().public_bytes_raw())

    async def export(self) -> Exporter:
        """All that there is, by an exporter that begins anew."""
        store = FileStore.open_for_writing(self.folder)
        try:
            exporter = Exporter(self.js, store, self.key, ORIGIN)
            while await exporter.export():
                pass
            return exporter
        finally:
            store.close()

    def reader(self, folder: Path | None = None) -> LogReader:
        return LogReader(FileStore(folder or self.folder), self.log_key)

    def verify(self, since: Checkpoint | None = None, folder: Path | None = None) -> Report:
        return Auditor(self.reader(folder), [self.initiator], since).check()

    def copy(self, to: Path) -> Path:
        """The same log, to be tampered with."""
        shutil.copytree(self.folder, to)
        return to


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """Two wallets, a signature, a refusal, a failure that is opened again, a client that signs; then exported."""
    folder = tmp_path_factory.mktemp("audit")
    async with bench(tmp_path_factory.mktemp("nats")) as server:
        governed = Governed(server, folder)
        connection = Connection(NatsSettings(servers=(server.url,)), "audit-test")
        await connection.open()
        one = Place(
            server, JetStream(connection), folder / "log", Ed25519PrivateKey.generate(), governed.signer.public_key
        )
        governed.write([KEYGEN, {"id": "all", "effect": "allow"}], clients=keys_of("alice"))
        async with running(governed.app()):
            for wallet in ("w1", "w2"):
                await server.wallet(wallet)
            request = sign_request("w1")
            one.tx_id = request["tx_id"]
            await server.submit("sign", request)
            await server.until("sign", one.tx_id, "published")
            await server.answer("sign", one.tx_id, server.sign_success(request))
            await server.until("sign", one.tx_id, "completed")
            fields = soon(wallet_id=name("s"), labels={"ticket": "7"})
            await server.submit("keygen", fields, **signature(fields))
            await server.until("keygen", str(fields["wallet_id"]), "published")
            await server.rejection(await server.submit("keygen", {"wallet_id": "a b"}))
            await many(server, 90)
        await one.export()
        try:
            yield one
        finally:
            await connection.close()


async def many(server: Bench, count: int) -> None:
    """So many wallets, begun."""
    wallets = [name("m") for _ in range(count)]
    await asyncio.gather(*(server.submit("keygen", {"wallet_id": wallet}, "bob") for wallet in wallets))
    for wallet in wallets:
        await server.until("keygen", wallet, "published", timeout_s=30)


__all__ = ["ORIGIN", "Place", "ScriptedSigner", "daemon", "many", "settings_for"]
