"""Whom a node believes: the event initiator's key, and the authorizers where there are any.

Each node checks each message for itself, over the bytes that it encoded from what it understood.

Source: mpcium's pkg/identity and pkg/encryption.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key

from initiator.dev.nodes.config import Algorithm, NodesConfig
from initiator.dev.nodes.wire import Message, authorizer_raw

_Key: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class RefusedError(Exception):
    """A node does not believe a message; the text is what mpcium says."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The keys of one cluster's config."""

    initiator: _Key
    authorizers: dict[str, _Key]
    required: tuple[str, ...]

    @classmethod
    def load(cls, config: NodesConfig) -> Trust:
        """Read the keys.

        Raises:
            ValueError: a key that mpcium would refuse at its start.
        """
        listed = {name: _load(key.public_key, key.algorithm, False) for name, key in config.authorizers.items()}
        return cls(_load(config.pubkey, config.algorithm, True), listed, config.required_authorizers)

    def check(self, message: Message) -> None:
        """Believe a message, or not.

        Raises:
            RefusedError: the initiator's or an authorizer's signature is missing or does not verify.
        """
        if not message.signature:
            raise RefusedError("signature is empty")
        if not _verifies(self.initiator, message.raw(), message.signature):
            by = " from initiator" if isinstance(self.initiator, ed25519.Ed25519PublicKey) else ""
            raise RefusedError(f"invalid signature{by}")
        if self.authorizers:
            self._authorize(message)

    def _authorize(self, message: Message) -> None:
        supplied = {item.authorizer_id for item in message.authorizer_signatures}
        for name in self.required:
            if name not in supplied:
                raise RefusedError(f"missing required authorizer signature: {name}")
        raw = authorizer_raw(message)
        for item in message.authorizer_signatures:
            key = self.authorizers.get(item.authorizer_id)
            if key is None or not _verifies(key, raw, item.signature):
                raise RefusedError(f"authorizer {item.authorizer_id} verification failed")


def _verifies(key: _Key, message: bytes, signature: bytes) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _load(text: str, algorithm: Algorithm, base64_too: bool) -> _Key:
    if algorithm == "ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    try:
        encoded = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        if not base64_too:
            raise
        encoded = _from_base64(text)
    key = load_der_public_key(encoded)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("pubkey: expected a P-256 key")  # noqa: TRY004 - a bad value, whatever its type
    return key


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("pubkey: expected hex or base64") from error
