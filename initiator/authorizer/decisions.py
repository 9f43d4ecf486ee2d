"""What an authorizer has signed: one id never gets its signature over two different requests, whatever is asked when.

Kept in SQLite, so that it outlives the process, and that `run` and `approve` go by the same. What is decided is on
disk before it is signed, the folder included: a journal that came back after a power cut would take it away again.
Calls wait for the disk: they are for threads, never for an event loop.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from typing import Any

from initiator.core.model import Operation
from initiator.errors import Code, HaltError, RejectError

_WAIT_S = 5.0
_FORM = """
CREATE TABLE IF NOT EXISTS signed (
    operation TEXT NOT NULL, id TEXT NOT NULL, digest TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (operation, id)
) WITHOUT ROWID
"""


class Decisions:
    """By operation and id the digest (`identity.request_digest`) of what was signed.

    Args:
        path: the file, which is made for its owner alone; None: in memory, as long as the process lives.

    Attributes:
        lasting: whether they outlive the process.

    Raises:
        HaltError: it cannot be opened, or holds something else.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path or "memory"
        self.lasting = path is not None
        self._lock = threading.Lock()
        try:
            if path is not None:
                _make_private(path)
            self._database = sqlite3.connect(
                path or ":memory:", timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA synchronous = EXTRA")
            self._database.execute(_FORM)
            self._database.execute("SELECT operation, id, digest, at FROM signed LIMIT 1")
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def check(self, operation: Operation, operation_id: str, digest: str) -> None:
        """Raises RejectError where another request was signed under this id, HaltError where nobody can tell."""
        found = self._ask("SELECT digest FROM signed WHERE operation = ? AND id = ?", operation.value, operation_id)
        if found is not None and found[0] != digest:
            # equivocation: one id never gets two signatures of ours over two things
            raise RejectError(Code.CONFLICT, "another request was signed under this id before", field="id")

    def hold(self, operation: Operation, operation_id: str, digest: str) -> None:
        """Put on disk that this request is signed under this id; raises as `check`."""
        new = (operation.value, operation_id, digest, time.time())
        self._ask("INSERT OR IGNORE INTO signed VALUES (?, ?, ?, ?)", *new)
        self.check(operation, operation_id, digest)

    def _ask(self, statement: str, *values: str | float) -> tuple[Any, ...] | None:
        """Run a statement; its first row, if it has one."""
        with self._lock:
            try:
                row: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
            except sqlite3.Error as error:
                raise self._unusable(error) from error
        return row

    def _unusable(self, error: sqlite3.Error | OSError) -> HaltError:
        return HaltError(Code.CONFIG_INVALID, f"{self._path}: {error}", field="decisions",
                         hint="a file that SQLite can read and write; without it nothing is signed")  # fmt: skip


def _make_private(path: str) -> None:
    """Make the file, or take it from everybody else; SQLite gives its journal the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            os.chmod(path, 0o600)
