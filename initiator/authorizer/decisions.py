"""What an authorizer has signed: one id never gets its signature over two different requests, whatever is asked when.

Kept in SQLite, so that it outlives the process, and that `run` and `approve` go by the same. What is decided is on
disk before it is signed.
"""

from __future__ import annotations

import sqlite3
import threading
import time

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
        path: the file; None: in memory, as long as the process lives.

    Raises:
        HaltError: it cannot be opened, or holds something else.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path or "memory"
        self._lock = threading.Lock()
        try:
            self._database = sqlite3.connect(
                path or ":memory:", timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute(_FORM)
            self._database.execute("SELECT operation, id, digest, at FROM signed LIMIT 1")
        except sqlite3.Error as error:
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

    def _ask(self, statement: str, *values: str | float) -> tuple[str, ...] | None:
        """Run a statement; its first row, if it has one."""
        with self._lock:
            try:
                row: tuple[str, ...] | None = self._database.execute(statement, values).fetchone()
            except sqlite3.Error as error:
                raise self._unusable(error) from error
        return row

    def _unusable(self, error: sqlite3.Error) -> HaltError:
        return HaltError(Code.CONFIG_INVALID, f"{self._path}: {error}", field="decisions",
                         hint="a file that SQLite can read and write; without it nothing is signed")  # fmt: skip
