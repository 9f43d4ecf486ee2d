"""Where a log lies: files in a folder, written so that a crash leaves what was there or what is new, never half."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol, Self

from initiator.errors import Code, HaltError

CHECKPOINT = "checkpoint"


class Store(Protocol):
    """Named pieces of bytes."""

    def read(self, name: str) -> bytes | None:
        """A piece; None if there is none. Raises HaltError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put a piece in place, all at once and for good. Raises HaltError."""
        ...

    def remove(self, name: str) -> None:
        """Let go of a piece that nothing needs any more; harmless if it is not there."""
        ...


class FileStore:
    """A folder. Reading needs no lock; `open_for_writing` takes it for one writer alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None

    @classmethod
    def open_for_writing(cls, folder: Path) -> Self:
        """Raises HaltError: another exporter writes there, or nobody can."""
        store = cls(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            store._lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
            # fork: two writers would sign two logs of one size
            fcntl.flock(store._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HaltError(Code.AUDIT_INVALID, f"{folder}: another exporter writes there", field="log") from None
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

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        new = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:  # all of it: one write of the system's may stop short where the disk is full
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.rename(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # power loss: the name, too
            finally:
                os.close(folder)
        except OSError as error:
            raise _unusable(path, error) from error

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let the next writer in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _unusable(path: Path, error: OSError) -> HaltError:
    return HaltError(Code.AUDIT_INVALID, f"{path}: {error.strerror}", field="log")
