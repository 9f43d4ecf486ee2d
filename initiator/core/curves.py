"""Points of the two curves that wallets use: secp256k1 and Ed25519.

Invariants:
- a point that leaves this module is on its curve, in its one canonical encoding;
- an Ed25519 point that was asked for as a key lies in the prime-order subgroup.

Only public data passes through here, so plain integer arithmetic, whose time depends on its operands, leaks
nothing. Signatures themselves are verified by OpenSSL or libsecp256k1.

Sources: SEC 2 (secp256k1), RFC 8032 section 5.1 (Ed25519 encoding and formulas).
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

AffinePoint: TypeAlias = tuple[int, int]
_ExtendedPoint: TypeAlias = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z
_JacobianPoint: TypeAlias = tuple[int, int, int]  # X, Y, Z with x = X/Z², y = Y/Z³; Z = 0 is infinity


class CurveError(ValueError):
    """These bytes are no point of the curve, or no usable key."""


# --- secp256k1

SECP256K1_P = 2**256 - 2**32 - 977
SECP256K1_N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


def decode_secp256k1(encoded: bytes) -> AffinePoint:
    """Read X‖Y (64 bytes, big-endian).

    Raises:
        CurveError: wrong length, a coordinate that is not reduced, or not on the curve.
    """
    if len(encoded) != 64:
        raise CurveError(f"expected 64 bytes, got {len(encoded)}")
    x, y = int.from_bytes(encoded[:32], "big"), int.from_bytes(encoded[32:], "big")
    # invalid curve: arithmetic on a foreign point gives answers that mean nothing
    if x >= SECP256K1_P or y >= SECP256K1_P or (y * y - x * x * x - 7) % SECP256K1_P:
        raise CurveError("not a point of secp256k1")
    return x, y


def encode_secp256k1(point: AffinePoint) -> bytes:
    """X‖Y, 64 bytes."""
    return point[0].to_bytes(32, "big") + point[1].to_bytes(32, "big")


def compress(point: AffinePoint) -> bytes:
    """02 or 03 by the parity of y, then X: 33 bytes. mpcium writes Ed25519 points in this form too (`ckdutil`)."""
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32, "big")


def add_secp256k1(a: AffinePoint, b: AffinePoint) -> AffinePoint:
    """a + b.

    Raises:
        CurveError: the sum is the point at infinity.
    """
    (ax, ay), (bx, by) = a, b
    if ax == bx and (ay + by) % SECP256K1_P == 0:
        raise CurveError("the sum is the point at infinity")
    rise, run = (3 * ax * ax, 2 * ay) if a == b else (by - ay, bx - ax)
    slope = rise * pow(run, -1, SECP256K1_P)
    x = (slope * slope - ax - bx) % SECP256K1_P
    return x, (slope * (ax - x) - ay) % SECP256K1_P


def multiply_secp256k1(scalar: int, point: AffinePoint) -> AffinePoint:
    """scalar · point, for 0 < scalar < n: four bits at a time over Jacobian coordinates.

    Raises:
        CurveError: the scalar is out of range.
    """
    if not 0 < scalar < SECP256K1_N:
        raise CurveError("expected a scalar from 1 to the order")
    table: list[_JacobianPoint] = [(0, 1, 0), (*point, 1)]
    for _ in range(14):
        table.append(_jacobian_add(table[-1], table[1]))
    total = table[0]
    for shift in range(252, -4, -4):
        for _ in range(4):
            total = _jacobian_double(total)
        total = _jacobian_add(total, table[(scalar >> shift) & 15])
    x, y, z = total
    inverse = pow(z, -1, SECP256K1_P)
    square = inverse * inverse % SECP256K1_P
    return x * square % SECP256K1_P, y * square * inverse % SECP256K1_P


def _jacobian_double(a: _JacobianPoint) -> _JacobianPoint:
    p = SECP256K1_P
    x, y, z = a
    yy = y * y % p
    s = 4 * x * yy % p
    m = 3 * x * x % p
    rx = (m * m - 2 * s) % p
    return rx, (m * (s - rx) - 8 * yy * yy) % p, 2 * y * z % p


def _jacobian_add(a: _JacobianPoint, b: _JacobianPoint) -> _JacobianPoint:
    p = SECP256K1_P
    (ax, ay, az), (bx, by, bz) = a, b
    if az == 0:
        return b
    if bz == 0:
        return a
    azz, bzz = az * az % p, bz * bz % p
    u, v = ax * bzz % p, ay * bzz * bz % p
    h, r = (bx * azz - u) % p, (by * azz * az - v) % p
    if h == 0:
        return _jacobian_double(a) if r == 0 else (0, 1, 0)
    hh = h * h % p
    hhh, uhh = h * hh % p, u * hh % p
    rx = (r * r - hhh - 2 * uhh) % p
    return rx, (r * (uhh - rx) - v * hhh) % p, h * az * bz % p


# --- Ed25519

ED25519_P = 2**255 - 19
ED25519_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, ED25519_P) % ED25519_P
_SQRT_MINUS_ONE = pow(2, (ED25519_P - 1) // 4, ED25519_P)
_IDENTITY: _ExtendedPoint = (0, 1, 1, 0)


def decode_ed25519(encoded: bytes) -> AffinePoint:
    """Read a compressed point (32 bytes: y little-endian, the sign of x in the top bit).

    Raises:
        CurveError: wrong length, not canonical, or not on the curve.
    """
    if len(encoded) != 32:
        raise CurveError(f"expected 32 bytes, got {len(encoded)}")
    packed = int.from_bytes(encoded, "little")
    y, sign = packed & ((1 << 255) - 1), packed >> 255
    # aliases: y + p names the same point, and one key under two encodings is two keys to whoever compares bytes
    if y >= ED25519_P:
        raise CurveError("not a canonical encoding of an Ed25519 point")
    x = _recover_x(y)
    if x == 0 and sign:
        raise CurveError("not a canonical encoding of an Ed25519 point")
    return (ED25519_P - x if x & 1 != sign else x), y


def decode_ed25519_key(encoded: bytes) -> AffinePoint:
    """Read a point that shall serve as a public key.

    The nodes make keys as multiples of the base point. Anything with a small-order part is not such a key, and with
    it one signature would verify under several keys, or (pure small order) under no private key at all.

    Raises:
        CurveError: as `decode_ed25519`, or outside the prime-order subgroup.
    """
    point = decode_ed25519(encoded)
    if point == (0, 1) or _affine(_multiply(ED25519_L, _extended(point))) != (0, 1):
        raise CurveError("not in the prime-order subgroup of Ed25519")
    return point


def encode_ed25519(point: AffinePoint) -> bytes:
    """The compressed form, 32 bytes."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def add_ed25519(a: AffinePoint, b: AffinePoint) -> AffinePoint:
    """a + b."""
    return _affine(_add(_extended(a), _extended(b)))


