"""Affine arithmetic on secp256k1 and Ed25519, for public keys only.

Nothing here touches a secret, so plain integers that take variable time are fine. `cryptography` exposes no point
addition; this is all that public derivation needs.

Sources: SEC 2 (secp256k1 parameters), RFC 8032 (Ed25519 parameters, encoding, decompression).
"""

from __future__ import annotations

from typing import TypeAlias

Point: TypeAlias = tuple[int, int]

K1_P = 2**256 - 2**32 - 977
K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
K1_G: Point = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)

ED_P = 2**255 - 19
ED_N = 2**252 + 27742317777372353535851937790883648493
_ED_D = -121665 * pow(121666, -1, ED_P) % ED_P
_ED_SQRT_M1 = pow(2, (ED_P - 1) // 4, ED_P)


def k1_on_curve(point: Point) -> bool:
    x, y = point
    return 0 <= x < K1_P and 0 <= y < K1_P and (y * y - x * x * x - 7) % K1_P == 0


def k1_add(a: Point | None, b: Point | None) -> Point | None:
    """Sum of two points of secp256k1; None is the point at infinity."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % K1_P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, K1_P) % K1_P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, K1_P) % K1_P
    x = (slope * slope - a[0] - b[0]) % K1_P
    return x, (slope * (a[0] - x) - a[1]) % K1_P


def k1_multiply(scalar: int, point: Point | None) -> Point | None:
    """`scalar` times a point of secp256k1."""
    total: Point | None = None
    while scalar:
        if scalar & 1:
            total = k1_add(total, point)
        point = k1_add(point, point)
        scalar >>= 1
    return total


def ed_add(a: Point, b: Point) -> Point:
    """Sum of two points of Ed25519 (the complete twisted Edwards law)."""
    product = _ED_D * a[0] * b[0] * a[1] * b[1] % ED_P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, ED_P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, ED_P)
    return x % ED_P, y % ED_P


def ed_multiply(scalar: int, point: Point) -> Point:
    """`scalar` times a point of Ed25519, in extended coordinates (one inversion at the end)."""
    total = (0, 1, 1, 0)
    step = (point[0], point[1], 1, point[0] * point[1] % ED_P)
    while scalar:
        if scalar & 1:
            total = _ed_add_extended(total, step)
        step = _ed_add_extended(step, step)
        scalar >>= 1
    inverse = pow(total[2], -1, ED_P)
    return total[0] * inverse % ED_P, total[1] * inverse % ED_P


def _ed_add_extended(p: tuple[int, int, int, int], q: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    a = (p[1] - p[0]) * (q[1] - q[0]) % ED_P
    b = (p[1] + p[0]) * (q[1] + q[0]) % ED_P
    c = 2 * p[3] * q[3] * _ED_D % ED_P
    d = 2 * p[2] * q[2] % ED_P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % ED_P, g * h % ED_P, f * g % ED_P, e * h % ED_P


def ed_decode(encoded: bytes) -> Point:
    """The point of 32 bytes; raises ValueError for what is not canonical or not on the curve."""
    if len(encoded) != 32:
        raise ValueError("expected 32 bytes")
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= ED_P:
        raise ValueError("not canonical")
    numerator, denominator = (y * y - 1) % ED_P, (_ED_D * y * y + 1) % ED_P
    square = numerator * pow(denominator, -1, ED_P) % ED_P
    x = pow(square, (ED_P + 3) // 8, ED_P)
    if (x * x - square) % ED_P:
        x = x * _ED_SQRT_M1 % ED_P
    if (x * x - square) % ED_P or (x == 0 and sign):
        raise ValueError("not on the curve")
    return (ED_P - x if x & 1 != sign else x), y


def ed_encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


ED_G: Point = ed_decode(bytes.fromhex("58" + "66" * 31))
