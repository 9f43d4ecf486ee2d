"""What the exporter goes on from, and what it does not: records set back, forged edges, links that are slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit.checks import Auditor
from initiator.audit.exporter import Exporter
from initiator.audit.reading import LogReader, pack
from initiator.audit.store import CHECKPOINT, FileStore
from initiator.bus.connection import Connection
from initiator.bus.errors import NotFoundError, unknown_outcome
from initiator.bus.jetstream import JetStream, Stored
from initiator.config.schema import NatsSettings
from initiator.core import tlog, trail
from initiator.core.orders import ALL, Freeze, Orders
from initiator.core.tlog import LogKey
from initiator.core.trail import Gap
from initiator.errors import HaltError, RejectError
from initiator.orders import OrderBook
from tests.integration.audit.conftest import ORIGIN
from tests.support.harness import bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEY = Ed25519PrivateKey.generate()
LOG_KEY = LogKey(ORIGIN, KEY.public_key().public_bytes_raw())


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def connection(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Connection]:
    async with bench(tmp_path_factory.mktemp("exporting")) as server:
        one = Connection(NatsSettings(servers=(server.url,)), "audit-test")
        await one.open()
        yield one
        await one.close()


@pytest.fixture
def js(connection: Connection) -> JetStream:
    return JetStream(connection)


async def begin(js: JetStream, count: int, **form: Any) -> None:
    """A record with so many messages, in the place of the one before."""
    with contextlib.suppress(NotFoundError):
        await js.api("STREAM.DELETE.INITIATOR_EVENTS")
    usual = {"name": "INITIATOR_EVENTS", "subjects": ["initiator.reject.>"]}
    await js.api("STREAM.CREATE.INITIATOR_EVENTS", usual | form)
    await add(js, count)


async def add(js: JetStream, count: int) -> None:
    for _ in range(count):
        await js.publish("initiator.reject.a.keygen.1.rejected", b"{}")


def exporter_of(js: JetStream, folder: Path) -> Exporter:
    return Exporter(js, FileStore(folder), KEY, ORIGIN)


@pytest.mark.parametrize("kept", [0, 3, 5, 8])
async def test_a_record_that_was_set_back_is_not_gone_on_with(kept: int, js: JetStream, tmp_path: Path) -> None:
    """Restored from a backup it has forgotten some, and gives their numbers to others: before and after it does."""
    await begin(js, 5)
    exporter = exporter_of(js, tmp_path)
    assert await exporter.export() == 5
    before = (tmp_path / CHECKPOINT).read_bytes()
    await begin(js, kept)
    expected = "its message 5 is another one" if kept >= 5 else f"it ends at {kept}, the log at 5"
    for one in (exporter, exporter_of(js, tmp_path)):  # whoever has seen the other record itself, and who has not
        with pytest.raises(HaltError, match=f"this log is not of this record: {expected}"):
            await one.export()
    assert (tmp_path / CHECKPOINT).read_bytes() == before


async def test_a_record_that_is_set_back_in_the_middle_of_an_export_is_not_gone_on_with(
    js: JetStream, connection: Connection, tmp_path: Path
) -> None:
    class SetBack(JetStream):
        """It is another record once the tenth message was read."""

        async def get(self, stream: str, sequence: int) -> Stored | None:
            found = await super().get(stream, sequence)
            if sequence == 10 and not done:
                done.append(True)
                await begin(js, 40)
            return found

    done: list[bool] = []
    await begin(js, 40)
    with pytest.raises(HaltError, match="is another one"):
        await exporter_of(SetBack(connection), tmp_path).export()
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize("size", [255, 256])
async def test_a_forged_last_entry_is_not_gone_on_from(size: int, js: JetStream, tmp_path: Path) -> None:
    """It would have the next one pass over what is on record; also where it is the last one of a full bundle."""
    await begin(js, size)
    await exporter_of(js, tmp_path).export()
    entries = list(LogReader(FileStore(tmp_path), LOG_KEY).entries())
    forged = [*entries[:-1], trail.encode(Gap(size, size + 1000))]
    (tmp_path / tlog.tile_path("entries", 0, size)).write_bytes(pack(forged))
    with pytest.raises(RejectError, match="its last entries are not those of its tiles"):
        exporter_of(js, tmp_path)


async def test_a_full_bundle_is_gone_on_from(js: JetStream, tmp_path: Path) -> None:
    await begin(js, 256)
    await exporter_of(js, tmp_path).export()
    await add(js, 3)
    assert await exporter_of(js, tmp_path).export() == 3
    assert len(list(LogReader(FileStore(tmp_path), LOG_KEY).entries())) == 259


async def test_over_a_slow_link_fewer_are_asked_for_at_once(
    js: JetStream, connection: Connection, tmp_path: Path
) -> None:
    class Slow(JetStream):
        """Whatever is asked for beside four others comes too late."""

        under_way = 0

        async def get(self, stream: str, sequence: int) -> Stored | None:
            self.under_way += 1
            late = self.under_way > 5
            try:
                await asyncio.sleep(0)
                if late:
                    raise unknown_outcome("no answer in time")
                return await super().get(stream, sequence)
            finally:
                self.under_way -= 1

    await begin(js, 100)
    assert await exporter_of(Slow(connection), tmp_path).export() == 100


async def test_a_log_that_grows_while_it_is_read_is_read_as_it_was(js: JetStream, tmp_path: Path) -> None:
    """What is not full is gone after the next checkpoint: before its reader has opened it, and after."""

    class Growing(FileStore):
        reads = 0

        def read(self, name: str) -> bytes | None:
            self.reads += 1
            if self.reads == 2:  # it has the checkpoint, and not yet what this commits to
                grow()
            return super().read(name)

    await begin(js, 12)
    loop, exporter = asyncio.get_running_loop(), exporter_of(js, tmp_path)
    await exporter.export()

    async def one_more() -> None:
        await add(js, 1)
        await exporter.export()

    def grow() -> None:
        asyncio.run_coroutine_threadsafe(one_more(), loop).result(30)

    reader = await asyncio.to_thread(LogReader, Growing(tmp_path), LOG_KEY)
    assert reader.checkpoint.size == 13
    await one_more()
    assert tlog.root_of(reader.entries()) == reader.checkpoint.root
    assert tlog.Frontier.of(13, reader.hashes).root == reader.checkpoint.root


@pytest.mark.parametrize("removed", [False, True])
async def test_an_operators_order_is_missed_by_the_next_one(removed: bool, js: JetStream, tmp_path: Path) -> None:
    await begin(js, 0, subjects=["initiator.control.>"], allow_msg_ttl=True)
    for reason in ("one", "two", "three"):
        freeze = Freeze(scope=ALL, by="ann", at=0.0, reason=reason)
        await OrderBook(js).change(lambda _seen, freeze=freeze: (Orders(freezes=(freeze,)), {"change": "frozen"}))  # type: ignore[misc]
    if removed:
        await js.delete("INITIATOR_EVENTS", 2)
    await exporter_of(js, tmp_path).export()
    report = Auditor(LogReader(FileStore(tmp_path), LOG_KEY)).check()
    found = ["names the event at 2, which is not in the log"] if removed else []
    assert [finding.what for finding in report.findings] == found
    assert report.counts["not named yet by a later event"] == (2 if removed else 1)
