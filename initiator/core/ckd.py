"""Child public keys as the nodes derive them: non-hardened BIP32 on both curves.

Ed25519 follows mpcium's own scheme: the HMAC input is `02|03` (parity of Y) and the big-endian X of the point, and
the left half is reduced modulo the group order.

Sources: BIP32; mpcium's `pkg/ckdutil`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from initiator.core import curves
from initiator.core.curves import Point

HARDENED = 2**31


def _walk(
    point: Point, chain_code: bytes, path: Sequence[int], child: Callable[[Point, int], Point], order: int, reduce: bool
) -> Point:
    if len(chain_code) != 32:
        raise ValueError(f"chain code: expected 32 bytes, got {len(chain_code)}")
    for index in path:
        if not 0 <= index < HARDENED:
            raise ValueError(f"path: {index} is hardened or negative")
        prefix = b"\x03" if point[1] & 1 else b"\x02"
        data = prefix + point[0].to_bytes(32, "big") + index.to_bytes(4, "big")
        digest = hmac.digest(chain_code, data, "sha512")
        offset = int.from_bytes(digest[:32], "big")
        offset = offset % order if reduce else offset
        if offset == 0 or offset >= order:
            raise ValueError(f"path: no child at {index}")
        point, chain_code = child(point, offset), digest[32:]
    return point


def derive_secp256k1(public_key: bytes, chain_code: bytes, path: Sequence[int]) -> bytes:
    """The child of a secp256k1 key.

    Args:
        public_key: X‖Y, 64 bytes.

    Raises:
        ValueError: not a point, not a chain code, or a path without a child.
    """
    return k1_encode(_walk(k1_decode(public_key), chain_code, path, _k1_child, curves.K1_N, reduce=False))


def derive_ed25519(public_key: bytes, chain_code: bytes, path: Sequence[int]) -> bytes:
    """The child of an Ed25519 key (32 bytes); raises ValueError as `derive_secp256k1` does."""
    point = curves.ed_decode(public_key)
    return curves.ed_encode(_walk(point, chain_code, path, _ed_child, curves.ED_N, reduce=True))


def _k1_child(point: Point, offset: int) -> Point:
    child = curves.k1_add(point, curves.k1_multiply(offset, curves.K1_G))
    if child is None:
        raise ValueError("path: the child is the point at infinity")
    return child


def _ed_child(point: Point, offset: int) -> Point:
    return curves.ed_add(point, curves.ed_multiply(offset, curves.ED_G))


def k1_decode(encoded: bytes) -> Point:
    """The point of X‖Y; raises ValueError if it is none of secp256k1."""
    if len(encoded) != 64:
        raise ValueError("expected 64 bytes")
    point = int.from_bytes(encoded[:32], "big"), int.from_bytes(encoded[32:], "big")
    if not curves.k1_on_curve(point):
        raise ValueError("not on the curve")
    return point


def k1_encode(point: Point) -> bytes:
    return point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")
