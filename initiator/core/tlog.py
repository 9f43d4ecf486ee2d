"""A Merkle log in the forms of C2SP: hashes, tiles, proofs, and checkpoints that are signed notes.

Sources: RFC 6962 and RFC 9162 (hashes and proofs), c2sp.org/tlog-tiles, c2sp.org/tlog-checkpoint, c2sp.org/signed-note,
c2sp.org/tlog-proof.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from initiator.core.spki import ed25519_from_raw
from initiator.errors import Code, HaltError, RejectError

HASH_BYTES = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
_ED25519 = 1
_NAME = re.compile(r"[^\s+]{1,128}")
_DASH = "— "
_PRIVATE = "PRIVATE+KEY+"
PROOF_FIRST_LINE = "c2sp.org/tlog-proof@v1"

Hashes = Callable[[int, int], bytes]
"""The hash of a complete subtree: level (0: leaves) and number at that level."""


def _bad(what: str, reason: str) -> RejectError:
    return RejectError(Code.AUDIT_INVALID, reason, field=what)


# --- hashes


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    # second preimage: a node is never taken for a leaf
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A log that only grows: the complete subtrees from which its root follows."""

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[tuple[int, bytes]] = []  # level and hash, the largest first

    @classmethod
    def of(cls, size: int, hashes: Hashes) -> Frontier:
        """The frontier of a log of this size."""
        made, start = cls(), 0
        for level in range(size.bit_length() - 1, -1, -1):
            if size & (1 << level):
                made._subtrees.append((level, hashes(level, start >> level)))
                start += 1 << level
        made.size = size
        return made

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Take in a leaf's hash; returns each subtree that is complete now: level, number, hash."""
        made = [(0, self.size, leaf)]
        self._subtrees.append((0, leaf))
        self.size += 1
        while len(self._subtrees) > 1 and self._subtrees[-1][0] == self._subtrees[-2][0]:
            level, right = self._subtrees.pop()
            _, left = self._subtrees.pop()
            joined = node_hash(left, right)
            self._subtrees.append((level + 1, joined))
            made.append((level + 1, (self.size >> (level + 1)) - 1, joined))
        return made

    @property
    def root(self) -> bytes:
        """The root of what is in it; of nothing, the hash of nothing."""
        if not self._subtrees:
            return hashlib.sha256(b"").digest()
        root = self._subtrees[-1][1]
        for _, left in reversed(self._subtrees[:-1]):
            root = node_hash(left, root)
        return root


def root_of(entries: Iterable[bytes]) -> bytes:
    """The root over entries."""
    frontier = Frontier()
    for entry in entries:
        frontier.append(leaf_hash(entry))
    return frontier.root


def _range_hash(start: int, end: int, hashes: Hashes) -> bytes:
    """The hash of the leaves from `start` to before `end`; the tree is cut there, or above."""
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return hashes(level, start >> level)
    split = start + _largest_power_below(size)
    return node_hash(_range_hash(start, split, hashes), _range_hash(split, end, hashes))


def _largest_power_below(size: int) -> int:
    """The largest power of two less than `size` (2 or more)."""
    return 1 << ((size - 1).bit_length() - 1)


# --- proofs


def prove_inclusion(index: int, size: int, hashes: Hashes) -> list[bytes]:
    """The audit path of one entry, from the leaf up. Raises ValueError where there is no such entry."""
    if not 0 <= index < size:
        raise ValueError(f"expected an index below {size}, got {index}")
    return _path(index, 0, size, hashes)


def _path(index: int, start: int, end: int, hashes: Hashes) -> list[bytes]:
    if end - start == 1:
        return []
    split = start + _largest_power_below(end - start)
    if index < split:
        return [*_path(index, start, split, hashes), _range_hash(split, end, hashes)]
    return [*_path(index, split, end, hashes), _range_hash(start, split, hashes)]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether an entry's hash is in a log of this size and root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, made = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            made = node_hash(sibling, made)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            made = node_hash(made, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and made == root


