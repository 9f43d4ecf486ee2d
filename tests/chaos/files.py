"""Lines of JSON, written at once and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any


def write_line(file: IO[bytes], line: dict[str, Any]) -> None:
    file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    file.flush()


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]
