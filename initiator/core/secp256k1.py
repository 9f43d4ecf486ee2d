"""The two secp256k1 operations that cost time, behind one seam: portable by default, libsecp256k1 where installed.

`ENGINE` is the one in use: coincurve (the `fast` extra) if it can be imported, else OpenSSL through `cryptography`.
Both give equal answers; tests/unit/core/test_wallet_engines.py compares them.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from initiator.core.curves import (
    SECP256K1_N,
    CurveError,
    add_secp256k1,
    decode_secp256k1,
    encode_secp256k1,
    multiply_secp256k1,
)

try:
    import coincurve
except ImportError:  # the `fast` extra is not installed
    coincurve = None


class Engine(Protocol):
    """Public keys are X‖Y (64 bytes), digests 32 bytes, scalars in [1, n)."""

    def add_base(self, pub_key: bytes, scalar: int) -> bytes:
        """pub_key + scalar · G.

        Raises:
            CurveError: the key is no point of the curve, or the sum is the point at infinity.
        """
        ...

    def verify(self, pub_key: bytes, digest: bytes, r: int, s: int, recovery: int) -> bool:
        """Whether (r, s) signs `digest` under `pub_key` and `recovery` leads from the signature to that key."""
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
    """libsecp256k1: a recovered key that equals the expected one is a verified signature. About 50 µs."""

    def add_base(self, pub_key: bytes, scalar: int) -> bytes:
        decode_secp256k1(pub_key)
        try:
            total = coincurve.PublicKey(b"\x04" + pub_key).add(scalar.to_bytes(32, "big"))
        except ValueError as error:
            raise CurveError("the sum is the point at infinity") from error
        return bytes(total.format(compressed=False)[1:])

    def verify(self, pub_key: bytes, digest: bytes, r: int, s: int, recovery: int) -> bool:
        decode_secp256k1(pub_key)
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([recovery])
        try:
            found = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
        except Exception:  # noqa: BLE001 - coincurve raises a plain Exception where no key can be recovered
            return False
        return bytes(found.format(compressed=False)[1:]) == pub_key


def _multiply_base(scalar: int) -> tuple[int, int]:
    numbers = ec.derive_private_key(scalar, ec.SECP256K1()).public_key().public_numbers()
    return numbers.x, numbers.y


ENGINE: Engine = PortableEngine() if coincurve is None else CoincurveEngine()
