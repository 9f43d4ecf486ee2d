"""Whatever is changed, removed, inserted, reordered, cut short or forked is found, also of one with the audit key."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit import proofs
from initiator.audit.reading import LogReader, pack
from initiator.audit.store import CHECKPOINT
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.core import tlog, trail
from initiator.core.chain import HEADER
from initiator.core.model import Operation
from initiator.core.tlog import Checkpoint
from initiator.core.trail import Gap
from initiator.errors import RejectError
from tests.integration.audit.conftest import ORIGIN, Place, many
from tests.support.governed import Governed
from tests.support.harness import Bench, bench, daemon, settings_for
from tests.support.nats_cluster import connected

pytestmark = pytest.mark.asyncio(loop_scope="module")


def entries_of(folder: Path, reader: LogReader) -> list[bytes]:
    return list(reader.entries())


def put_back(folder: Path, entries: list[bytes], size: int | None = None) -> None:
    """Entries in the place of those that were there; tiles and checkpoint stay."""
    size = len(entries) if size is None else size
    for number in range(-(-size // 256)):
        part = entries[number * 256 : (number + 1) * 256]
        (folder / tlog.tile_path("entries", number, min(256, size - number * 256))).write_bytes(pack(part))


def resign(folder: Path, entries: list[bytes], key: Ed25519PrivateKey) -> None:
    """The whole log made anew by somebody who has the audit key: tiles, checkpoint and all."""
    for path in (folder / "tile").rglob("*"):
        if path.is_file():
            path.unlink()
    frontier, tiles = tlog.Frontier(), dict[tuple[int, int], bytearray]()
    for entry in entries:
        for level, number, made in frontier.append(tlog.leaf_hash(entry)):
            if level % 8 == 0:
                tiles.setdefault((level // 8, number // 256), bytearray()).extend(made)
    for (level, number), data in tiles.items():
        path = folder / tlog.tile_path(level, number, len(data) // 32)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for number in range(-(-len(entries) // 256)):
        (folder / tlog.tile_path("entries", number, min(256, len(entries) - number * 256))).parent.mkdir(
            parents=True, exist_ok=True
        )
    put_back(folder, entries)
    (folder / CHECKPOINT).write_bytes(tlog.sign_checkpoint(Checkpoint(ORIGIN, len(entries), frontier.root), key))


def whats(place: Place, folder: Path, since: Checkpoint | None = None) -> list[str]:
    try:
        return [str(one) for one in place.verify(since, folder).findings]
    except RejectError as error:
        return [error.reason]


async def test_a_changed_byte_of_an_entry_is_found(place: Place, tmp_path: Path) -> None:
    folder = place.copy(tmp_path / "log")
    path = folder / "tile/entries/000"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    found = whats(place, folder)
    assert any("changed: the entries do not give the root" in one for one in found)
    assert any(re.search(r"tile/0/000: hash \d+ is not that of the entries below it", one) for one in found)


@pytest.mark.parametrize("piece", ["tile/0/000", "tile/1/000.p/1"])
async def test_a_changed_byte_of_a_tile_is_found(place: Place, tmp_path: Path, piece: str) -> None:
    folder = place.copy(tmp_path / "log")
    data = bytearray((folder / piece).read_bytes())
    data[7] ^= 1
    (folder / piece).write_bytes(data)
    assert any(one.startswith(f"{piece}: hash 0") for one in whats(place, folder))


async def test_a_changed_byte_of_the_checkpoint_is_found(place: Place, tmp_path: Path) -> None:
    folder = place.copy(tmp_path / "log")
    data = bytearray((folder / CHECKPOINT).read_bytes())
    data[len(ORIGIN) + 8] ^= 1
    (folder / CHECKPOINT).write_bytes(data)
    assert whats(place, folder)


@pytest.mark.parametrize("piece", ["checkpoint", "tile/entries/000", "tile/0/000"])
async def test_a_missing_piece_is_found(place: Place, tmp_path: Path, piece: str) -> None:
    folder = place.copy(tmp_path / "log")
    (folder / piece).unlink()
    assert any("missing" in one or "no log" in one for one in whats(place, folder))


Tamper = Callable[[list[bytes]], list[bytes]]
REMOVE: Tamper = lambda entries: entries[:40] + entries[41:]  # noqa: E731
SWAP: Tamper = lambda entries: [*entries[:40], entries[41], entries[40], *entries[42:]]  # noqa: E731
INSERT: Tamper = lambda entries: [*entries[:40], entries[39], *entries[40:]]  # noqa: E731


@pytest.mark.parametrize("tamper", [REMOVE, SWAP, INSERT], ids=["removed", "reordered", "inserted"])
async def test_entries_that_are_moved_about_are_found(place: Place, tmp_path: Path, tamper: Tamper) -> None:
    folder = place.copy(tmp_path / "log")
    size = place.reader().checkpoint.size
    put_back(folder, [*tamper(entries_of(folder, place.reader())), b"{}"][:size], size)
    assert any("root" in one for one in whats(place, folder))


@pytest.mark.parametrize("tamper", [REMOVE, SWAP, INSERT], ids=["removed", "reordered", "inserted"])
async def test_even_who_has_the_audit_key_cannot_move_them_about(place: Place, tmp_path: Path, tamper: Tamper) -> None:
    """The sequences of the stream say so, and a checkpoint that somebody kept."""
    folder = place.copy(tmp_path / "log")
    resign(folder, tamper(entries_of(folder, place.reader())), place.key)
    assert any("expected sequence" in one for one in whats(place, folder))
    assert any("forked" in one or "truncated" in one for one in whats(place, folder, place.reader().checkpoint))


async def test_who_has_the_audit_key_and_calls_it_a_gap_is_found_by_the_chain(place: Place, tmp_path: Path) -> None:
    folder = place.copy(tmp_path / "log")
    entries = entries_of(folder, place.reader())
    gone = trail.decode(entries[40], lambda _: None)
    assert not isinstance(gone, Gap)
    entries[40] = trail.encode(Gap(gone.sequence, gone.sequence))
    resign(folder, entries, place.key)
    found = whats(place, folder)
    assert any(f"names the event at {gone.sequence}, which is not in the log" in one for one in found)


async def test_a_truncated_log_is_found_by_an_older_checkpoint(place: Place, tmp_path: Path) -> None:
    folder = place.copy(tmp_path / "log")
    resign(folder, entries_of(folder, place.reader())[:100], place.key)
    found = whats(place, folder, place.reader().checkpoint)
    assert any("truncated: an older checkpoint has" in one for one in found)


async def test_a_forked_log_is_found_by_a_checkpoint_of_the_same_size(place: Place, tmp_path: Path) -> None:
    folder = place.copy(tmp_path / "log")
    entries = entries_of(folder, place.reader())
    changed = trail.decode(entries[-1], lambda _: None)
    assert not isinstance(changed, Gap)
    entries[-1] = trail.encode(Gap(changed.sequence, changed.sequence))
    resign(folder, entries, place.key)
    assert any("forked" in one for one in whats(place, folder, place.reader().checkpoint))


async def test_a_forged_signature_is_found_whoever_signs_the_log(place: Place, tmp_path: Path) -> None:
    """An event that the daemon never signed, in a log that is whole otherwise."""
    folder = place.copy(tmp_path / "log")
    entries = entries_of(folder, place.reader())
    index, entry = next(
        (index, one)
        for index, raw in enumerate(entries)
        if not isinstance(one := trail.decode(raw, lambda _: None), Gap) and one.subject.endswith("w1.signed.sealed")
    )
    forged = entry.data.replace(b'"wallet_id":"w1"', b'"wallet_id":"w9"')
    assert forged != entry.data
    fields = {name: getattr(entry, name) for name in ("sequence", "stored_at", "subject", "content_type", "chain")}
    entries[index] = trail.encode(trail.Recorded(**fields, data=forged))
    resign(folder, entries, place.key)
    found = whats(place, folder)
    assert any(f"entry {index}" in one and "does not verify under the initiator's key" in one for one in found)
    assert any("names another event than the one that the log has" in one for one in found)


async def test_a_stream_that_is_made_anew_without_one_event_is_found(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The stream takes no deletes, so somebody who rules NATS makes another one before it is exported."""
    async with bench(tmp_path_factory.mktemp("removed")) as server:
        governed = Governed(server, tmp_path)
        js = JetStream(await connected(NatsSettings(servers=(server.url,))))
        key = Ed25519PrivateKey.generate()
        one = Place(server, js, tmp_path / "log", key, governed.signer.public_key)
        async with daemon(settings_for(server.url), governed.signer):
            await many(server, 10)
        await make_anew_without(server, sequence=12)
        await one.export()
        report = one.verify()
        await js.connection.close()
    assert report.counts["sequences that were gone before they were exported"] == 1
    assert any("names the event at 12, which is not in the log" in finding.what for finding in report.findings)


