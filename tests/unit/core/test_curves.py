"""Points: what is one, what is not, and that the arithmetic is the curves' own."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from initiator.core import curves
from initiator.core.curves import ED25519_L, ED25519_P, SECP256K1_N, SECP256K1_P, CurveError

SCALARS = st.integers(1, SECP256K1_N - 1)
SMALL_ORDER = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)


def k1_base(scalar: int) -> tuple[int, int]:
    """scalar · G by OpenSSL."""
    numbers = ec.derive_private_key(scalar, ec.SECP256K1()).public_key().public_numbers()
    return numbers.x, numbers.y


def ed_scalar(seed: bytes) -> int:
    """The private scalar that RFC 8032 makes of a seed."""
    value = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return (value & ((1 << 254) - 8)) | (1 << 254)


@settings(deadline=None, max_examples=40)
@given(SCALARS, SCALARS)
def test_multiplying_a_secp256k1_point_agrees_with_openssl(a: int, b: int) -> None:
    assert curves.multiply_secp256k1(a, k1_base(b)) == k1_base(a * b % SECP256K1_N)


@settings(deadline=None, max_examples=40)
@given(SCALARS, SCALARS)
def test_adding_secp256k1_points_agrees_with_openssl(a: int, b: int) -> None:
    if (a + b) % SECP256K1_N == 0:
        return
    assert curves.add_secp256k1(k1_base(a), k1_base(b)) == k1_base((a + b) % SECP256K1_N)


@pytest.mark.parametrize("scalar", [1, 2, 3, 15, 16, 17, 255, SECP256K1_N - 1])
def test_small_and_large_multiples_of_a_point_are_right(scalar: int) -> None:
    assert curves.multiply_secp256k1(scalar, k1_base(1)) == k1_base(scalar)


@pytest.mark.parametrize("scalar", [0, -1, SECP256K1_N])
def test_a_scalar_outside_the_group_is_refused(scalar: int) -> None:
    with pytest.raises(CurveError, match="scalar"):
        curves.multiply_secp256k1(scalar, k1_base(1))


def test_doubling_is_addition_to_itself() -> None:
    assert curves.add_secp256k1(k1_base(7), k1_base(7)) == k1_base(14)


def test_a_point_and_its_negative_have_no_sum() -> None:
    with pytest.raises(CurveError, match="infinity"):
        curves.add_secp256k1(k1_base(7), k1_base(SECP256K1_N - 7))


def test_a_secp256k1_point_survives_its_encoding() -> None:
    encoded = curves.encode_secp256k1(k1_base(5))
    assert len(encoded) == 64
    assert curves.decode_secp256k1(encoded) == k1_base(5)


_X, _Y = k1_base(5)
_Y_OF_1 = pow(8, (SECP256K1_P + 1) // 4, SECP256K1_P)


def test_the_point_with_x_1_is_a_point() -> None:
    assert curves.decode_secp256k1((1).to_bytes(32, "big") + _Y_OF_1.to_bytes(32, "big")) == (1, _Y_OF_1)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "expected 64 bytes, got 0"),
        (_X.to_bytes(32, "big"), "expected 64 bytes, got 32"),
        (b"\x04" + _X.to_bytes(32, "big") + _Y.to_bytes(32, "big"), "expected 64 bytes, got 65"),
        (bytes(64), "not a point"),
        (_X.to_bytes(32, "big") + (_Y ^ 1).to_bytes(32, "big"), "not a point"),
        (_X.to_bytes(32, "big") + (SECP256K1_P).to_bytes(32, "big"), "not a point"),
        ((SECP256K1_P).to_bytes(32, "big") + _Y.to_bytes(32, "big"), "not a point"),
        (b"\xff" * 64, "not a point"),
        (
            (SECP256K1_P + 1).to_bytes(32, "big") + _Y_OF_1.to_bytes(32, "big"),
            "not a point",
        ),  # x = 1 under another name
    ],
)
def test_what_is_no_secp256k1_point_is_refused(encoded: bytes, reason: str) -> None:
    with pytest.raises(CurveError, match=reason):
        curves.decode_secp256k1(encoded)


@settings(deadline=None, max_examples=40)
@given(st.binary(min_size=32, max_size=32))
def test_multiples_of_the_ed25519_base_agree_with_openssl(seed: bytes) -> None:
    expected = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    point = curves.multiply_ed25519_base(ed_scalar(seed))
    assert curves.encode_ed25519(point) == expected
    assert curves.decode_ed25519_key(expected) == point


@settings(deadline=None, max_examples=20)
@given(st.integers(0, ED25519_L - 1), st.integers(0, ED25519_L - 1))
def test_adding_ed25519_points_adds_their_scalars(a: int, b: int) -> None:
    total = curves.add_ed25519(curves.multiply_ed25519_base(a), curves.multiply_ed25519_base(b))
    assert total == curves.multiply_ed25519_base((a + b) % ED25519_L)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "expected 32 bytes, got 0"),
        (bytes(33), "expected 32 bytes, got 33"),
        (ED25519_P.to_bytes(32, "little"), "not a canonical"),  # y = 0 under another name
        ((ED25519_P + 1).to_bytes(32, "little"), "not a canonical"),
        (b"\xff" * 32, "not a canonical"),
        ((1 | 1 << 255).to_bytes(32, "little"), "not a canonical"),  # x = 0 with a sign
        ((2).to_bytes(32, "little"), "not a point"),
    ],
)
def test_what_is_no_ed25519_point_is_refused(encoded: bytes, reason: str) -> None:
    with pytest.raises(CurveError, match=reason):
        curves.decode_ed25519(encoded)


@pytest.mark.parametrize("encoded", SMALL_ORDER)
def test_a_point_of_small_order_is_a_point_but_no_key(encoded: str) -> None:
    curves.decode_ed25519(bytes.fromhex(encoded))
    with pytest.raises(CurveError, match="prime-order subgroup"):
        curves.decode_ed25519_key(bytes.fromhex(encoded))


def test_a_key_with_a_small_order_part_is_no_key() -> None:
    torsion = curves.decode_ed25519(bytes.fromhex(SMALL_ORDER[4]))
    mixed = curves.add_ed25519(curves.multiply_ed25519_base(12345), torsion)
    with pytest.raises(CurveError, match="prime-order subgroup"):
        curves.decode_ed25519_key(curves.encode_ed25519(mixed))