def prove_consistency(old: int, size: int, hashes: Hashes) -> list[bytes]:
    """That a log of `size` begins with the one of `old`. Raises ValueError where it cannot."""
    if not 0 < old <= size:
        raise ValueError(f"expected an older size from 1 to {size}, got {old}")
    return [] if old == size else _subproof(old, 0, size, True, hashes)


def _subproof(old: int, start: int, end: int, whole: bool, hashes: Hashes) -> list[bytes]:
    size = end - start
    if old == size:
        return [] if whole else [_range_hash(start, end, hashes)]
    split = _largest_power_below(size)
    if old <= split:
        return [*_subproof(old, start, start + split, whole, hashes), _range_hash(start + split, end, hashes)]
    left = _range_hash(start, start + split, hashes)
    return [*_subproof(old - split, start + split, end, False, hashes), left]


def verify_consistency(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the log of `size` begins with that of `old` (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= size:
        return False
    if old == size:
        return not proof and old_root == root
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == root


# --- tiles


def tile_path(level: int | str, number: int, width: int = TILE_WIDTH) -> str:
    """Where a tile lies (`level` may be `entries`): the number in groups of three digits, an x before all but one."""
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03d}")
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(groups)}{partial}"


def tiles_of(size: int) -> list[tuple[int, int, int]]:
    """All tiles of hashes of a log: level of tiles, number, width; levels from the leaves up."""
    found, level, count = [], 0, size
    while count:
        full, rest = divmod(count, TILE_WIDTH)
        found += [(level, number, TILE_WIDTH) for number in range(full)]
        found += [(level, full, rest)] if rest else []
        level, count = level + 1, count >> TILE_HEIGHT
    return found


def edge_tiles(size: int) -> list[tuple[int, int, int]]:
    """Of `tiles_of` those that are not full, found without the others."""
    found, level, count = [], 0, size
    while count:
        number, width = divmod(count, TILE_WIDTH)
        found += [(level, number, width)] if width else []
        level, count = level + 1, count >> TILE_HEIGHT
    return found


def edge_of(size: int) -> list[str]:
    """Where the pieces lie that are not full: they go once a newer checkpoint commits to more."""
    tiles = edge_tiles(size)
    entries = [tile_path("entries", number, width) for level, number, width in tiles if level == 0]
    return entries + [tile_path(*tile) for tile in tiles]


# --- signed notes and checkpoints


@dataclass(frozen=True, slots=True)
class LogKey:
    """The public key of a log, with its name."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that a signature line begins with."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([_ED25519]) + self.public).digest()[:4]

    @property
    def text(self) -> str:
        """The verifier key, as signed-note writes it."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([_ED25519]) + self.public).decode()}"


def parse_log_key(text: str) -> LogKey:
    """A verifier key, `NAME+ID+KEY`; raises HaltError."""
    name, _, rest = text.strip().partition("+")
    encoded = rest.partition("+")[2]
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raw = b""
    key = LogKey(name, raw[1:])
    well_formed = _NAME.fullmatch(name) and raw[:1] == bytes([_ED25519]) and len(raw) == 1 + HASH_BYTES
    if not well_formed or key.text != text.strip():
        reason = "expected a verifier key, NAME+ID+KEY, as `initiator audit key` prints it"
        raise HaltError(Code.PUBLIC_KEY_INVALID, reason, field="key")
    ed25519_from_raw(key.public)
    return key


def format_signer_key(name: str, key: Ed25519PrivateKey) -> str:
    """A signer key, `PRIVATE+KEY+NAME+ID+KEY`, as golang.org/x/mod/sumdb/note writes it."""
    public = LogKey(name, key.public_key().public_bytes_raw())
    seed = base64.b64encode(bytes([_ED25519]) + key.private_bytes_raw()).decode()
    return f"{_PRIVATE}{name}+{public.id.hex()}+{seed}"


