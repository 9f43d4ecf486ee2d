"""Wallet keys of the simulation: real secp256k1 and Ed25519 keys, children and signatures.

A cluster never holds such a key in one place. The simulation does, since what goes over the wire is the same; it
must never hold anything of value.

Sources: mpcium's pkg/ckdutil (children) and tss-lib's finalize rounds (low S, recovery id, what is signed).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec

from initiator.dev.nodes import edwards

KeyType: TypeAlias = Literal["secp256k1", "ed25519"]
KEY_TYPES: tuple[KeyType, ...] = ("secp256k1", "ed25519")
K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_ORDERS: dict[KeyType, int] = {"secp256k1": K1_ORDER, "ed25519": edwards.ORDER}
_HARDENED = 1 << 31


class SigningError(Exception):
    """A protocol run fails.

    Args:
        context: what mpcium's node was doing, in its words.
        reason: what went wrong, in its words: the error code is guessed from this.
    """

    def __init__(self, context: str, reason: str) -> None:
        super().__init__(reason)
        self.context = context


@dataclass(frozen=True, slots=True, kw_only=True)
class EcdsaSignature:
    r: bytes
    s: bytes
    recovery: bytes


def new_scalar(key_type: KeyType) -> int:
    """A fresh private key."""
    return 1 + secrets.randbelow(_ORDERS[key_type] - 1)


@lru_cache(maxsize=65_536)
def _point(key_type: KeyType, scalar: int) -> tuple[int, int]:
    if key_type == "ed25519":
        return edwards.point(scalar)
    numbers = ec.derive_private_key(scalar, ec.SECP256K1()).public_key().public_numbers()
    return numbers.x, numbers.y


def public_key(key_type: KeyType, scalar: int) -> bytes:
    """As results carry it: X‖Y for secp256k1, the compressed 32 bytes for Ed25519."""
    x, y = _point(key_type, scalar)
    return edwards.encode(x, y) if key_type == "ed25519" else x.to_bytes(32, "big") + y.to_bytes(32, "big")


def child(key_type: KeyType, scalar: int, chain_code: bytes, path: Sequence[int]) -> int:
    """The private key at a path.

    Raises:
        SigningError: a hardened index, as on the nodes.
    """
    order = _ORDERS[key_type]
    for index in path:
        if index >= _HARDENED:
            raise SigningError("Failed to init signing session", "the index must be non-hardened")
        x, y = _point(key_type, scalar)
        parent = (b"\x03" if y % 2 else b"\x02") + x.to_bytes(32, "big")
        both = hmac.new(chain_code, parent + index.to_bytes(4, "big"), hashlib.sha512).digest()
        scalar = (scalar + int.from_bytes(both[:32], "big")) % order
        chain_code = both[32:]
    return scalar


def sign_ecdsa(scalar: int, tx: bytes) -> EcdsaSignature:
    """r, the low s and the recovery id over a number; the same every time, so that all nodes say the same.

    Raises:
        SigningError: the number is not below the curve's order.
    """
    z = int.from_bytes(tx, "big")
    if z >= K1_ORDER:
        raise SigningError("Failed to sign tx", "hashed message is not valid")
    secret, message = scalar.to_bytes(32, "big"), z.to_bytes(32, "big")
    nonce = 1 + int.from_bytes(hmac.new(secret, b"nonce" + message, hashlib.sha512).digest(), "big") % (K1_ORDER - 1)
    x, y = _uncached_k1(nonce)
    r = x % K1_ORDER
    s = pow(nonce, -1, K1_ORDER) * (z + r * scalar) % K1_ORDER
    recovery = (2 if x >= K1_ORDER else 0) | y % 2
    if s > K1_ORDER // 2:
        s, recovery = K1_ORDER - s, recovery ^ 1
    return EcdsaSignature(r=r.to_bytes(32, "big"), s=s.to_bytes(32, "big"), recovery=bytes([recovery]))


def sign_eddsa(scalar: int, tx: bytes) -> bytes:
    """64 bytes over what is left of the tx once it went through a big integer: leading zero bytes are lost."""
    return edwards.sign(scalar, public_key("ed25519", scalar), tx.lstrip(b"\x00"))


def _uncached_k1(scalar: int) -> tuple[int, int]:
    numbers = ec.derive_private_key(scalar, ec.SECP256K1()).public_key().public_numbers()
    return numbers.x, numbers.y
