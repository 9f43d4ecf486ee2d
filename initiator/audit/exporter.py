"""From the record's stream to the log.

Invariants:
- entries and tiles are in place before the checkpoint that commits to them; so a crash at any instruction leaves the
  last checkpoint, and the next start goes on from there;
- every sequence of the stream is in the log once: as a message, or as part of a gap that says it was not there;
- what is taken in comes after the message that was taken in last, which is compared each time: a record that was set
  back, at whatever moment, is not gone on with;
- one log has one writer, and is signed by a key that is not the initiator's.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit.reading import LogReader, blob_name, pack
from initiator.audit.store import CHECKPOINT, Store
from initiator.bus import streams
from initiator.bus.jetstream import JetStream, Stored
from initiator.core import chain, subjects, tlog, trail
from initiator.core.events import format_time
from initiator.core.tlog import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, Checkpoint, Frontier, LogKey
from initiator.core.trail import Gap, Recorded
from initiator.errors import Code, HaltError, RejectError, RetryError
from initiator.log import get_logger

log = get_logger()
MOST_ENTRIES = 1000
MOST_BYTES = 16_777_216
"""Of one commit, about."""
AT_ONCE = 64
"""Messages that are asked for at once; fewer over a slow link, each must come within the time of a request."""
MOST_BYTES_AT_ONCE = 1_048_576
"""Of them, about."""


class Exporter:
    """Writes one log.

    Args:
        origin: the log's name, and its key's.

    Raises:
        HaltError, RejectError: what is there already is not this key's log, or is damaged.
    """

    def __init__(self, js: JetStream, store: Store, key: Ed25519PrivateKey, origin: str) -> None:
        self._js = js
        self._store = store
        self._key = key
        self._origin = origin
        self._frontier = Frontier()
        self._bundle: list[bytes] = []
        self._tiles: dict[int, list[bytes]] = defaultdict(list)
        self._next = 1
        self._pieces: dict[str, bytes] = {}  # whole ones, of entries that no checkpoint has yet
        self._partial: set[str] = set()  # those that are not full yet, of the last checkpoint
        self._committed = 0
        self._at_once = 1
        self._last: Recorded | None = None  # what was taken in last, to be found in the record
        self._resume()

    @property
    def size(self) -> int:
        """Entries in the log."""
        return self._frontier.size

    @property
    def sequence(self) -> int:
        """The last sequence of the stream that is in it; 0: none."""
        return self._next - 1

    def _resume(self) -> None:
        """Go on where the last checkpoint ends: of what is there the right edge alone is read."""
        if self._store.read(CHECKPOINT) is None:
            return
        reader = LogReader(self._store, LogKey(self._origin, self._key.public_key().public_bytes_raw()))
        size = reader.checkpoint.size
        self._frontier = Frontier.of(size, reader.hashes)
        if self._frontier.root != reader.checkpoint.root:
            raise RejectError(Code.AUDIT_INVALID, "its tiles are not those that its checkpoint has", field=CHECKPOINT)
        for level, number, width in tlog.edge_tiles(size):
            self._tiles[level] = _split(reader.tile(level, number, width))
        last, full = reader.bundle((size - 1) // TILE_WIDTH), size % TILE_WIDTH == 0
        if full:
            same = tlog.root_of(last) == reader.hashes(TILE_HEIGHT, size // TILE_WIDTH - 1)
        else:
            same = [tlog.leaf_hash(raw) for raw in last] == self._tiles[0]
        if not same:  # forged: the last entry says where to go on
            raise RejectError(Code.AUDIT_INVALID, "its last entries are not those of its tiles", field=CHECKPOINT)
        self._bundle = [] if full else last
        entry = reader.read(last[-1])
        self._next = (entry.last if isinstance(entry, Gap) else entry.sequence) + 1
        self._last = None if isinstance(entry, Gap) else entry
        self._committed, self._partial = size, set(self._unfinished())

    def _take(self, raw: bytes) -> None:
        if len(self._bundle) == TILE_WIDTH:
            self._bundle = []
        self._bundle.append(raw)
        for level, _, made in self._frontier.append(tlog.leaf_hash(raw)):
            if level % TILE_HEIGHT == 0:
                tile = self._tiles[level // TILE_HEIGHT]
                if len(tile) == TILE_WIDTH:
                    tile.clear()
                tile.append(made)

    async def export(self) -> int:
        """Take in what is new, up to a bound; returns how many entries that were.

        Raises:
            RetryError, NotFoundError: the record cannot be read, or the log be written, now; call it again.
            HaltError: the log cannot be written, or is of another record.
        """
        size = self.size
        # what an earlier call took in and could not write comes first
        while self.size - self._committed < MOST_ENTRIES and sum(map(len, self._pieces.values())) < MOST_BYTES:
            found = await self._read()
            for stored in found:
                self._take_in(stored)
            if not found:
                break
        if self.size > self._committed:
            await _to_its_end(self._commit)
        return self.size - size

    async def _read(self) -> list[Stored]:
        """The next messages, in order; none at the end of the stream."""
        answers = await self._ask()
        if self.sequence:
            self._check_same(answers.pop(0))
        found: list[Stored] = []
        for stored in answers:
            if stored is None:
                break
            found.append(stored)
        if len(found) < len(answers):
            self._at_once = 1
        elif sum(len(stored.data) for stored in found) > MOST_BYTES_AT_ONCE:
            self._at_once = max(1, self._at_once // 2)
        else:
            self._at_once = min(2 * self._at_once, AT_ONCE)
        return found or await self._after_a_gap()

    async def _after_a_gap(self) -> list[Stored]:
        """The first message that is there at all; what lies between is gone."""
        await self._check_end()
        after = await self._js.next(subjects.EVENTS_STREAM, ">", self._next)
        if after is None:
            return []
        if self.sequence:
            self._check_same(await self._js.get(subjects.EVENTS_STREAM, self.sequence))
        return [after]

    async def _ask(self) -> list[Stored | None]:
        """What was taken in last, if anything was, and what comes after it: fewer where the answers come too late."""
        while True:
            asked = range(max(1, self.sequence), self._next + self._at_once)
            gets = (self._js.get(subjects.EVENTS_STREAM, sequence) for sequence in asked)
            answers = await asyncio.gather(*gets, return_exceptions=True)  # so that none is under way beside the next
            try:
                return [_told(answer) for answer in answers]
            except RetryError:
                if self._at_once == 1:
                    raise
                self._at_once = max(1, self._at_once // 4)

    def _check_same(self, stored: Stored | None) -> None:
        """That the record is still the one that this log is of."""
        if self._last is not None and stored is not None and self._recorded(stored) != self._last:
            raise _set_back(f"its message {self.sequence} is another one")

    async def _check_end(self) -> None:
        found = await streams.info(self._js, subjects.EVENTS_STREAM)
        if found and found["state"]["last_seq"] < self.sequence:
            raise _set_back(f"it ends at {found['state']['last_seq']}, the log at {self.sequence}")

    def _take_in(self, stored: Stored) -> None:
        if stored.sequence > self._next:
            self._add(trail.encode(Gap(self._next, stored.sequence - 1)))
            log.warning("audit.gap", first=self._next, last=stored.sequence - 1)
        self._last = self._recorded(stored)
        self._add(self._entry(self._last))
        self._next = stored.sequence + 1

    def _entry(self, entry: Recorded) -> bytes:
        if not entry.inline:
            self._pieces[blob_name(entry.sha256)] = entry.data
        raw = trail.encode(entry)
        if len(raw) > trail.MOST_BYTES:
            raise HaltError(Code.AUDIT_INVALID, f"the message at {entry.sequence} has headers that no entry can hold")
        return raw

    @staticmethod
    def _recorded(stored: Stored) -> Recorded:
        return Recorded(
            sequence=stored.sequence,
            stored_at=format_time(stored.time),
            subject=stored.subject,
            content_type=stored.headers.get("Content-Type", ""),
            chain=stored.headers.get(chain.HEADER, ""),
            data=stored.data,
        )

    def _add(self, raw: bytes) -> None:
        self._take(raw)
        if len(self._bundle) == TILE_WIDTH:
            self._pieces[tlog.tile_path("entries", (self.size - 1) // TILE_WIDTH)] = pack(self._bundle)
        for level, tile in self._tiles.items():
            number, rest = divmod(self.size >> (level * TILE_HEIGHT), TILE_WIDTH)
            # only just complete: every tile below it has ended with this entry, too
            if len(tile) == TILE_WIDTH and rest == 0 and self.size % (1 << (level * TILE_HEIGHT)) == 0:
                self._pieces[tlog.tile_path(level, number - 1)] = b"".join(tile)

    def _unfinished(self) -> dict[str, bytes]:
        """The pieces that are not full yet."""
        found = {}
        if rest := self.size % TILE_WIDTH:
            found[tlog.tile_path("entries", self.size // TILE_WIDTH, rest)] = pack(self._bundle)
        for level, tile in self._tiles.items():
            number, rest = divmod(self.size >> (level * TILE_HEIGHT), TILE_WIDTH)
            if rest:
                found[tlog.tile_path(level, number, rest)] = b"".join(tile)
        return found

    def _commit(self) -> None:
        """All of it, or none: where it fails, the next call does the same again."""
        unfinished = self._unfinished()
        self._partial |= unfinished.keys()  # a commit whose answer is lost may be done
        self._store.write(self._pieces | unfinished)
        checkpoint = Checkpoint(self._origin, self.size, self._frontier.root)
        self._store.commit(tlog.sign_checkpoint(checkpoint, self._key))
        old, self._partial = self._partial - unfinished.keys(), set(unfinished)
        self._committed, self._pieces = self.size, {}
        self._store.remove(sorted(old))  # nobody reads them after a newer checkpoint
        log.info("audit.exported", size=self.size, sequence=self.sequence)


async def _to_its_end(write: Callable[[], None]) -> None:
    """In a thread, and not left behind by a cancellation: whoever closes the log next lets another writer in."""
    writing = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing})
        raise


def _told(answer: Stored | BaseException | None) -> Stored | None:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _set_back(reason: str) -> HaltError:
    hint = "a record that was restored from a backup: keep this log as it is, and begin another one"
    return HaltError(Code.AUDIT_INVALID, f"this log is not of this record: {reason}", field="log", hint=hint)


def _split(tile: bytes) -> list[bytes]:
    return [tile[place : place + HASH_BYTES] for place in range(0, len(tile), HASH_BYTES)]
