"""Writers chain what they record: an event that is removed, or changed, is missed by another one.

Each replica is a writer with an id of its own. An event names, in a header, earlier events of its writer by stream
sequence and digest: those that the server has acknowledged since, each handed to exactly one later event. Many writes
are under way at once, so naming only the last acknowledged one would leave others that nobody names.

Invariants:
- an event's digest covers its subject, its bytes and the names that it carries;
- names that were given to a write which was refused, or lost, go back and are given to a later one;
- what was never acknowledged to its writer is named by nobody, and the newest events are not named yet: what is
  exported covers these (see `initiator.audit`).
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from dataclasses import dataclass

HEADER = "Initiator-Chain"
MOST_NAMES = 32
"""Names in one event; further ones wait for the next."""
_WRITER = re.compile(r"[0-9a-f]{16}")
_NAME = re.compile(r"([1-9][0-9]{0,18}):([0-9a-f]{64})")


def digest(subject: str, header: str, data: bytes) -> str:
    """What another event names this one by: SHA-256 (hex) over length-prefixed parts."""
    made = hashlib.sha256()
    for part in (subject.encode(), header.encode(), data):
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest()


@dataclass(frozen=True, slots=True)
class Link:
    """What one write carries: its header, and the names in it."""

    header: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Linked:
    """A header read back: whose event it is, and which ones it names (digest by sequence)."""

    writer: str
    names: dict[int, str]


class Chain:
    """One writer's chain.

    Args:
        writer: 16 hex digits, unique to a process's start.
    """

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._unnamed: deque[str] = deque()

    def link(self) -> Link:
        """For one write: whatever waits to be named, oldest first."""
        names = tuple(self._unnamed.popleft() for _ in range(min(MOST_NAMES, len(self._unnamed))))
        return Link(" ".join((self._writer, *names)), names)

    def stored(self, link: Link, subject: str, data: bytes, sequence: int) -> None:
        """The write is stored under this sequence: a later one will name it."""
        self._unnamed.append(f"{sequence}:{digest(subject, link.header, data)}")

    def lost(self, link: Link) -> None:
        """The write is not stored, or nobody knows: its names are given to another one."""
        self._unnamed.extendleft(reversed(link.names))


def parse(header: str) -> Linked | None:
    """A header read back; None for one that is none of ours."""
    writer, *names = header.split(" ")
    found = [_NAME.fullmatch(name) for name in names]
    if not _WRITER.fullmatch(writer) or len(names) > MOST_NAMES:
        return None
    named = {int(match[1]): match[2] for match in found if match}
    return Linked(writer, named) if len(named) == len(names) else None