async def make_anew_without(server: Bench, sequence: int) -> None:
    last = (await server.js.stream_info("INITIATOR_EVENTS")).state.last_seq
    kept = [await server.js.get_msg("INITIATOR_EVENTS", number) for number in range(1, last + 1)]
    await server.js.delete_stream("INITIATOR_EVENTS")
    await server.js.add_stream(name="INITIATOR_EVENTS", subjects=["initiator.event.>", "initiator.reject.>"])
    for message in kept:
        headers = {name: value for name, value in (message.headers or {}).items() if name in ("Content-Type", HEADER)}
        await server.js.publish(message.subject or "", message.data or b"", headers=headers)
    await server.js.delete_msg("INITIATOR_EVENTS", sequence)


async def test_a_proof_is_not_made_of_a_log_that_was_changed(place: Place, tmp_path: Path) -> None:
    """Whatever of an operation was changed would be left out of it."""
    folder = place.copy(tmp_path / "log")
    entries = entries_of(folder, place.reader(folder))
    index = next(i for i, raw in enumerate(entries) if f".sign.{place.tx_id}.".encode() in raw)
    entries[index] = entries[index].replace(f".sign.{place.tx_id}.".encode(), f".sign.{place.tx_id[:-1]}~.".encode())
    put_back(folder, entries)
    with pytest.raises(RejectError, match="not those that its checkpoint signs"):
        proofs.prove(place.reader(folder), Operation.SIGN, place.tx_id)