def parse_signer_key(text: str) -> tuple[str, Ed25519PrivateKey]:
    """Name and key of a signer key; raises HaltError, which never repeats it."""
    name, _, rest = text.strip().removeprefix(_PRIVATE).partition("+")
    try:
        raw = base64.b64decode(rest.partition("+")[2], validate=True)
    except binascii.Error:
        raw = b""
    if _NAME.fullmatch(name) and len(raw) == 1 + HASH_BYTES and raw[0] == _ED25519:
        key = Ed25519PrivateKey.from_private_bytes(raw[1:])
        if format_signer_key(name, key) == text.strip():
            return name, key
    reason = "expected a signer key, as `initiator audit key` makes it"
    raise HaltError(Code.KEY_FILE_INVALID, reason, field="key")


def check_name(name: str) -> str:
    """A log's name; raises HaltError."""
    if not _NAME.fullmatch(name):
        raise HaltError(Code.CONFIG_INVALID, f"expected a name without spaces and +, got {name[:64]!a}", field="name")
    return name


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log has committed to."""

    origin: str
    size: int
    root: bytes

    @property
    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """A checkpoint as a signed note; the key's name is the log's origin."""
    log_key = LogKey(checkpoint.origin, key.public_key().public_bytes_raw())
    signature = base64.b64encode(log_key.id + key.sign(checkpoint.body.encode())).decode()
    return f"{checkpoint.body}\n{_DASH}{checkpoint.origin} {signature}\n".encode()


def open_checkpoint(data: bytes, key: LogKey) -> Checkpoint:
    """Read a checkpoint and verify that this log signed it; other signatures (witnesses) are not looked at.

    Raises:
        RejectError: `AUDIT_INVALID`, saying what is wrong.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _bad("checkpoint", "expected text in UTF-8") from None
    body, gap, signatures = text.partition("\n\n")
    lines = f"{body}\n".split("\n")
    if not gap or len(lines) < 4 or not re.fullmatch(r"0|[1-9][0-9]{0,15}", lines[1]):
        raise _bad("checkpoint", "expected origin, size, root and a signature")
    if lines[0] != key.name:
        raise _bad("checkpoint", f"expected the log {key.name}, got {lines[0][:128]!a}")
    if not any(_signs(line, f"{body}\n".encode(), key) for line in signatures.splitlines()):
        raise _bad("checkpoint", f"no signature of {key.name} under this key verifies")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except binascii.Error:
        root = b""
    if len(root) != HASH_BYTES:
        raise _bad("checkpoint", "expected a root of 32 bytes in base64")
    return Checkpoint(lines[0], int(lines[1]), root)


def _signs(line: str, body: bytes, key: LogKey) -> bool:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or name != key.name:
        return False
    try:
        raw = base64.b64decode(encoded, validate=True)
        Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], body)
    except (binascii.Error, InvalidSignature, ValueError):
        return False
    return raw[:4] == key.id


# --- proofs as text


def format_proof(index: int, path: Sequence[bytes], checkpoint: bytes) -> str:
    """An inclusion proof as tlog-proof writes it."""
    hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in path)
    return f"{PROOF_FIRST_LINE}\nindex {index}\n{hashes}\n{checkpoint.decode()}"


def parse_proof(text: str) -> tuple[int, list[bytes], bytes]:
    """Index, path and checkpoint of a proof; raises RejectError."""
    head, _, checkpoint = text.partition("\n\n")
    first, *lines = head.split("\n")
    lines = [line for line in lines if not line.startswith("extra ")]
    if first != PROOF_FIRST_LINE or not lines or not re.fullmatch(r"index (0|[1-9][0-9]{0,15})", lines[0]):
        raise _bad("proof", f"expected {PROOF_FIRST_LINE}, an index and hashes")
    try:
        path = [base64.b64decode(line, validate=True) for line in lines[1:]]
    except binascii.Error:
        raise _bad("proof", "expected hashes in base64") from None
    if any(len(one) != HASH_BYTES for one in path):
        raise _bad("proof", "expected hashes of 32 bytes")
    return int(lines[0].removeprefix("index ")), path, checkpoint.encode()
