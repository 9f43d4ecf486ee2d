"""The two secp256k1 operations that cost time, behind one seam: portable by default, libsecp256k1 where installed.

`ENGINE` is the one in use: coincurve (the `fast` extra) if it can be imported, else OpenSSL through `cryptography`.
Both give equal answers; tests/unit/core/test_wallet_engines.py compares them.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from initiator.core.curves import (
    SECP256K1_N,
    AffinePoint,
    CurveError,
    add_secp256k1,
    decode_secp256k1,
    encode_secp256k1,
    multiply_secp256k1,
)


class Engine(Protocol):
    """Public keys are X‖Y (64 bytes) and on the curve, digests 32 bytes, scalars and r, s in [1, n)."""

    def add_base(self, pub_key: bytes, scalar: int) -> bytes:
        """pub_key + scalar · G.

        Raises:
            CurveError: the key is no point of the curve, or the sum is the point at infinity.
        """
        ...

    def verify(self, pub_key: bytes, digest: bytes, r: int, s: int, recovery: int) -> bool:
        """Whether (r, s) signs `digest` under `pub_key` and `recovery` leads from the signature to that key.

        Raises:
            CurveError: the key is no point of the curve.
        """
        ...


class PortableEngine:
    """OpenSSL for the signature and for multiples of G, integers for the rest: about 2 ms per verification."""

    def add_base(self, pub_key: bytes, scalar: int) -> bytes:
        return encode_secp256k1(add_secp256k1(decode_secp256k1(pub_key), _multiply_base(scalar)))

    def verify(self, pub_key: bytes, digest: bytes, r: int, s: int, recovery: int) -> bool:
        point = decode_secp256k1(pub_key)
        key = ec.EllipticCurvePublicNumbers(*point, ec.SECP256K1()).public_key()
        try:
            key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(SHA256())))
        except InvalidSignature:
            return False
        # the nonce point R = (z/s) G + (r/s) Q; the recovery id tells which of the points with x ≡ r it is
        inverse = pow(s, -1, SECP256K1_N)
        nonce = multiply_secp256k1(r * inverse % SECP256K1_N, point)
        u = int.from_bytes(digest, "big") * inverse % SECP256K1_N
        if u:
            nonce = add_secp256k1(nonce, _multiply_base(u))
        return recovery == (nonce[1] & 1) + (2 if nonce[0] >= SECP256K1_N else 0)


class CoincurveEngine:
    """libsecp256k1: a recovered key that equals the expected one is a verified signature.

    Raises:
        ImportError: coincurve is not installed.
    """

    def __init__(self) -> None:
        self._key: Any = importlib.import_module("coincurve").PublicKey

    def add_base(self, pub_key: bytes, scalar: int) -> bytes:
        decode_secp256k1(pub_key)
        try:
            total: bytes = self._key(b"\x04" + pub_key).add(scalar.to_bytes(32, "big")).format(compressed=False)
        except ValueError as error:
            raise CurveError("the sum is the point at infinity") from error
        return total[1:]

    def verify(self, pub_key: bytes, digest: bytes, r: int, s: int, recovery: int) -> bool:
        decode_secp256k1(pub_key)
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([recovery])
        try:
            found: bytes = self._key.from_signature_and_message(signature, digest, hasher=None).format(compressed=False)
        except Exception:  # coincurve raises plain Exceptions where no key can be recovered
            return False
        return found[1:] == pub_key


def _multiply_base(scalar: int) -> AffinePoint:
    numbers = ec.derive_private_key(scalar, ec.SECP256K1()).public_key().public_numbers()
    return numbers.x, numbers.y


def best_engine() -> Engine:
    """The fastest engine that is installed."""
    try:
        return CoincurveEngine()
    except ImportError:
        return PortableEngine()


ENGINE: Engine = best_engine()
