"""Both secp256k1 engines say the same, whatever they are asked."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from initiator.core import curves
from initiator.core.curves import SECP256K1_N, SECP256K1_P, CurveError
from initiator.core.secp256k1 import CoincurveEngine, Engine, PortableEngine, best_engine

pytest.importorskip("coincurve", reason="the `fast` extra is not installed")

ENGINES: list[Engine] = [PortableEngine(), CoincurveEngine()]
SCALARS = st.integers(1, SECP256K1_N - 1)
G = curves.encode_secp256k1(
    (
        0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
        0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
    )
)
MINUS_G = curves.encode_secp256k1(curves.multiply_secp256k1(SECP256K1_N - 1, curves.decode_secp256k1(G)))


def key(scalar: int) -> bytes:
    return curves.encode_secp256k1(curves.multiply_secp256k1(scalar, curves.decode_secp256k1(G)))


def signature(scalar: int, nonce: int, digest: bytes) -> tuple[int, int, int]:
    """r, s and recovery id by the textbook; s is not made low here."""
    x, y = curves.multiply_secp256k1(nonce, curves.decode_secp256k1(G))
    r = x % SECP256K1_N
    s = pow(nonce, -1, SECP256K1_N) * (int.from_bytes(digest, "big") + r * scalar) % SECP256K1_N
    return r, s, (y & 1) + (2 if x >= SECP256K1_N else 0)


def test_the_fast_engine_is_taken_where_it_is_installed() -> None:
    assert isinstance(best_engine(), CoincurveEngine)


def test_without_coincurve_the_portable_engine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    assert isinstance(best_engine(), PortableEngine)


@settings(deadline=None, max_examples=30)
@given(SCALARS, SCALARS)
@example(1, 1)  # doubling
def test_both_add_the_same(scalar: int, summand: int) -> None:
    if (scalar + summand) % SECP256K1_N == 0:
        return
    expected = key((scalar + summand) % SECP256K1_N)
    assert [engine.add_base(key(scalar), summand) for engine in ENGINES] == [expected, expected]


@settings(deadline=None, max_examples=30)
@given(SCALARS, SCALARS, st.binary(min_size=32, max_size=32), st.integers(0, 3))
def test_both_verify_the_same_with_any_recovery_id(scalar: int, nonce: int, digest: bytes, recovery: int) -> None:
    r, s, right = signature(scalar, nonce, digest)
    if s == 0:
        return
    expected = recovery == right
    assert [engine.verify(key(scalar), digest, r, s, recovery) for engine in ENGINES] == [expected, expected]


@settings(deadline=None, max_examples=30)
@given(SCALARS, st.binary(min_size=32, max_size=32), SCALARS, SCALARS, st.integers(0, 3))
def test_both_refuse_random_signatures(scalar: int, digest: bytes, r: int, s: int, recovery: int) -> None:
    assert [engine.verify(key(scalar), digest, r, s, recovery) for engine in ENGINES] == [False, False]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_each_verifies_a_digest_of_zeros_and_one_above_the_order(engine: Engine) -> None:
    for digest in (bytes(32), b"\xff" * 32, hashlib.sha256(b"x").digest()):
        r, s, recovery = signature(5, 77, digest)
        assert engine.verify(key(5), digest, r, s, recovery)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_each_knows_a_nonce_point_whose_x_is_above_the_order(engine: Engine) -> None:
    x = SECP256K1_N + 1
    while pow(square := (x**3 + 7) % SECP256K1_P, (SECP256K1_P - 1) // 2, SECP256K1_P) != 1:
        x += 1
    nonce = (x, pow(square, (SECP256K1_P + 1) // 4, SECP256K1_P))
    r, s, digest = x - SECP256K1_N, 4321, bytes(31) + b"\x09"
    # no private key is needed: the key is the one that this signature leads to, Q = (s R - z G) / r
    z_g = curves.multiply_secp256k1(SECP256K1_N - 9, curves.decode_secp256k1(G))
    s_r = curves.multiply_secp256k1(s, nonce)
    found = curves.multiply_secp256k1(pow(r, -1, SECP256K1_N), curves.add_secp256k1(s_r, z_g))
    key_of_it = curves.encode_secp256k1(found)
    right = 2 + (nonce[1] & 1)
    assert [engine.verify(key_of_it, digest, r, s, recovery) for recovery in range(4)] == [i == right for i in range(4)]


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: type(engine).__name__)
def test_each_refuses_what_is_no_point_and_what_has_no_sum(engine: Engine) -> None:
    with pytest.raises(CurveError, match="not a point"):
        engine.add_base(bytes(64), 1)
    with pytest.raises(CurveError, match="not a point"):
        engine.verify(bytes(64), bytes(32), 1, 1, 0)
    with pytest.raises(CurveError, match="infinity"):
        engine.add_base(MINUS_G, 1)
