"""Public keys in the exact form that mpcium's config takes, and nothing near it.

Invariants:
- a P-256 key is SubjectPublicKeyInfo of 91 bytes with the prefix of a named curve and an uncompressed point, and the
  point is on the curve; `cryptography` would also load compressed points, explicit parameters, other curves and RSA;
- an Ed25519 key is 32 bytes, canonical, and in the prime-order subgroup;
- what is refused is named, and never shown: the wrong thing pasted into a setting may be a private key.

Sources: RFC 5480 (SubjectPublicKeyInfo), mpcium's `pkg/encryption` and `pkg/identity` (what the nodes parse).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from initiator.core.curves import CurveError, decode_ed25519_key
from initiator.core.signer import Algorithm, PublicKey
from initiator.errors import Code, HaltError

P256_PREFIX = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
P256_BYTES = 91
ED25519_BYTES = 32

_HEX = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2})+)")
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_RAW_POINTS: dict[tuple[int, int | None], str] = {
    (64, None): "a raw point (64 bytes, without its form)",
    (65, 4): "a raw point (65 bytes, uncompressed)",
    (33, 2): "a raw point (33 bytes, compressed)",
    (33, 3): "a raw point (33 bytes, compressed)",
}
_PRIVATE = "a private key: it belongs in no setting; if it was real, replace it"
_HINT = {
    "p256": "mpcium takes SubjectPublicKeyInfo DER (91 bytes) as hex or base64; `initiator key show` prints it",
    "ed25519": "mpcium takes the 32 bytes of an Ed25519 public key as hex",
}


def _invalid(algorithm: Algorithm, reason: str) -> HaltError:
    return HaltError(Code.PUBLIC_KEY_INVALID, reason, field="event_initiator_pubkey", hint=_HINT[algorithm])


def parse_public_key(text: str, algorithm: Algorithm = "p256") -> PublicKey:
    """A key as mpcium's config holds it: hex (0x allowed) or padded base64; white space around it is cut.

    Args:
        algorithm: `event_initiator_algorithm`; the nodes do not guess it, so neither do we.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`, saying what form came instead.
    """
    encoded = _bytes_of(text.strip(), algorithm)
    key = PublicKey(algorithm=algorithm, encoded=encoded)
    if algorithm == "p256":
        p256_from_spki(encoded)
    else:
        ed25519_from_raw(encoded)
    return key


def p256_from_spki(der: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key in SubjectPublicKeyInfo of exactly the form that KMS returns and the nodes' keys have.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`, saying what form came instead.
    """
    if len(der) != P256_BYTES or not der.startswith(P256_PREFIX):
        raise _invalid("p256", f"expected P-256 SubjectPublicKeyInfo ({P256_BYTES} bytes), got {_describe(der)}")
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        # invalid curve: a point beside the curve lives in a group where keys are weak
        raise _invalid("p256", "expected a point of P-256, got one that is not on the curve") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _invalid("p256", "expected a key on P-256, got one of another kind")
    return key


def ed25519_from_raw(raw: bytes) -> ed25519.Ed25519PublicKey:
    """The Ed25519 key in its 32 bytes.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`, saying what form came instead.
    """
    if len(raw) != ED25519_BYTES:
        raise _invalid("ed25519", f"expected an Ed25519 public key ({ED25519_BYTES} bytes), got {_describe(raw)}")
    try:
        # small order: under such a key anybody signs anything
        decode_ed25519_key(raw)
    except CurveError as error:
        raise _invalid("ed25519", f"expected an Ed25519 public key, got 32 bytes that are {error}") from error
    return ed25519.Ed25519PublicKey.from_public_bytes(raw)


def p256_public_key(key: ec.EllipticCurvePublicKey) -> PublicKey:
    """Our form of a `cryptography` key.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`: it is not on P-256.
    """
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    p256_from_spki(encoded)
    return PublicKey(algorithm="p256", encoded=encoded)


def fingerprint(key: PublicKey) -> str:
    """`SHA256:` and the base64 of the digest of `encoded`, without padding, as ssh shows keys."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.encoded).digest()).decode().rstrip("=")


def _bytes_of(text: str, algorithm: Algorithm) -> bytes:
    if not text:
        raise _invalid(algorithm, "expected hex or base64, got nothing")
    if pem := _PEM.search(text):
        raise _invalid(algorithm, f"expected hex or base64, got PEM ({_pem_kind(pem)})")
    if match := _HEX.fullmatch(text):
        return bytes.fromhex(match.group(1))
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(algorithm, f"expected hex or base64, got {len(text)} characters of neither") from error


def _pem_kind(pem: re.Match[str]) -> str:
    label = pem.group(1).lower()
    return _PRIVATE if "private" in label else label


def _is_go_private_key(raw: bytes) -> bool:
    """Whether this is an Ed25519 private key as Go holds it: the seed, then the public key."""
    if len(raw) != 2 * ED25519_BYTES:
        return False
    seed, public = raw[:ED25519_BYTES], raw[ED25519_BYTES:]
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() == public


def _describe(der: bytes) -> str:
    """What these bytes are, for somebody who pasted the wrong thing."""
    if _is_go_private_key(der):
        return _PRIVATE
    if pem := _PEM.search(der.decode("latin-1")):
        return f"PEM ({_pem_kind(pem)}) in base64 or hex"
    raw = _RAW_POINTS.get((len(der), None)) or _RAW_POINTS.get((len(der), der[0] if der else None))
    if raw:
        return raw
    if der.startswith(P256_PREFIX) and len(der) != P256_BYTES:
        return f"one of {len(der)} bytes"
    if len(der) == ED25519_BYTES:
        return "32 bytes (an Ed25519 public key? a private key?)"
    return _describe_public(der) or _describe_other(der) or f"{len(der)} bytes of something else"


def _describe_public(der: bytes) -> str | None:
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return f"a public key of type {type(key).__name__.strip('_').removesuffix('PublicKey')} ({len(der)} bytes)"
    if key.curve.name != ec.SECP256R1.name:
        return f"a public key on {key.curve.name} ({len(der)} bytes)"
    if len(der) == P256_BYTES and der.startswith(P256_PREFIX):
        return f"a P-256 public key ({len(der)} bytes)"
    if len(der) == P256_BYTES - 32:
        return f"P-256 SubjectPublicKeyInfo with a compressed point ({len(der)} bytes)"
    return f"a P-256 key in another encoding ({len(der)} bytes)"


def _describe_other(der: bytes) -> str | None:
    try:
        load_der_private_key(der, password=None)
    except TypeError:
        return _PRIVATE  # an encrypted one
    except (ValueError, UnsupportedAlgorithm):
        pass
    else:
        return _PRIVATE
    try:
        x509.load_der_x509_certificate(der)
    except ValueError:
        return None
    return "an X.509 certificate"


def check_pin(got: PublicKey, pin: PublicKey | None) -> None:
    """Refuse any key but the pinned one; without a pin anything passes.

    Raises:
        HaltError: `KEY_MISMATCH`, with the two fingerprints and what to do.
    """
    if pin is not None and got != pin:
        raise HaltError(
            Code.KEY_MISMATCH,
            f"the signer holds {fingerprint(got)}, but the pin is {fingerprint(pin)}",
            field="mpcium.event_initiator_pubkey",
            hint="the nodes verify against the pin: point the signer at that key, or, after a planned rotation, "
            "set the pin and every node's event_initiator_pubkey to the new key and restart the nodes",
        )
