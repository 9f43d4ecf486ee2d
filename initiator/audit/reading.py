"""Reading a log back: its entries from their bundles, hashes of subtrees from its tiles.

A log may grow meanwhile. Its full pieces stay; those at its right edge are read when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterator

from initiator.audit.store import CHECKPOINT, Store
from initiator.core import tlog, trail
from initiator.core.tlog import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, Checkpoint, LogKey
from initiator.core.trail import Gap, Recorded
from initiator.errors import Code, RejectError

_TRIES = 20
"""To read an edge before the exporter has gone on."""


def blob_name(digest: str) -> str:
    """Where large data lies."""
    return f"data/{digest[:2]}/{digest}"


def pack(entries: list[bytes]) -> bytes:
    """A bundle of entries: each after its length in two bytes."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


class LogReader:
    """A log as it was when its checkpoint was signed.

    Raises:
        RejectError: `AUDIT_INVALID`: no checkpoint, or not one of this key.
    """

    def __init__(self, store: Store, key: LogKey) -> None:
        self._store = store
        self._tiles: dict[str, bytes] = {}
        self._open(key)

    def _open(self, key: LogKey) -> None:
        before = None
        for _ in range(_TRIES):
            self.signed = self._signed()
            self.checkpoint: Checkpoint = tlog.open_checkpoint(self.signed, key)
            edge = {name: self._store.read(name) for name in tlog.edge_of(self.checkpoint.size)}
            self._edge = {name: data for name, data in edge.items() if data is not None}
            if len(self._edge) == len(edge) or self.signed == before:
                return  # what is missing from a log that stands still is told where it is needed
            before = self.signed

    def _signed(self) -> bytes:
        signed = self._store.read(CHECKPOINT)
        if signed is None:
            raise RejectError(Code.AUDIT_INVALID, "there is no log here", field=CHECKPOINT)
        return signed

    def bundle(self, number: int) -> list[bytes]:
        """The entries of a bundle; raises RejectError where it is missing or has another form."""
        width = min(TILE_WIDTH, self.checkpoint.size - number * TILE_WIDTH)
        name = tlog.tile_path("entries", number, width)
        data, found, place = self._piece(name), [], 0
        while place < len(data):
            length = int.from_bytes(data[place : place + 2], "big")
            found.append(data[place + 2 : place + 2 + length])
            place += 2 + length
        if place != len(data) or len(found) != width:
            raise RejectError(Code.AUDIT_INVALID, f"expected {width} entries, and no more bytes", field=name)
        return found

    def entries(self) -> Iterator[bytes]:
        """All entries, oldest first; raises as `bundle`."""
        for number in range(-(-self.checkpoint.size // TILE_WIDTH)):
            yield from self.bundle(number)

    def read(self, raw: bytes) -> Recorded | Gap:
        """An entry; raises RejectError."""
        return trail.decode(raw, lambda digest: self._store.read(blob_name(digest)))

    def tile(self, level: int, number: int, width: int) -> bytes:
        """The hashes of a tile, one after the other; raises RejectError."""
        name = tlog.tile_path(level, number, width)
        data = self._piece(name)
        if len(data) != width * HASH_BYTES:
            raise RejectError(Code.AUDIT_INVALID, f"expected {width} hashes of {HASH_BYTES} bytes", field=name)
        return data

    def hashes(self, level: int, number: int) -> bytes:
        """The hash of a complete subtree; see `tlog.Hashes`."""
        tile_level, above = divmod(level, TILE_HEIGHT)
        first = number << above
        tile = first // TILE_WIDTH
        width = min(TILE_WIDTH, (self.checkpoint.size >> (tile_level * TILE_HEIGHT)) - tile * TILE_WIDTH)
        data = self.tile(tile_level, tile, width)
        start = first % TILE_WIDTH
        row = [data[place * HASH_BYTES : (place + 1) * HASH_BYTES] for place in range(start, start + (1 << above))]
        while len(row) > 1:
            row = [tlog.node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
        return row[0]

    def _piece(self, name: str) -> bytes:
        if name in self._edge:
            return self._edge[name]
        if name not in self._tiles:
            data = self._store.read(name)
            if data is None:
                raise RejectError(Code.AUDIT_INVALID, "it is missing", field=name)
            if len(self._tiles) > 64:
                self._tiles.clear()
            self._tiles[name] = data
        return self._tiles[name]
