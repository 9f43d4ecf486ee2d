"""Local verification of initiator and authorizer signatures, with the nodes' own rules."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from initiator.core.signer import PublicKey
from initiator.core.spki import p256_from_spki

_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())


class Verifier:
    """Verifies signatures under one public key, loaded once.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`, when constructed with a key of another form.
    """

    def __init__(self, public_key: PublicKey) -> None:
        self.public_key = public_key
        self._p256 = p256_from_spki(public_key.encoded) if public_key.algorithm == "p256" else None
        self._ed25519 = (
            None if self._p256 is not None else ed25519.Ed25519PublicKey.from_public_bytes(public_key.encoded)
        )

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` (DER ECDSA over SHA-256, or 64 bytes of EdDSA) is valid; rubbish is just not."""
        try:
            if self._p256 is not None:
                self._p256.verify(signature, message, _ECDSA_SHA256)
            elif self._ed25519 is not None:
                self._ed25519.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True
