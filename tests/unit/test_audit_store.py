"""A log in a folder: on a disk that has no more room, under a folder that is moved away, and who may read it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from initiator.audit import exporter
from initiator.audit.store import CHECKPOINT, FileStore
from initiator.errors import HaltError

_IN_A_FULL_FOLDER = """
import resource, sys
from pathlib import Path
from initiator.audit.store import FileStore
from initiator.errors import HaltError

resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    FileStore(Path(sys.argv[1])).write({"piece": b"x" * 1000})
except HaltError as error:
    print(error.code.value)
"""


def test_a_piece_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    """The system writes what fits and says how much that was, which is no error."""
    FileStore(tmp_path).write({"piece": b"before"})
    command = [sys.executable, "-c", _IN_A_FULL_FOLDER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "AUDIT_INVALID\n"
    assert FileStore(tmp_path).read("piece") == b"before"


@pytest.mark.parametrize("another", [True, False], ids=["replaced", "moved away"])
def test_in_the_place_of_a_folder_that_was_moved_away_nothing_is_written(tmp_path: Path, another: bool) -> None:
    folder, away = tmp_path / "log", tmp_path / "away"
    store = FileStore.open_for_writing(folder)
    store.write({"tile/0/000": b"before"})
    folder.rename(away)
    if another:
        FileStore.open_for_writing(folder).close()
    for write in (partial(store.write, {"tile/0/001": b""}), partial(store.commit, b""), partial(store.remove, ["x"])):
        with pytest.raises(HaltError, match="not the folder any more that the exporter has locked"):
            write()
    assert not folder.exists() or [path.name for path in folder.iterdir()] == [".lock"]
    if not another:
        away.rename(folder)
        store.commit(b"back again")
        assert store.read(CHECKPOINT) == b"back again"


def test_it_is_its_owners_alone_to_read(tmp_path: Path) -> None:
    store = FileStore.open_for_writing(tmp_path / "logs" / "log")
    store.write({"tile/entries/000": b"signed bytes"})
    store.commit(b"")
    made = list((tmp_path / "logs").rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in [tmp_path / "logs", *made] if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {0o600}


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    (tmp_path / "tile").mkdir()
    with pytest.raises(HaltError, match=f"{tmp_path}/tile: "):
        FileStore(tmp_path).remove(["nothing", "tile"])


def test_a_store_that_was_closed_writes_no_more(tmp_path: Path) -> None:
    """Another exporter may have taken it."""
    store = FileStore.open_for_writing(tmp_path)
    store.commit(b"old")
    store.close()
    with pytest.raises(HaltError, match="another exporter"):
        store.commit(b"older still")
    assert FileStore(tmp_path).read(CHECKPOINT) == b"old"


async def test_a_commit_that_is_under_way_is_waited_for_by_whoever_is_told_to_stop() -> None:
    done: list[str] = []

    def slow() -> None:
        time.sleep(0.3)
        done.append("written")

    writing = asyncio.create_task(exporter._to_its_end(slow))
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert done == ["written"]