def multiply_ed25519_base(scalar: int) -> AffinePoint:
    """scalar · B for 0 <= scalar < 2**256, from a table of the base point's multiples."""
    total = _IDENTITY
    for position, row in enumerate(_base_table()):
        total = _add(total, row[(scalar >> (4 * position)) & 15])
    return _affine(total)


def _recover_x(y: int) -> int:
    """One of the two x of a y; RFC 8032 section 5.1.3."""
    u, v = (y * y - 1) % ED25519_P, (_D * y * y + 1) % ED25519_P
    x = u * pow(v, 3, ED25519_P) * pow(u * pow(v, 7, ED25519_P), (ED25519_P - 5) // 8, ED25519_P) % ED25519_P
    check = v * x * x % ED25519_P
    if check == u:
        return x
    if check == ED25519_P - u:
        return x * _SQRT_MINUS_ONE % ED25519_P
    raise CurveError("not a point of Ed25519")


def _extended(point: AffinePoint) -> _ExtendedPoint:
    x, y = point
    return x, y, 1, x * y % ED25519_P


def _affine(point: _ExtendedPoint) -> AffinePoint:
    inverse = pow(point[2], -1, ED25519_P)
    return point[0] * inverse % ED25519_P, point[1] * inverse % ED25519_P


def _add(a: _ExtendedPoint, b: _ExtendedPoint) -> _ExtendedPoint:
    """RFC 8032 section 5.1.4; complete, so doubling needs no case of its own."""
    p = ED25519_P
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % p, (a[1] + a[0]) * (b[1] + b[0]) % p
    c, d = 2 * a[3] * b[3] * _D % p, 2 * a[2] * b[2] % p
    e, f, g, h = n - m, d - c, d + c, n + m
    return e * f % p, g * h % p, f * g % p, e * h % p


def _multiply(scalar: int, point: _ExtendedPoint) -> _ExtendedPoint:
    total = _IDENTITY
    for bit in bin(scalar)[2:]:
        total = _add(total, total)
        if bit == "1":
            total = _add(total, point)
    return total


@cache
def _base_table() -> tuple[tuple[_ExtendedPoint, ...], ...]:
    """Row i holds 0 to 15 times 16**i · B; made at the first use, in about ten milliseconds."""
    y = 4 * pow(5, -1, ED25519_P) % ED25519_P
    x = _recover_x(y)
    step = _extended((x if x & 1 == 0 else ED25519_P - x, y))
    rows = []
    for _ in range(64):
        row = [_IDENTITY]
        for _ in range(15):
            row.append(_add(row[-1], step))
        rows.append(tuple(row))
        step = _add(row[-1], step)
    return tuple(rows)
