"""Public keys in the exact form that mpcium's config takes, and nothing near it.

Invariant: a P-256 key is SubjectPublicKeyInfo of 91 bytes with the named-curve, uncompressed-point prefix; its
point is on the curve. `cryptography` would also load compressed points, explicit parameters, other curves and RSA.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from initiator.core.signer import Algorithm, PublicKey
from initiator.errors import Code, HaltError

P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
P256_LENGTH = 91
ED25519_LENGTH = 32
_HINT = "mpcium takes SubjectPublicKeyInfo DER as hex or base64; `initiator key show` prints it"


def _invalid(reason: str) -> HaltError:
    return HaltError(Code.PUBLIC_KEY_INVALID, reason, field="event_initiator_pubkey", hint=_HINT)


def p256_from_spki(der: bytes) -> ec.EllipticCurvePublicKey:
    """The key in `der`.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`, saying what form came instead.
    """
    if len(der) != P256_LENGTH or not der.startswith(P256_PREFIX):
        raise _invalid(f"expected {P256_LENGTH} bytes of P-256 SubjectPublicKeyInfo, got {_describe(der)}")
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid("the point is not on P-256") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _invalid("not an elliptic-curve key")
    return key


def p256_public_key(key: ec.EllipticCurvePublicKey) -> PublicKey:
    """Our form of a `cryptography` key."""
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    p256_from_spki(encoded)
    return PublicKey(algorithm="p256", encoded=encoded)


def parse_public_key(text: str, algorithm: Algorithm = "p256") -> PublicKey:
    """A key as mpcium's config holds it: hex (0x allowed) or base64.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`.
    """
    encoded = _bytes_of(text.strip())
    if algorithm == "p256":
        p256_from_spki(encoded)
    elif len(encoded) != ED25519_LENGTH:
        raise _invalid(f"expected {ED25519_LENGTH} bytes of Ed25519 public key, got {_describe(encoded)}")
    else:
        ed25519.Ed25519PublicKey.from_public_bytes(encoded)
    return PublicKey(algorithm=algorithm, encoded=encoded)


def _bytes_of(text: str) -> bytes:
    if "-----BEGIN" in text:
        raise _invalid("expected hex or base64, got PEM")
    try:
        return bytes.fromhex(text.removeprefix("0x").removeprefix("0X"))
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(f"expected hex or base64, got {len(text)} characters of neither") from error


def _describe(der: bytes) -> str:
    """What these bytes are, for somebody who pasted the wrong thing."""
    if len(der) == 65 and der[:1] == b"\x04":
        return "a raw uncompressed point (65 bytes)"
    if len(der) == 33 and der[:1] in (b"\x02", b"\x03"):
        return "a raw compressed point (33 bytes)"
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return f"{len(der)} bytes of something else"
    if isinstance(key, ec.EllipticCurvePublicKey):
        form = "in another encoding" if key.curve.name == "secp256r1" else f"on {key.curve.name}"
        return f"an elliptic-curve key {form} ({len(der)} bytes)"
    return f"a key of type {type(key).__name__.removesuffix('PublicKey')}"


def fingerprint(key: PublicKey) -> str:
    """`SHA256:` and the base64 of the digest without padding, as ssh shows keys."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.encoded).digest()).decode().rstrip("=")
