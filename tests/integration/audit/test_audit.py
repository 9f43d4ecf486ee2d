"""The record as a log: whole, resumable, provable; and whatever is tampered with is found, with its place."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit import proofs
from initiator.audit.checks import Auditor
from initiator.audit.exporter import Exporter
from initiator.audit.store import CHECKPOINT, FileStore
from initiator.core import tlog
from initiator.core.chain import MOST_NAMES
from initiator.core.model import Operation
from initiator.core.tlog import LogKey, format_signer_key
from initiator.errors import HaltError, RejectError
from tests.integration.audit.conftest import ORIGIN, Place, many
from tests.support import command
from tests.support.environment import environment
from tests.support.governed import KEYGEN, Governed
from tests.support.harness import running
from tests.support.pages import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_export_holds_the_whole_record_and_verifies(place: Place) -> None:
    report = place.verify()
    assert report.findings == []
    state = (await place.server.js.stream_info("INITIATOR_EVENTS")).state
    assert report.counts["messages"] == state.messages
    assert report.counts["signatures"] >= 94
    assert report.counts["requesters' signatures"] == 1
    assert report.size > 256  # more than one tile
    # all but what was acknowledged last are named by a later event
    assert report.counts["not named yet by a later event"] <= MOST_NAMES


async def test_nothing_new_changes_nothing(place: Place) -> None:
    before = (place.folder / CHECKPOINT).read_bytes()
    exporter = await place.export()
    assert (place.folder / CHECKPOINT).read_bytes() == before
    assert exporter.size == place.reader().checkpoint.size


async def test_what_comes_later_is_appended_and_consistent_with_what_was(place: Place, tmp_path: Path) -> None:
    older = place.reader().checkpoint
    governed = Governed(place.server, tmp_path)
    governed.write([KEYGEN])
    async with running(governed.app()):
        await many(place.server, 5)
    await place.export()
    report = place.verify(since=older)
    # the second daemon of this record has a key of its own: that is told, and nothing else
    assert {one.what for one in report.findings} == {"it names another key than the initiator's"}
    keys = [place.initiator, governed.signer.public_key]
    assert Auditor(place.reader(), keys, older).check().ok
    assert report.size >= older.size + 15
    reader = place.reader()
    proof = tlog.prove_consistency(older.size, reader.checkpoint.size, reader.hashes)
    assert tlog.verify_consistency(older.size, older.root, reader.checkpoint.size, reader.checkpoint.root, proof)
    assert Auditor(reader).check().ok


async def test_an_exporter_that_is_killed_at_any_time_is_gone_on_from(place: Place, tmp_path: Path) -> None:
    """One that dies after each piece that it writes; the next one goes on, and the log is the same in the end."""

    class Death(BaseException):
        pass

    class Dying(FileStore):
        left = 0

        def _put(self, name: str, data: bytes) -> None:
            if type(self).left == 0:
                raise Death
            type(self).left -= 1
            super()._put(name, data)

    folder, deaths, done = tmp_path / "log", 0, False
    while not done:
        store = Dying(folder)
        Dying.left = 1 + deaths % 7
        try:
            exporter = Exporter(place.js, store, place.key, ORIGIN)
            while await exporter.export():
                pass
            done = True
        except Death:
            deaths += 1
            assert deaths < 200
            if (folder / CHECKPOINT).exists():
                assert not [one for one in place.verify(folder=folder).findings if "initiator" not in one.what]
    assert deaths > 2
    await place.export()
    assert place.reader(folder).checkpoint == place.reader().checkpoint


async def test_one_log_has_one_writer(place: Place) -> None:
    store = FileStore.open_for_writing(place.folder)
    try:
        with pytest.raises(HaltError, match="another exporter writes there"):
            FileStore.open_for_writing(place.folder)
    finally:
        store.close()


async def test_another_key_does_not_go_on_with_a_log(place: Place) -> None:
    with pytest.raises(RejectError, match="no signature of"):
        Exporter(place.js, FileStore(place.folder), Ed25519PrivateKey.generate(), ORIGIN)


# --- proofs


async def test_an_operation_is_proved_to_whoever_has_the_logs_key_alone(place: Place) -> None:
    text = proofs.prove(place.reader(), Operation.SIGN, place.tx_id)
    proven = proofs.check(text, place.log_key)
    assert [one.subject.split(".", 5)[5] for _, one in proven.entries] == [
        "accepted", "signed.sealed", "published", "completed"
    ]  # fmt: skip
    assert proven.checkpoint == place.reader().checkpoint


async def test_a_stranger_verifies_a_proof_with_a_page_of_python(place: Place, tmp_path: Path) -> None:
    script, proof = ROOT / "docs" / "examples" / "check_proof.py", tmp_path / "proof.json"
    assert len(script.read_text().splitlines()) <= 80

    async def check(text: str, *words: str) -> subprocess.CompletedProcess[str]:
        proof.write_text(text)
        line = [sys.executable, "-I", str(script), *(words or (str(proof), place.log_key.text))]
        return await asyncio.to_thread(subprocess.run, line, capture_output=True, text=True, timeout=30, check=False)

    text = proofs.prove(place.reader(), Operation.SIGN, place.tx_id)
    shown = await check(text)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("is entry") == 4
    fields = json.loads(text)
    fields["entries"][0]["entry"] = fields["entries"][1]["entry"]
    assert (await check(json.dumps(fields))).returncode != 0
    helped = await check(text, str(proof))
    assert (helped.returncode, helped.stderr.splitlines()[0]) == (1, "usage: python check_proof.py PROOF.json VKEY")


async def test_a_proof_that_is_changed_proves_nothing(place: Place) -> None:
    text = proofs.prove(place.reader(), Operation.KEYGEN, "w1")
    fields = json.loads(text)
    other = json.loads(proofs.prove(place.reader(), Operation.KEYGEN, "w2"))
    broken = [
        json.dumps(fields | {"id": "w2"}),
        json.dumps(fields | {"entries": [fields["entries"][0] | {"entry": other["entries"][0]["entry"]}]}),
        json.dumps(fields | {"entries": []}),
        text.replace("index ", "index 1"),
        "{}",
        "rubbish",
    ]
    for one in broken:
        with pytest.raises(RejectError):
            proofs.check(one, place.log_key)
    with pytest.raises(RejectError):
        proofs.check(text, LogKey(ORIGIN, Ed25519PrivateKey.generate().public_key().public_bytes_raw()))


async def test_what_is_not_in_the_log_is_not_proved(place: Place) -> None:
    with pytest.raises(RejectError, match="the log has nothing of"):
        proofs.prove(place.reader(), Operation.SIGN, "nobody")


# --- the commands


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return command.run(*arguments)


async def test_from_a_key_to_a_proof_by_commands(place: Place, tmp_path: Path) -> None:
    config = tmp_path / "initiator.yaml"
    config.write_text(json.dumps({"nats": {"servers": [place.server.url]}}))
    key_file, folder, proof = tmp_path / "audit.key", tmp_path / "log", tmp_path / "proof.json"
    made = await asyncio.to_thread(run, "audit", "key", str(key_file), "--name", "example.com/log")
    vkey = made.stdout.strip()
    assert (made.returncode, key_file.stat().st_mode & 0o777) == (0, 0o600)
    exported = await asyncio.to_thread(
        run, "--config", str(config), "audit", "export", str(folder), "--key-file", str(key_file)
    )
    assert exported.returncode == 0, exported.stderr
    assert re.search(r"^\d+ entries, up to sequence \d+ of the record$", exported.stdout, re.MULTILINE)
    verified = await asyncio.to_thread(run, "audit", "verify", str(folder), "--key", vkey)
    assert verified.returncode == 0, verified.stdout
    assert "signatures were not verified: that needs --initiator-key" in verified.stdout
    proved = await asyncio.to_thread(run, "audit", "prove", str(folder), "keygen", "w1", "--key", vkey)
    proof.write_text(proved.stdout)
    checked = await asyncio.to_thread(run, "audit", "check-proof", str(proof), "--key", vkey)
    assert checked.returncode == 0, checked.stdout
    assert "initiator.event.alice.keygen.w1.completed" in checked.stdout
    entries = folder / "tile/entries/000"
    data = bytearray(entries.read_bytes())
    data[100] ^= 1
    entries.write_bytes(data)
    broken = await asyncio.to_thread(run, "audit", "verify", str(folder), "--key", vkey, "--json")
    assert broken.returncode == 1
    assert any("tile/0/000: hash 0" in one["what"] for one in json.loads(broken.stdout)["findings"])


async def test_it_follows_until_it_is_told_to_stop(place: Place, tmp_path: Path) -> None:
    config, key_file, folder = tmp_path / "initiator.yaml", tmp_path / "audit.key", tmp_path / "log"
    config.write_text(json.dumps({"nats": {"servers": [place.server.url]}, "log": {"format": "json"}}))
    key_file.touch(mode=0o600)
    key_file.write_text(format_signer_key(ORIGIN, place.key))
    command = [sys.executable, "-m", "initiator", "--config", str(config), "audit", "export", str(folder)]
    child = await asyncio.create_subprocess_exec(
        *command, "--key-file", str(key_file), "--follow", stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, env=environment(),
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            while not (folder / CHECKPOINT).exists():
                await asyncio.sleep(0.05)
            before = place.reader(folder).checkpoint.size
            await place.server.js.publish("initiator.reject.alice.keygen.999999.rejected", b"{}")
            while place.reader(folder).checkpoint.size == before:
                await asyncio.sleep(0.05)
    finally:
        os.kill(child.pid, signal.SIGTERM)
        output, _ = await child.communicate()
    assert child.returncode == 0
    assert b"entries, up to sequence" in output


async def test_the_initiators_own_key_signs_no_log(place: Place, tmp_path: Path) -> None:
    config, key_file = tmp_path / "initiator.yaml", tmp_path / "audit.key"
    public = place.key.public_key().public_bytes_raw().hex()
    config.write_text(
        json.dumps({"nats": {"servers": [place.server.url]}, "mpcium": {"event_initiator_pubkey": public}})
    )
    key_file.touch(mode=0o600)
    key_file.write_text(format_signer_key(ORIGIN, place.key))
    done = await asyncio.to_thread(
        run, "--config", str(config), "audit", "export", str(tmp_path / "log"), "--key-file", str(key_file)
    )
    assert done.returncode != 0
    assert "expected another key than the event initiator's" in done.stderr
