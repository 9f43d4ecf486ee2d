"""The simulation's wallet keys: real ones, and the children that mpcium's own code derives."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from initiator.core import ckd
from initiator.dev.nodes import edwards, keys
from initiator.dev.nodes.keys import K1_ORDER, KeyType, SigningError

SCALARS = st.integers(1, edwards.ORDER - 1)
PATHS = st.lists(st.integers(0, 2**31 - 1), max_size=4)


@settings(deadline=None, max_examples=30)
@given(SCALARS, st.binary(min_size=1, max_size=100))
def test_eddsa_signatures_verify_with_openssl(scalar: int, tx: bytes) -> None:
    public = Ed25519PublicKey.from_public_bytes(keys.public_key("ed25519", scalar))
    public.verify(keys.sign_eddsa(scalar, tx), tx.lstrip(b"\x00"))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, K1_ORDER - 1), st.integers(0, K1_ORDER - 1))
def test_ecdsa_signatures_verify_with_openssl_and_have_the_low_s(scalar: int, number: int) -> None:
    digest = number.to_bytes(32, "big")
    done = keys.sign_ecdsa(scalar, digest)
    r, s = int.from_bytes(done.r, "big"), int.from_bytes(done.s, "big")
    public = ec.EllipticCurvePublicKey.from_encoded_point(
        ec.SECP256K1(), b"\x04" + keys.public_key("secp256k1", scalar)
    )
    public.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(SHA256())))
    assert s <= K1_ORDER // 2


def test_a_number_at_or_above_the_order_fails_the_run() -> None:
    with pytest.raises(SigningError, match="hashed message is not valid"):
        keys.sign_ecdsa(7, K1_ORDER.to_bytes(32, "big"))


def test_a_tx_with_leading_zeros_is_signed_as_a_number() -> None:
    assert keys.sign_ecdsa(7, b"\x01\x02") == keys.sign_ecdsa(7, bytes(30) + b"\x01\x02")


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(keys.KEY_TYPES), SCALARS, st.binary(min_size=32, max_size=32), PATHS)
def test_private_children_belong_to_the_public_ones(
    key_type: KeyType, scalar: int, chain_code: bytes, path: list[int]
) -> None:
    derive = ckd.derive_secp256k1 if key_type == "secp256k1" else ckd.derive_ed25519
    expected = derive(keys.public_key(key_type, scalar), chain_code, path)
    assert keys.public_key(key_type, keys.child(key_type, scalar, chain_code, path)) == expected


@pytest.mark.parametrize("key_type", keys.KEY_TYPES)
def test_a_hardened_index_fails_the_run(key_type: KeyType) -> None:
    with pytest.raises(SigningError, match="non-hardened"):
        keys.child(key_type, 7, bytes(32), [2**31])


@pytest.mark.parametrize("key_type", keys.KEY_TYPES)
def test_new_keys_are_in_range_and_differ(key_type: KeyType) -> None:
    made = {keys.new_scalar(key_type) for _ in range(20)}
    assert len(made) == 20
    assert all(0 < scalar < K1_ORDER for scalar in made)
