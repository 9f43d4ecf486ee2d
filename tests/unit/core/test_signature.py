"""Signatures: the nodes' own rules, one encoding for each, and rubbish is a plain no."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from initiator.core.curves import ED25519_L
from initiator.core.signature import Verifier
from initiator.core.signer import Algorithm, PublicKey
from initiator.core.spki import p256_public_key
from initiator.errors import Code, HaltError

P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MESSAGE = b'{"key_type":"secp256k1"}'
SHA256 = ec.ECDSA(hashes.SHA256())

P256, ED25519 = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
KEYS: dict[Algorithm, PublicKey] = {
    "p256": p256_public_key(P256.public_key()),
    "ed25519": PublicKey(algorithm="ed25519", encoded=ED25519.public_key().public_bytes_raw()),
}
VERIFIERS = {algorithm: Verifier(key) for algorithm, key in KEYS.items()}
SIGN: dict[Algorithm, Callable[[bytes], bytes]] = {
    "p256": lambda message: P256.sign(message, SHA256),
    "ed25519": ED25519.sign,
}
both = pytest.mark.parametrize("algorithm", ["p256", "ed25519"])


@both
@given(message=st.binary(max_size=5000))
def test_a_signature_verifies_over_its_message_and_no_other(algorithm: Algorithm, message: bytes) -> None:
    verifier, signature = VERIFIERS[algorithm], SIGN[algorithm](message)
    assert verifier.public_key is KEYS[algorithm]
    assert verifier.verify(message, signature)
    assert not verifier.verify(message + b"\x00", signature)
    assert not verifier.verify(b"\x00" + message, signature)


@both
def test_another_key_did_not_sign_it(algorithm: Algorithm) -> None:
    others: dict[Algorithm, bytes] = {
        "p256": ec.generate_private_key(ec.SECP256R1()).sign(MESSAGE, SHA256),
        "ed25519": Ed25519PrivateKey.generate().sign(MESSAGE),
    }
    assert not VERIFIERS[algorithm].verify(MESSAGE, others[algorithm])


@both
def test_the_other_algorithms_signature_is_none(algorithm: Algorithm) -> None:
    other: Algorithm = "p256" if algorithm == "ed25519" else "ed25519"
    assert not VERIFIERS[algorithm].verify(MESSAGE, SIGN[other](MESSAGE))


@both
@given(bit=st.integers(0, 64 * 8 - 1))
def test_one_changed_bit_is_enough(algorithm: Algorithm, bit: int) -> None:
    signature = bytearray(SIGN[algorithm](MESSAGE))
    signature[bit // 8] ^= 1 << bit % 8
    assert not VERIFIERS[algorithm].verify(MESSAGE, bytes(signature))


@both
@given(message=st.binary(max_size=40), signature=st.binary(max_size=80))
def test_rubbish_is_no_signature_and_no_error(algorithm: Algorithm, message: bytes, signature: bytes) -> None:
    assert VERIFIERS[algorithm].verify(message, signature) is False


# --- P-256


def der(r: bytes, s: bytes) -> bytes:
    return bytes([0x30, len(r) + len(s) + 4, 2, len(r)]) + r + bytes([2, len(s)]) + s


def minimal(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


R, S = decode_dss_signature(SIGN["p256"](MESSAGE))
GOOD = der(minimal(R), minimal(S))


def high_r() -> bytes:
    """A signature whose r would be negative without its leading zero."""
    while True:
        r, s = decode_dss_signature(SIGN["p256"](MESSAGE))
        if r >> 255:
            return der(r.to_bytes(32, "big"), minimal(s))


OTHER_DER: dict[str, bytes] = {
    "nothing": b"",
    "r and s raw": R.to_bytes(32, "big") + S.to_bytes(32, "big"),
    "a byte after it": GOOD + b"\x00",
    "a byte before it": b"\x00" + GOOD,
    "cut short": GOOD[:-1],
    "a zero more before r": der(b"\x00" + minimal(R), minimal(S)),
    "a zero more before s": der(minimal(R), b"\x00" + minimal(S)),
    "r read as negative": high_r(),
    "length spelled long": b"\x30\x81" + GOOD[1:],
    "length left open": b"\x30\x80" + GOOD[2:] + b"\x00\x00",
    "a third integer": bytes([0x30, GOOD[1] + 3]) + GOOD[2:] + b"\x02\x01\x01",
    "a set": b"\x31" + GOOD[1:],
    "r and s swapped": der(minimal(S), minimal(R)),
    "r of zero": der(b"\x00", minimal(S)),
    "s of zero": der(minimal(R), b"\x00"),
    "both zero": der(b"\x00", b"\x00"),
    "both one": der(b"\x01", b"\x01"),
    "r beyond the order": der(minimal(R + P256_N), minimal(S)),
    "s beyond the order": der(minimal(R), minimal(S + P256_N)),
    "s negative": der(minimal(R), (-S).to_bytes(33, "big", signed=True)),
}


def test_the_hand_made_form_is_that_of_openssl() -> None:
    assert encode_dss_signature(R, S) == GOOD
    assert VERIFIERS["p256"].verify(MESSAGE, GOOD)


@pytest.mark.parametrize("name", OTHER_DER)
def test_no_other_encoding_of_a_p256_signature_passes(name: str) -> None:
    assert not VERIFIERS["p256"].verify(MESSAGE, OTHER_DER[name])


def test_high_and_low_s_pass_alike() -> None:
    """KMS makes either, half of each, and the nodes take both."""
    assert VERIFIERS["p256"].verify(MESSAGE, encode_dss_signature(R, P256_N - S))


def test_p256_is_over_sha_256() -> None:
    digest = hashlib.sha256(MESSAGE).digest()
    assert VERIFIERS["p256"].verify(MESSAGE, P256.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
    assert not VERIFIERS["p256"].verify(digest, GOOD)
    assert not VERIFIERS["p256"].verify(MESSAGE, P256.sign(MESSAGE, ec.ECDSA(hashes.SHA384())))


# --- Ed25519

ED_GOOD = ED25519.sign(MESSAGE)
ED_S = int.from_bytes(ED_GOOD[32:], "little")
OTHER_ED: dict[str, bytes] = {
    "nothing": b"",
    "63 bytes": ED_GOOD[:-1],
    "65 bytes": ED_GOOD + b"\x00",
    "halves swapped": ED_GOOD[32:] + ED_GOOD[:32],
    "s beyond the order": ED_GOOD[:32] + (ED_S + ED25519_L).to_bytes(32, "little"),
    "s negated": ED_GOOD[:32] + (ED25519_L - ED_S).to_bytes(32, "little"),
    "zeros": bytes(64),
    "the identity and zero": (1).to_bytes(32, "little") + bytes(32),
    "over the hash": ED25519.sign(hashlib.sha256(MESSAGE).digest()),
}


@pytest.mark.parametrize("name", OTHER_ED)
def test_no_other_form_of_an_ed25519_signature_passes(name: str) -> None:
    assert not VERIFIERS["ed25519"].verify(MESSAGE, OTHER_ED[name])


# --- keys


@pytest.mark.parametrize(
    ("algorithm", "encoded", "reason"),
    [
        ("p256", b"", "expected P-256 SubjectPublicKeyInfo (91 bytes), got 0 bytes of something else"),
        ("p256", KEYS["ed25519"].encoded,
         "expected P-256 SubjectPublicKeyInfo (91 bytes), got 32 bytes (an Ed25519 public key? a private key?)"),
        ("p256", P256.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
         "expected P-256 SubjectPublicKeyInfo (91 bytes), got a raw point (65 bytes, uncompressed)"),
        ("ed25519", KEYS["p256"].encoded,
         "expected an Ed25519 public key (32 bytes), got a P-256 public key (91 bytes)"),
        ("ed25519", (1).to_bytes(32, "little"),
         "expected an Ed25519 public key, got 32 bytes that are not in the prime-order subgroup of Ed25519"),
    ],
    ids=["nothing", "Ed25519 for P-256", "raw point", "P-256 for Ed25519", "small order"],
)  # fmt: skip
def test_a_key_of_another_form_verifies_nothing(algorithm: Algorithm, encoded: bytes, reason: str) -> None:
    with pytest.raises(HaltError) as caught:
        Verifier(PublicKey(algorithm=algorithm, encoded=encoded))
    assert (caught.value.code, caught.value.reason) == (Code.PUBLIC_KEY_INVALID, reason)
