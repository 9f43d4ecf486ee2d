"""Where a log lies: pieces of bytes, and the checkpoint that commits to them.

Invariants of every store:
- `write` returns when all pieces are there for good; a crash in it leaves pieces that no checkpoint names;
- `commit` puts a checkpoint in the place of the one that this store has read or written last, and of no other: who
  finds another one there has met a second writer, and two writers would sign two logs of one size.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, Self

from initiator.errors import Code, HaltError
from initiator.files import sync_folder

CHECKPOINT = "checkpoint"
S3_SCHEME = "s3://"
_LOCK = ".lock"
_FILE_MODE, _FOLDER_MODE = 0o600, 0o700


class Store(Protocol):
    """Named pieces of bytes. Every call may raise HaltError (a person has to act) and RetryError (call it again)."""

    def read(self, name: str) -> bytes | None:
        """A piece; None if there is none."""
        ...

    def write(self, pieces: Mapping[str, bytes]) -> None:
        """Put pieces in place for good, each all at once; harmless to repeat with the same bytes."""
        ...

    def commit(self, checkpoint: bytes) -> None:
        """Replace the checkpoint; harmless to repeat with the same bytes."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Let go of pieces that nothing needs any more; harmless where they are not there."""
        ...

    def close(self) -> None:
        """Let the next writer in."""
        ...


def another_writer(where: object) -> HaltError:
    return HaltError(Code.AUDIT_INVALID, f"{where}: another exporter writes there", field="log")


class FileStore:
    """A folder. Reading needs no lock; `open_for_writing` takes it for one writer alone.

    What it makes is its owner's alone to read: a log holds signed bytes, which are worth a replay.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None
        self._closed = False

    @classmethod
    def open_for_writing(cls, folder: Path) -> Self:
        """Raises HaltError: another exporter writes there, or nobody can."""
        store = cls(folder)
        try:
            _make(folder)
            store._lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, _FILE_MODE)
            # fork: two writers would sign two logs of one size
            fcntl.flock(store._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise another_writer(folder) from None
        except OSError as error:
            raise _unusable(folder, error) from error
        return store

    def read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self._folder / name, error) from error

    def write(self, pieces: Mapping[str, bytes]) -> None:
        for name, data in pieces.items():
            self._put(name, data)

    def commit(self, checkpoint: bytes) -> None:
        self._put(CHECKPOINT, checkpoint)

    def _put(self, name: str, data: bytes) -> None:
        path = self._folder / name
        new = path.with_name(f".{path.name}.new")
        self._check_held()
        try:
            _make(path.parent)
            with open(new, "wb", opener=_own) as file:  # all of it: one write of the system's may stop short
                os.fchmod(file.fileno(), _FILE_MODE)  # of one that an older version left behind
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
            sync_folder(path.parent)
        except OSError as error:
            raise _unusable(path, error) from error

    def _check_held(self) -> None:
        """That the folder is still the one that is locked: another one in its place has not the pieces before."""
        if self._closed:
            raise another_writer(self._folder)  # there may be one by now
        if self._lock is None:
            return
        try:
            held = os.path.samestat(os.fstat(self._lock), (self._folder / _LOCK).stat())
        except OSError:
            held = False
        if not held:
            reason = f"{self._folder}: this is not the folder any more that the exporter has locked"
            hint = "it was moved away or replaced under a running exporter: put it back, then start the exporter again"
            raise HaltError(Code.AUDIT_INVALID, reason, field="log", hint=hint)

    def remove(self, names: Iterable[str]) -> None:
        self._check_held()
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise _unusable(self._folder / name, error) from error

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock, self._closed = None, True


def _make(folder: Path) -> None:
    """A folder, with those above it; raises OSError."""
    if not folder.is_dir():
        if not folder.parent.is_dir():
            _make(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def _own(path: str, flags: int) -> int:
    return os.open(path, flags, _FILE_MODE)


def _unusable(path: Path, error: OSError) -> HaltError:
    return HaltError(Code.AUDIT_INVALID, f"{path}: {error.strerror}", field="log")
