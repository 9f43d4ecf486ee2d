"""`initiator audit`: what it is given must be what it is taken for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit.reading import pack
from initiator.audit.store import CHECKPOINT, FileStore
from initiator.cli.audit import audit
from initiator.core import tlog, trail
from initiator.core.tlog import Checkpoint, LogKey, sign_checkpoint
from initiator.core.trail import Gap

ORIGIN, KEY = "audit.example.com/initiator", Ed25519PrivateKey.generate()
VKEY = LogKey(ORIGIN, KEY.public_key().public_bytes_raw()).text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A log of one entry, which says that something is gone."""
    entry = trail.encode(Gap(1, 1))
    store = FileStore(tmp_path / "log")
    store.write({tlog.tile_path("entries", 0, 1): pack([entry]), tlog.tile_path(0, 0, 1): tlog.leaf_hash(entry)})
    store.commit(sign_checkpoint(Checkpoint(ORIGIN, 1, tlog.leaf_hash(entry)), KEY))
    return tmp_path / "log"


def run(*words: object) -> Result:
    return CliRunner().invoke(audit, [str(word) for word in words])


def test_whether_signatures_were_verified_is_said(place: Path) -> None:
    initiator = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    for more, verified in (((), False), (("--initiator-key", initiator, "--algorithm", "ed25519"), True)):
        done = run("verify", place, "--key", VKEY, "--json", *more)
        assert (done.exit_code, json.loads(done.stdout)["signatures_verified"]) == (0, verified)
        told = "signatures were not verified" in run("verify", place, "--key", VKEY, *more).stdout
        assert told is not verified


def test_an_older_checkpoint_is_a_copy_of_the_logs(place: Path, tmp_path: Path) -> None:
    assert run("verify", place, "--key", VKEY, "--since", place / CHECKPOINT).exit_code == 0
    wrong = tmp_path / "report.json"
    wrong.write_text("{}")
    done = run("verify", place, "--key", VKEY, "--since", wrong)
    assert done.exit_code == 1
    assert "FAIL --since: expected a copy of LOG/checkpoint as it was before" in done.stdout


@pytest.mark.parametrize("wrong", ["s3:bucket/log", "s3:/bucket/log", "S3://bucket/log"])
def test_what_looks_like_s3_is_no_folder(wrong: str) -> None:
    done = run("verify", wrong, "--key", VKEY)
    assert done.exit_code == 2
    assert "expected a folder, or s3://BUCKET/PREFIX" in done.stderr


def test_reconcile_wants_files_that_are_here(place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given, said in (("s3://trail/AWSLogs", "`aws s3 sync` fetches them"), (tmp_path / "empty", "without any")):
        done = run("reconcile", place, given, "--key", VKEY)
        assert (done.exit_code, said in done.stderr) == (2, True)


def test_reconcile_of_nothing_is_not_ok(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "trail.json"
    file.write_text('{"Records": []}')
    done = run("reconcile", place, file, "--key", VKEY)
    assert done.exit_code == 1
    assert "nothing was compared: no call of Sign in the files\nNOT ok: 0 on both sides" in done.stdout
    said = json.loads(run("reconcile", place, file, "--key", VKEY, "--json").stdout)
    assert (said["ok"], said["nothing"]) == (False, "no call of Sign in the files")
