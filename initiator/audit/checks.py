"""Everything that an auditor can check with a log's files alone.

In this order: the checkpoint's signature; every entry and tile against its root; an older checkpoint against the same
log; then, entry by entry: no sequence twice or passed over, writers' chains, the order of states of each operation, one
signature for an id, and every signature itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from initiator.audit.reading import LogReader
from initiator.core import chain, message, requester, tlog
from initiator.core.events import Event, State
from initiator.core.model import Operation, Request
from initiator.core.signature import Verifier
from initiator.core.signer import PublicKey
from initiator.core.spki import fingerprint
from initiator.core.tlog import HASH_BYTES, TILE_HEIGHT, Checkpoint, Frontier
from initiator.core.trail import Gap, Recorded
from initiator.errors import InitiatorError, RejectError

_FOLLOWS: dict[State | None, frozenset[State]] = {
    None: frozenset({State.ACCEPTED, State.FAILED}),
    State.ACCEPTED: frozenset({State.AUTHORIZING, State.SIGNED, State.FAILED}),
    State.AUTHORIZING: frozenset({State.AUTHORIZING, State.SIGNED, State.FAILED}),
    State.SIGNED: frozenset({State.PUBLISHING, State.PUBLISHED, State.COMPLETED, State.FAILED}),
    State.PUBLISHING: frozenset({State.PUBLISHED, State.RETRYING, State.COMPLETED, State.FAILED}),
    State.PUBLISHED: frozenset({State.PUBLISHED, State.RETRYING, State.COMPLETED, State.FAILED}),
    State.RETRYING: frozenset({State.PUBLISHING, State.PUBLISHED, State.COMPLETED, State.FAILED}),
    State.FAILED: frozenset({State.ACCEPTED, State.COMPLETED, State.FAILED}),
    State.COMPLETED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be.

    Attributes:
        index: the entry; None: the log itself.
        sequence, subject: of the entry, where it has them.
    """

    what: str
    index: int | None = None
    sequence: int | None = None
    subject: str | None = None

    def __str__(self) -> str:
        place = "" if self.index is None else f"entry {self.index}"
        place += f", sequence {self.sequence}" if self.sequence else ""
        place += f", {self.subject}" if self.subject else ""
        return f"{place}: {self.what}" if place else self.what


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found."""

    size: int = 0
    root: bytes = b""
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        return not self.findings


@dataclass(slots=True)
class _Operation:
    """What is known of one operation so far."""

    last: Event
    signatures: set[str] = field(default_factory=set)


class Auditor:
    """Checks one log.

    Args:
        initiators: the event-initiator keys, of all times, that signatures are held against; none: they are not.
        since: an older checkpoint of the same log, whose signature was verified.
    """

    def __init__(
        self, reader: LogReader, initiators: Sequence[PublicKey] = (), since: Checkpoint | None = None
    ) -> None:
        self._reader = reader
        self._initiators = {fingerprint(key): Verifier(key) for key in initiators}
        self._since = since
        self.report = Report(size=reader.checkpoint.size, root=reader.checkpoint.root)
        self._next: int | None = None
        self._digests: dict[int, str] = {}
        self._named: set[int] = set()
        self._operations: dict[tuple[Operation, str], _Operation] = {}

    def check(self) -> Report:
        """Look at all of it."""
        try:
            self._check_log()
        except RejectError as error:
            where = f"{error.field}: " if error.field else ""
            self._find(f"{where}{error.reason}")
        return self.report

    def _find(self, what: str, index: int | None = None, entry: Recorded | None = None) -> None:
        sequence, subject = (entry.sequence, entry.subject) if entry else (None, None)
        self.report.findings.append(Finding(what, index, sequence, subject))

    # --- the log

    def _check_log(self) -> None:
        frontier, old = Frontier(), self._since
        tiles: dict[tuple[int, int], bytearray] = {}
        if old is not None and old.size > self.report.size:
            self._find(f"truncated: an older checkpoint has {old.size} entries, this log {self.report.size}")
        for index, raw in enumerate(self._reader.entries()):
            for level, number, made in frontier.append(tlog.leaf_hash(raw)):
                if level % TILE_HEIGHT == 0:
                    tiles.setdefault((level // TILE_HEIGHT, number // tlog.TILE_WIDTH), bytearray()).extend(made)
            if old is not None and frontier.size == old.size and frontier.root != old.root:
                self._find(f"forked: its first {old.size} entries are not those of the older checkpoint")
            self._check_entry(index, raw)
        if frontier.root != self.report.root:
            self._find("changed: the entries do not give the root that the checkpoint signs")
        self._check_tiles(tiles)
        self.report.counts["not named yet by a later event"] = len(self._digests.keys() - self._named)

    def _check_tiles(self, tiles: dict[tuple[int, int], bytearray]) -> None:
        for level, number, width in tlog.tiles_of(self.report.size):
            stored, made = self._reader.tile(level, number, width), bytes(tiles.get((level, number), b""))
            if stored == made:
                continue
            rows = [
                (stored[at : at + HASH_BYTES], made[at : at + HASH_BYTES]) for at in range(0, len(stored), HASH_BYTES)
            ]
            place = next((row for row, (left, right) in enumerate(rows) if left != right), 0)
            self._find(f"{tlog.tile_path(level, number, width)}: hash {place} is not that of the entries below it")

    # --- entries

    def _check_entry(self, index: int, raw: bytes) -> None:
        try:
            entry = self._reader.read(raw)
        except RejectError as error:
            self._find(error.reason, index)
            return
        first, last = (entry.first, entry.last) if isinstance(entry, Gap) else (entry.sequence, entry.sequence)
        if self._next is not None and first != self._next:
            self._find(f"expected sequence {self._next}, got {first}", index)
        self._next = last + 1
        if isinstance(entry, Gap):
            self.report.counts["sequences that were gone before they were exported"] += last - first + 1
            return
        self.report.counts["messages"] += 1
        for what in self._wrong(entry):
            self._find(what, index, entry)

    def _wrong(self, entry: Recorded) -> Iterator[str]:
        """All that is wrong with one message: the list of checks."""
        yield from self._chain(entry)
        try:
            event = entry.event()
        except RejectError as error:
            yield f"no event: {error.reason}"
            return
        if event is None:
            return
        if event.subject != entry.subject:
            yield "its subject is not its own"
        yield from self._order(event)
        if event.state in (State.SIGNED, State.AUTHORIZING):
            yield from self._signed(event)

    def _chain(self, entry: Recorded) -> Iterator[str]:
        self._digests[entry.sequence] = chain.digest(entry.subject, entry.chain, entry.data)
        if not entry.chain:
            return  # written by an earlier version, or by an operator's command
        linked = chain.parse(entry.chain)
        if linked is None:
            yield "its chain header has another form"
            return
        for sequence, digest in linked.names.items():
            known = self._digests.get(sequence)
            if known is None and sequence in self._range_known():
                yield f"names the event at {sequence}, which is not in the log"
            elif known is not None and known != digest:
                yield f"names another event than the one that the log has at {sequence}"
            self._named.add(sequence)

    def _range_known(self) -> range:
        """Sequences that the log must have: from its first message on."""
        first = next(iter(self._digests), 0)
        return range(first, self._next or 0)

    def _order(self, event: Event) -> Iterator[str]:
        key = (event.operation, event.operation_id)
        known = self._operations.get(key)
        if known is None:
            self._operations[key] = _Operation(event)
            if event.state not in _FOLLOWS[None]:
                yield f"its operation begins with {event.state}: what came before is not in the log"
            return
        before = known.last
        if event.state not in _FOLLOWS[before.state]:
            yield f"{event.state} follows {before.state}"
        if (event.client, event.request_digest) != (before.client, before.request_digest):
            yield "another client or payload than before under the same id"
        if event.attempt < before.attempt:
            yield f"attempt {event.attempt} follows attempt {before.attempt}"
        known.last = event

    def _signed(self, event: Event) -> Iterator[str]:
        """Every signature, with what stands beside it."""
        try:
            parsed = message.parse_event(event.operation, event.body["message"])
        except (InitiatorError, KeyError, TypeError) as error:
            yield f"its message cannot be read: {error}"
            return
        if event.state is State.SIGNED:
            self.report.counts["signatures"] += 1
        known = self._operations[(event.operation, event.operation_id)]
        known.signatures.add(parsed.signature.hex())
        if len(known.signatures) > 1:
            yield "a second signature under the same id"
        if parsed.request.operation_id != event.operation_id:
            yield "its message is for another id"
        if event.body.get("digest") != hashlib.sha256(parsed.signed).hexdigest():
            yield "its digest is not that of what was signed"
        if self._initiators:
            verifier = self._initiators.get(str(event.body.get("key_fingerprint")))
            if verifier is None:
                yield "it names another key than the initiator's"
            elif not verifier.verify(parsed.signed, parsed.signature):
                yield "its signature does not verify under the initiator's key"
        yield from _requester(event, parsed.request, self.report.counts)


def _requester(event: Event, request: Request, counts: Counter[str]) -> Iterator[str]:
    """The client's own signature, where it gave one."""
    given: Any = event.body.get("requester")
    if given is None:
        return
    counts["requesters' signatures"] += event.state is State.SIGNED
    try:
        _, covered = requester.as_signed(given, given["audience"], event.client, request)
        requester.verify(requester.parse_key(given["key"]), given["signature"], covered)
    except (InitiatorError, KeyError, TypeError, ValueError, AttributeError):
        yield "its requester's signature does not verify"
