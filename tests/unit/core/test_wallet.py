"""Wallet keys and signatures: what proves itself, what cannot be checked, and what is a forgery."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from initiator.core import ckd, curves
from initiator.core.curves import ED25519_L, SECP256K1_N
from initiator.core.model import KeyType, Operation
from initiator.core.result import EcdsaSignature, EddsaSignature, KeygenKeys, NodeResult, ReshareKey, Value
from initiator.core.wallet import (
    Status,
    Verification,
    WalletKeys,
    check_keygen,
    verify_reshare,
    verify_signature,
)
from initiator.errors import Code, RejectError

K1_SCALAR = 0x1D_3F5A_9C71_0000_0001_2345_6789_ABCD_EF01_2345_6789_ABCD_EF01_2345
ED_SEED = bytes(range(32))
CHAIN_CODE = hashlib.sha256(b"a cluster's chain code").digest()
TX = hashlib.sha256(b"a transaction").digest()
PATH = (44, 60, 0, 0, 7)


def k1_public(scalar: int) -> bytes:
    numbers = ec.derive_private_key(scalar, ec.SECP256K1()).public_key().public_numbers()
    return curves.encode_secp256k1((numbers.x, numbers.y))


KEYS = WalletKeys(
    ecdsa=k1_public(K1_SCALAR), eddsa=Ed25519PrivateKey.from_private_bytes(ED_SEED).public_key().public_bytes_raw()
)


def result(value: Value | None, operation: Operation = Operation.SIGN) -> NodeResult:
    return NodeResult(
        operation=operation,
        success=value is not None,
        error_code="",
        error_reason="",
        wallet_id="w1",
        operation_id="t1",
        value=value,
    )


def sign_ecdsa(scalar: int, digest: bytes) -> EcdsaSignature:
    """By OpenSSL, then made low; the recovery id by trying."""
    der = ec.derive_private_key(scalar, ec.SECP256K1()).sign(digest, ec.ECDSA(Prehashed(SHA256())))
    r, s = decode_dss_signature(der)
    s = min(s, SECP256K1_N - s)
    z = int.from_bytes(digest, "big")
    nonce = pow(s, -1, SECP256K1_N) * (z + r * scalar) % SECP256K1_N
    y = int.from_bytes(k1_public(nonce)[32:], "big")
    return EcdsaSignature(r=r.to_bytes(32, "big"), s=s.to_bytes(32, "big"), recovery=y & 1)


def verify(
    value: Value | None,
    *,
    key_type: KeyType = KeyType.SECP256K1,
    tx: bytes = TX,
    path: tuple[int, ...] | None = None,
    keys: WalletKeys | None = KEYS,
    chain_code: bytes | None = CHAIN_CODE,
) -> Verification:
    return verify_signature(
        key_type=key_type, tx=tx, derivation_path=path, result=result(value), keys=keys, chain_code=chain_code
    )


ECDSA = sign_ecdsa(K1_SCALAR, TX)
EDDSA = EddsaSignature(signature=Ed25519PrivateKey.from_private_bytes(ED_SEED).sign(TX))


def k1_child_scalar(path: tuple[int, ...]) -> int:
    """The private child, for the test's own signer; the public one is what mpcium's vectors prove."""
    import hmac

    scalar, chain_code = K1_SCALAR, CHAIN_CODE
    for index in path:
        public = k1_public(scalar)
        parent = bytes([2 + (public[63] & 1)]) + public[:32]
        both = hmac.digest(chain_code, parent + index.to_bytes(4, "big"), "sha512")
        scalar, chain_code = (scalar + int.from_bytes(both[:32], "big")) % SECP256K1_N, both[32:]
    return scalar


# --- ECDSA


def test_an_ecdsa_signature_under_the_wallets_key_is_verified() -> None:
    assert verify(ECDSA) == Verification(Status.VERIFIED)


def test_an_ecdsa_signature_under_the_child_key_is_verified() -> None:
    child = sign_ecdsa(k1_child_scalar(PATH), TX)
    assert verify(child, path=PATH).status is Status.VERIFIED


def test_a_signature_under_the_wallets_own_key_is_none_under_a_path() -> None:
    assert verify(ECDSA, path=PATH).status is Status.INVALID


def test_a_signature_under_the_child_key_is_none_without_its_path() -> None:
    child = sign_ecdsa(k1_child_scalar(PATH), TX)
    assert verify(child).status is Status.INVALID
    assert verify(child, path=(*PATH, 0)).status is Status.INVALID
    assert verify(child, path=PATH, chain_code=bytes(32)).status is Status.INVALID


def test_an_empty_path_is_no_path_and_needs_no_chain_code() -> None:
    assert verify(ECDSA, path=(), chain_code=None).status is Status.VERIFIED


def test_the_high_s_of_the_same_signature_is_invalid() -> None:
    high = SECP256K1_N - int.from_bytes(ECDSA.s, "big")
    flipped = replace(ECDSA, s=high.to_bytes(32, "big"), recovery=ECDSA.recovery ^ 1)
    assert verify(flipped) == Verification(Status.INVALID, "expected the low s, got the high one")


@pytest.mark.parametrize("recovery", [0, 1, 2, 3])
def test_only_the_recovery_id_that_leads_to_the_key_is_verified(recovery: int) -> None:
    expected = Status.VERIFIED if recovery == ECDSA.recovery else Status.INVALID
    assert verify(replace(ECDSA, recovery=recovery)).status is expected


@pytest.mark.parametrize(
    ("change", "number"),
    [("r", 0), ("s", 0), ("r", SECP256K1_N), ("s", SECP256K1_N), ("r", 2**256 - 1), ("s", 2**256 - 1)],
)
def test_r_and_s_outside_the_group_are_invalid(change: str, number: int) -> None:
    encoded = number.to_bytes(32, "big")
    outside = replace(ECDSA, r=encoded) if change == "r" else replace(ECDSA, s=encoded)
    assert verify(outside) == Verification(Status.INVALID, "expected r and s from 1 to the curve's order")


@pytest.mark.parametrize("tx", [b"", TX[:31], TX + b"\x00", b"\x00" + TX])
def test_an_ecdsa_tx_of_another_length_is_invalid(tx: bytes) -> None:
    assert verify(ECDSA, tx=tx).reason.startswith("expected a tx of 32 bytes")


def test_a_tx_of_zeros_can_be_signed_and_verified() -> None:
    assert verify(sign_ecdsa(K1_SCALAR, bytes(32)), tx=bytes(32)).status is Status.VERIFIED


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 255), st.sampled_from(["tx", "r", "s", "key"]))
def test_one_flipped_bit_anywhere_makes_it_invalid(bit: int, where: str) -> None:
    def flip(data: bytes) -> bytes:
        return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")

    assert KEYS.ecdsa is not None
    changed = {
        "tx": lambda: verify(ECDSA, tx=flip(TX)),
        "r": lambda: verify(replace(ECDSA, r=flip(ECDSA.r))),
        "s": lambda: verify(replace(ECDSA, s=flip(ECDSA.s))),
        "key": lambda: verify(ECDSA, keys=WalletKeys(ecdsa=flip(KEYS.ecdsa or b""))),
    }[where]()
    assert changed.status is Status.INVALID


# --- EdDSA


def test_an_eddsa_signature_under_the_wallets_key_is_verified() -> None:
    assert verify(EDDSA, key_type=KeyType.ED25519) == Verification(Status.VERIFIED)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 511))
def test_one_flipped_bit_of_an_eddsa_signature_makes_it_invalid(bit: int) -> None:
    flipped = (int.from_bytes(EDDSA.signature, "big") ^ 1 << bit).to_bytes(64, "big")
    assert verify(EddsaSignature(signature=flipped), key_type=KeyType.ED25519).status is Status.INVALID


def test_an_eddsa_signature_with_s_plus_the_order_is_invalid() -> None:
    s = int.from_bytes(EDDSA.signature[32:], "little") + ED25519_L
    other = EddsaSignature(signature=EDDSA.signature[:32] + s.to_bytes(32, "little"))
    assert verify(other, key_type=KeyType.ED25519).status is Status.INVALID


def test_an_eddsa_signature_is_none_under_a_path() -> None:
    assert verify(EDDSA, key_type=KeyType.ED25519, path=PATH).status is Status.INVALID


@pytest.mark.parametrize("zeros", [1, 2, 31])
def test_a_signature_without_the_leading_zeros_of_the_tx_is_invalid_and_says_so(zeros: int) -> None:
    tx = bytes(zeros) + TX
    verdict = verify(EDDSA, key_type=KeyType.ED25519, tx=tx)
    assert verdict.status is Status.INVALID
    assert "without its leading zero bytes" in verdict.reason


def test_a_signature_over_the_whole_tx_is_verified_leading_zeros_and_all() -> None:
    tx = bytes(3) + TX
    whole = EddsaSignature(signature=Ed25519PrivateKey.from_private_bytes(ED_SEED).sign(tx))
    assert verify(whole, key_type=KeyType.ED25519, tx=tx).status is Status.VERIFIED


def test_a_tx_with_more_zeros_than_was_signed_is_invalid_for_the_usual_reason() -> None:
    verdict = verify(EDDSA, key_type=KeyType.ED25519, tx=b"\x00another")
    assert verdict == Verification(Status.INVALID, "the signature does not sign this tx under the wallet's key")


# --- both


@pytest.mark.parametrize(("key_type", "value"), [(KeyType.SECP256K1, EDDSA), (KeyType.ED25519, ECDSA)])
def test_a_signature_of_the_other_kind_is_invalid(key_type: KeyType, value: Value) -> None:
    assert verify(value, key_type=key_type) == Verification(Status.INVALID, f"expected a {key_type} signature")


@pytest.mark.parametrize("value", [None, KeygenKeys(ecdsa_pub_key=bytes(64), eddsa_pub_key=bytes(32))])
def test_what_is_no_signature_is_invalid(value: Value | None) -> None:
    assert verify(value).status is Status.INVALID


@pytest.mark.parametrize(("key_type", "value"), [(KeyType.SECP256K1, ECDSA), (KeyType.ED25519, EDDSA)])
@pytest.mark.parametrize("keys", [None, WalletKeys()])
def test_without_the_wallets_key_it_is_unverified(key_type: KeyType, value: Value, keys: WalletKeys | None) -> None:
    verdict = verify(value, key_type=key_type, keys=keys)
    assert verdict == Verification(Status.UNVERIFIED, f"the wallet's {key_type} key is not known")


@pytest.mark.parametrize(("key_type", "value"), [(KeyType.SECP256K1, ECDSA), (KeyType.ED25519, EDDSA)])
def test_without_the_chain_code_a_path_is_unverified(key_type: KeyType, value: Value) -> None:
    verdict = verify(value, key_type=key_type, path=PATH, chain_code=None)
    assert verdict == Verification(Status.UNVERIFIED, "the cluster's chain_code is not configured")


@pytest.mark.parametrize(("key_type", "value"), [(KeyType.SECP256K1, ECDSA), (KeyType.ED25519, EDDSA)])
def test_under_a_hardened_path_there_is_nothing_to_verify_with(key_type: KeyType, value: Value) -> None:
    verdict = verify(value, key_type=key_type, path=(2**31,))
    assert verdict.status is Status.INVALID
    assert verdict.reason.startswith("no key to verify with")


def test_a_malleable_signature_is_invalid_even_where_the_wallet_is_not_known() -> None:
    high = replace(ECDSA, s=(SECP256K1_N - 1).to_bytes(32, "big"))
    assert verify(high, keys=None).status is Status.INVALID


# --- keygen and reshare


def keygen(ecdsa: bytes, eddsa: bytes) -> NodeResult:
    return result(KeygenKeys(ecdsa_pub_key=ecdsa, eddsa_pub_key=eddsa), Operation.KEYGEN)


def test_the_keys_of_a_keygen_become_the_wallets() -> None:
    assert KEYS.ecdsa is not None
    assert KEYS.eddsa is not None
    assert check_keygen(keygen(KEYS.ecdsa, KEYS.eddsa)) == KEYS
    assert KEYS.of(KeyType.SECP256K1) == KEYS.ecdsa
    assert KEYS.of(KeyType.ED25519) == KEYS.eddsa


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (KeygenKeys(ecdsa_pub_key=bytes(64), eddsa_pub_key=KEYS.eddsa or b""), "ecdsa_pub_key"),
        (KeygenKeys(ecdsa_pub_key=b"\xff" * 64, eddsa_pub_key=KEYS.eddsa or b""), "ecdsa_pub_key"),
        (KeygenKeys(ecdsa_pub_key=KEYS.ecdsa or b"", eddsa_pub_key=(2).to_bytes(32, "little")), "eddsa_pub_key"),
        (KeygenKeys(ecdsa_pub_key=KEYS.ecdsa or b"", eddsa_pub_key=(1).to_bytes(32, "little")), "eddsa_pub_key"),
        (KeygenKeys(ecdsa_pub_key=KEYS.ecdsa or b"", eddsa_pub_key=bytes(32)), "eddsa_pub_key"),
        (None, "result"),
        (EDDSA, "result"),
    ],
)
def test_a_keygen_without_two_usable_keys_is_refused(value: Value | None, field: str) -> None:
    with pytest.raises(RejectError) as caught:
        check_keygen(result(value, Operation.KEYGEN))
    assert (caught.value.code, caught.value.field) == (Code.RESULT_INVALID, field)


def reshare(key_type: KeyType, pub_key: bytes, keys: WalletKeys | None = KEYS) -> Verification:
    value = ReshareKey(key_type=key_type, pub_key=pub_key, new_threshold=2)
    return verify_reshare(result(value, Operation.RESHARE), keys)


@pytest.mark.parametrize("key_type", list(KeyType))
def test_a_reshare_that_keeps_the_wallets_key_is_verified(key_type: KeyType) -> None:
    assert reshare(key_type, KEYS.of(key_type) or b"") == Verification(Status.VERIFIED)


def test_a_reshare_into_another_key_is_invalid() -> None:
    other = ckd.derive_ed25519(KEYS.eddsa or b"", CHAIN_CODE, [1])
    verdict = reshare(KeyType.ED25519, other)
    assert verdict == Verification(Status.INVALID, "expected the wallet's own public key, got another")
    assert reshare(KeyType.SECP256K1, k1_public(5)).status is Status.INVALID


@pytest.mark.parametrize("keys", [None, WalletKeys()])
def test_a_reshare_of_an_unknown_wallet_is_unverified(keys: WalletKeys | None) -> None:
    assert reshare(KeyType.SECP256K1, KEYS.ecdsa or b"", keys).status is Status.UNVERIFIED


@pytest.mark.parametrize(
    ("key_type", "pub_key"),
    [(KeyType.SECP256K1, bytes(64)), (KeyType.ED25519, bytes(32)), (KeyType.ED25519, (2).to_bytes(32, "little"))],
)
def test_a_reshare_into_no_key_is_invalid_whoever_the_wallet_is(key_type: KeyType, pub_key: bytes) -> None:
    assert reshare(key_type, pub_key, None).status is Status.INVALID


def test_what_is_no_reshare_is_invalid() -> None:
    assert verify_reshare(result(EDDSA, Operation.RESHARE), KEYS).status is Status.INVALID
