"""Where a run leaves what it saw: a folder, lines of JSON written at once and read back."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def write_line(file: IO[bytes], line: dict[str, Any]) -> None:
    file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    file.flush()


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@contextlib.contextmanager
def folder_of(keep: Path | None) -> Iterator[Path]:
    """A folder for all logs and dumps of a run: the one that is to be kept, or a temporary one."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="initiator-chaos-") as temporary:
            yield Path(temporary)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
