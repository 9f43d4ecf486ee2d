"""From the record's stream to the log.

Invariants:
- entries and tiles are in place before the checkpoint that commits to them; so a crash at any instruction leaves the
  last checkpoint, and the next start goes on from there;
- every sequence of the stream is in the log once: as a message, or as part of a gap that says it was not there;
- one log has one writer, and is signed by a key that is not the initiator's.
"""

from __future__ import annotations

from collections import defaultdict

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from initiator.audit.reading import LogReader, blob_name, pack
from initiator.audit.store import CHECKPOINT, Store
from initiator.bus.jetstream import JetStream, Stored
from initiator.core import chain, subjects, tlog, trail
from initiator.core.events import format_time
from initiator.core.tlog import TILE_HEIGHT, TILE_WIDTH, Checkpoint, Frontier, LogKey
from initiator.core.trail import Gap, Recorded
from initiator.errors import Code, HaltError, RejectError
from initiator.log import get_logger

log = get_logger()
MOST_ENTRIES = 1000


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
        self._written: set[str] = set()  # partial tiles that the last checkpoint needed
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
        """Go on where the last checkpoint ends."""
        if self._store.read(CHECKPOINT) is None:
            return
        reader = LogReader(self._store, LogKey(self._origin, self._key.public_key().public_bytes_raw()))
        for raw in reader.entries():
            self._take(raw)
            entry = reader.read(raw)
            self._next = (entry.last if isinstance(entry, Gap) else entry.sequence) + 1
        if self._frontier.root != reader.checkpoint.root:
            raise RejectError(Code.AUDIT_INVALID, "its entries are not those that its checkpoint has", field=CHECKPOINT)
        self._written = set(self._partial())

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
            RetryError, NotFoundError: the record cannot be read now; nothing is lost by that.
            HaltError: the log cannot be written.
        """
        count = 0
        while count < MOST_ENTRIES:
            stored = await self._js.next(subjects.EVENTS_STREAM, ">", self._next)
            if stored is None:
                break
            if stored.sequence > self._next:
                self._add(trail.encode(Gap(self._next, stored.sequence - 1)))
                log.warning("audit.gap", first=self._next, last=stored.sequence - 1)
                count += 1
            self._add(self._entry(stored))
            self._next = stored.sequence + 1
            count += 1
        if count:
            self._commit()
        return count

    def _entry(self, stored: Stored) -> bytes:
        entry = Recorded(
            sequence=stored.sequence,
            stored_at=format_time(stored.time),
            subject=stored.subject,
            content_type=stored.headers.get("Content-Type", ""),
            chain=stored.headers.get(chain.HEADER, ""),
            data=stored.data,
        )
        if not entry.inline:
            self._store.write(blob_name(entry.sha256), entry.data)
        raw = trail.encode(entry)
        if len(raw) > trail.MOST_BYTES:
            raise HaltError(Code.AUDIT_INVALID, f"the message at {stored.sequence} has headers that no entry can hold")
        return raw

    def _add(self, raw: bytes) -> None:
        self._take(raw)
        if len(self._bundle) == TILE_WIDTH:
            self._store.write(tlog.tile_path("entries", (self.size - 1) // TILE_WIDTH), pack(self._bundle))
        for level, tile in self._tiles.items():
            number, rest = divmod(self.size >> (level * TILE_HEIGHT), TILE_WIDTH)
            # only just complete: every tile below it has ended with this entry, too
            if len(tile) == TILE_WIDTH and rest == 0 and self.size % (1 << (level * TILE_HEIGHT)) == 0:
                self._store.write(tlog.tile_path(level, number - 1), b"".join(tile))

    def _partial(self) -> dict[str, bytes]:
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
        partial = self._partial()
        for name, data in partial.items():
            self._store.write(name, data)
        checkpoint = Checkpoint(self._origin, self.size, self._frontier.root)
        self._store.write(CHECKPOINT, tlog.sign_checkpoint(checkpoint, self._key))
        for name in self._written - partial.keys():
            self._store.remove(name)  # nobody reads them after a newer checkpoint
        self._written = set(partial)
        log.info("audit.exported", size=self.size, sequence=self.sequence)
