"""Scalars and points of Ed25519 for the simulation, which holds wallet keys as plain scalars.

Unlike a seed's key, a key made by shares is any scalar, and so is its child; no library signs with those. Not
constant in time, and it need not be: these wallets hold nothing.

Source: RFC 8032 sections 5.1.4 and 5.1.6.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TypeAlias

_Point: TypeAlias = tuple[int, int, int, int]

PRIME = (1 << 255) - 19
ORDER = (1 << 252) + 27742317777372353535851937790883648493
_D2 = 2 * -121665 * pow(121666, PRIME - 2, PRIME) % PRIME
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
_BYTE = 256


def _plus(a: _Point, b: _Point) -> _Point:
    e = (a[1] - a[0]) * (b[1] - b[0])
    f = (a[1] + a[0]) * (b[1] + b[0])
    g = a[3] * _D2 * b[3]
    h = 2 * a[2] * b[2]
    w, x, y, z = (f - e) % PRIME, (h - g) % PRIME, (h + g) % PRIME, (f + e) % PRIME
    return w * x % PRIME, y * z % PRIME, x * y % PRIME, w * z % PRIME


@cache
def _table() -> list[list[_Point]]:
    """All multiples of the base point by one byte at each of its 32 places; about 50 ms, once."""
    rows = []
    point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % PRIME)
    for _ in range(32):
        row: list[_Point] = [(0, 1, 1, 0)]
        for _ in range(_BYTE - 1):
            row.append(_plus(row[-1], point))
        rows.append(row)
        point = _plus(row[-1], point)
    return rows


def point(scalar: int) -> tuple[int, int]:
    """scalar · B as (x, y)."""
    total: _Point = (0, 1, 1, 0)
    for row, digit in zip(_table(), (scalar % ORDER).to_bytes(32, "little"), strict=True):
        total = _plus(total, row[digit])
    inverse = pow(total[2], PRIME - 2, PRIME)
    return total[0] * inverse % PRIME, total[1] * inverse % PRIME


def encode(x: int, y: int) -> bytes:
    """y little-endian with the parity of x in the top bit."""
    return (y + ((x % 2) << 255)).to_bytes(32, "little")


def sign(scalar: int, public_key: bytes, message: bytes) -> bytes:
    """An Ed25519 signature R‖S under a plain scalar; the same every time."""
    prefix = hashlib.sha512(b"simulated nonce" + scalar.to_bytes(32, "little")).digest()
    nonce = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % ORDER
    r = encode(*point(nonce))
    challenge = int.from_bytes(hashlib.sha512(r + public_key + message).digest(), "little") % ORDER
    return r + ((nonce + challenge * scalar) % ORDER).to_bytes(32, "little")
