"""A wallet's public keys, and whether a result of the nodes is true under them.

Results carry no signature of the nodes, so whoever may publish there could forge one: a signature is believed only
if it verifies under the wallet's key, or under its child key where the request had a derivation path. What cannot
be checked (an unknown wallet, an unknown chain code) is `unverified`, never invalid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from initiator.core import ckd, curves
from initiator.core.model import KeyType
from initiator.core.result import EcdsaSignature, EddsaSignature, KeygenKeys, NodeResult, ReshareKey
from initiator.errors import Code, RejectError

_PREHASHED = ec.ECDSA(Prehashed(hashes.SHA256()))


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletKeys:
    """secp256k1 as X‖Y (64 bytes) and Ed25519 (32 bytes); None where unknown."""

    ecdsa: bytes | None = None
    eddsa: bytes | None = None


class Status(StrEnum):
    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Verification:
    """A status and why."""

    status: Status
    reason: str = ""


def check_keygen(result: NodeResult) -> WalletKeys:
    """The keys of a successful keygen.

    Raises:
        RejectError: `RESULT_INVALID`: a public key is no point of its curve.
    """
    value = result.value
    if not isinstance(value, KeygenKeys):
        raise RejectError(Code.RESULT_INVALID, "expected public keys", field="result")
    try:
        ckd.k1_decode(value.ecdsa_pub_key)
    except ValueError as error:
        raise RejectError(Code.RESULT_INVALID, str(error), field="ecdsa_pub_key") from error
    try:
        curves.ed_decode(value.eddsa_pub_key)
    except ValueError as error:
        raise RejectError(Code.RESULT_INVALID, str(error), field="eddsa_pub_key") from error
    return WalletKeys(ecdsa=value.ecdsa_pub_key, eddsa=value.eddsa_pub_key)


def verify_signature(
    *,
    key_type: KeyType,
    tx: bytes,
    derivation_path: Sequence[int] | None,
    result: NodeResult,
    keys: WalletKeys | None,
    chain_code: bytes | None,
) -> Verification:
    """Whether a successful sign result is a signature of `tx` under the wallet's (child) key."""
    value = result.value
    ecdsa = key_type is KeyType.SECP256K1
    if not isinstance(value, EcdsaSignature if ecdsa else EddsaSignature):
        return Verification(Status.INVALID, f"expected a signature of {key_type}")
    public_key = (keys.ecdsa if ecdsa else keys.eddsa) if keys else None
    if public_key is None:
        return Verification(Status.UNVERIFIED, "the wallet's public key is not known here")
    if derivation_path and chain_code is None:
        return Verification(Status.UNVERIFIED, "mpcium.chain_code is not configured")
    if derivation_path and chain_code is not None:
        derive = ckd.derive_secp256k1 if ecdsa else ckd.derive_ed25519
        public_key = derive(public_key, chain_code, derivation_path)
    if isinstance(value, EcdsaSignature):
        return _verify_ecdsa(public_key, tx, value)
    assert isinstance(value, EddsaSignature)  # noqa: S101 - narrowed above
    return _verify_eddsa(public_key, tx, value)


def _verify_ecdsa(public_key: bytes, tx: bytes, value: EcdsaSignature) -> Verification:
    r, s = int.from_bytes(value.r, "big"), int.from_bytes(value.s, "big")
    # malleability: the nodes give low S only, and chains refuse the other one
    if not 0 < s <= curves.K1_N // 2:
        return Verification(Status.INVALID, "s is not in the lower half")
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), b"\x04" + public_key)
    try:
        key.verify(encode_dss_signature(r, s), tx, _PREHASHED)
    except (InvalidSignature, ValueError):
        return Verification(Status.INVALID, "the signature does not verify under the wallet's key")
    if _recover_parity(public_key, tx, r, s) != value.recovery & 1:
        return Verification(Status.INVALID, "signature_recovery names another key")
    return Verification(Status.VERIFIED)


def _recover_parity(public_key: bytes, tx: bytes, r: int, s: int) -> int:
    """Parity of R's y, recomputed from a signature that verifies: R = (z/s)·G + (r/s)·Q."""
    inverse = pow(s, -1, curves.K1_N)
    z = int.from_bytes(tx, "big")
    left = curves.k1_multiply(z * inverse % curves.K1_N, curves.K1_G)
    right = curves.k1_multiply(r * inverse % curves.K1_N, ckd.k1_decode(public_key))
    point = curves.k1_add(left, right)
    return point[1] & 1 if point else -1


def _verify_eddsa(public_key: bytes, tx: bytes, value: EddsaSignature) -> Verification:
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(value.signature, tx)
    except (InvalidSignature, ValueError):
        return Verification(Status.INVALID, "the signature does not verify under the wallet's key")
    return Verification(Status.VERIFIED)


def verify_reshare(result: NodeResult, keys: WalletKeys | None) -> Verification:
    """A reshare must leave the wallet's public key as it was."""
    value = result.value
    if not isinstance(value, ReshareKey):
        return Verification(Status.INVALID, "expected a public key")
    known = (keys.ecdsa if value.key_type is KeyType.SECP256K1 else keys.eddsa) if keys else None
    if known is None:
        return Verification(Status.UNVERIFIED, "the wallet's public key is not known here")
    if known != value.pub_key:
        return Verification(Status.INVALID, "pub_key is not the wallet's key")
    return Verification(Status.VERIFIED)
