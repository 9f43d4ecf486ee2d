"""Local verification of initiator and authorizer signatures, with the nodes' own rules.

P-256: strict DER, ECDSA over SHA-256, high and low s alike. Ed25519: 64 bytes over the message itself.
Source: mpcium's `pkg/encryption` and `pkg/identity`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from initiator.core.signer import PublicKey
from initiator.core.spki import ed25519_from_raw, p256_from_spki

_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())


class Verifier:
    """Verifies signatures under one public key, loaded and checked once.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`, when constructed with a key of another form.
    """

    def __init__(self, public_key: PublicKey) -> None:
        self.public_key = public_key
        self._verify = _p256(public_key.encoded) if public_key.algorithm == "p256" else _ed25519(public_key.encoded)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` (DER for P-256, 64 bytes for Ed25519) signs `message`; rubbish just does not."""
        try:
            self._verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@lru_cache(maxsize=1024)
def verifier(public_key: PublicKey) -> Verifier:
    """That of one key among many: it is kept, since the checks of an Ed25519 key take longer than a verification."""
    return Verifier(public_key)


def _p256(encoded: bytes) -> Callable[[bytes, bytes], None]:
    key = p256_from_spki(encoded)
    return lambda signature, message: key.verify(signature, message, _ECDSA_SHA256)


def _ed25519(encoded: bytes) -> Callable[[bytes, bytes], None]:
    return ed25519_from_raw(encoded).verify
