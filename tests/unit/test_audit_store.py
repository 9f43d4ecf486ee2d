"""What a disk that has no more room leaves of a log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from initiator.audit.store import FileStore

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
