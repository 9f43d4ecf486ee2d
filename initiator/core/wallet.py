"""Wallet keys and what they prove: results are unsigned, so each is checked against the wallet's public key.

Invariants:
- a key that is kept is a point of its curve, in the one encoding that mpcium uses;
- a signature counts for the very `tx` that was asked for, under the wallet's key or its child key at the request's
  derivation path; whatever is short of that is `INVALID`, and what cannot be checked is `UNVERIFIED`, never valid.

Two decisions:
- **High S is invalid.** The nodes always give the low one (tss-lib's finalize). (r, n - s) verifies as well, and
  whoever may publish results can turn one into the other without any key, while chains refuse it (BIP 146, EIP-2).
- **Ed25519 over a `tx` that begins with zero bytes is invalid.** The nodes pass a tx through a big integer and sign
  what is left after the leading zero bytes. That is a signature of another message: a chain that checks the whole
  tx refuses it, and calling it valid would hand out a signature for bytes that nobody asked to sign. (ECDSA is not
  concerned: there the tx is a 32-byte number to begin with.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from initiator.core import ckd, curves
from initiator.core.curves import SECP256K1_N, CurveError
from initiator.core.model import KeyType
from initiator.core.result import EcdsaSignature, EddsaSignature, KeygenKeys, NodeResult, ReshareKey
from initiator.core.secp256k1 import ENGINE
from initiator.errors import Code, RejectError

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletKeys:
    """A wallet's public keys: secp256k1 as X‖Y (64 bytes), Ed25519 as 32 bytes; None where not known."""

    ecdsa: bytes | None = None
    eddsa: bytes | None = None

    def of(self, key_type: KeyType) -> bytes | None:
        """The key of one type."""
        return self.ecdsa if key_type is KeyType.SECP256K1 else self.eddsa


class Status(StrEnum):
    """How far a result was checked."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"  # the wallet's key or the chain code is not known
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Verification:
    """A status with its reason (empty where verified); never holds key or signature bytes."""

    status: Status
    reason: str = ""


VERIFIED = Verification(Status.VERIFIED)


def check_keygen(result: NodeResult) -> WalletKeys:
    """The keys of a new wallet.

    Raises:
        RejectError: `RESULT_INVALID`: not a keygen success, or a key that is no usable point of its curve.
    """
    value = result.value
    if not isinstance(value, KeygenKeys):
        raise RejectError(Code.RESULT_INVALID, "expected the public keys of a new wallet", field="result")
    _require_key(KeyType.SECP256K1, value.ecdsa_pub_key, "ecdsa_pub_key")
    _require_key(KeyType.ED25519, value.eddsa_pub_key, "eddsa_pub_key")
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
    """Check a sign result against what was asked; never raises on a result's content.

    Args:
        key_type: the request's, as `tx` and `derivation_path` (an empty path is none, as on the nodes).
        keys: the wallet's public keys, None where the wallet is not known.
        chain_code: the cluster's, 32 bytes; needed only under a derivation path.
    """
    value = result.value
    if not isinstance(value, _SIGNATURES[key_type]):
        return _invalid(f"expected a {key_type.value} signature")
    if isinstance(value, EcdsaSignature) and (reason := _ecdsa_form(value, tx)):
        return _invalid(reason)
    key = keys.of(key_type) if keys else None
    if key is None:
        return _unverified(f"the wallet's {key_type.value} key is not known")
    if derivation_path and chain_code is None:
        return _unverified("the cluster's chain_code is not configured")
    try:
        key = _child(key_type, key, chain_code, derivation_path)
        reason = _ecdsa(value, tx, key) if isinstance(value, EcdsaSignature) else _eddsa(value, tx, key)
    except (CurveError, ckd.PathError) as error:
        return _invalid(f"no key to verify with: {error}")
    return _invalid(reason) if reason else VERIFIED


def verify_reshare(result: NodeResult, keys: WalletKeys | None) -> Verification:
    """Check that a reshare kept the wallet's key.

    Equivocation: a reshare that ends in another key would send deposits to whoever made it.
    """
    value = result.value
    if not isinstance(value, ReshareKey):
        return _invalid("expected the key of a reshared wallet")
    try:
        _require_key(value.key_type, value.pub_key, "pub_key")
    except RejectError as error:
        return _invalid(error.reason)
    known = keys.of(value.key_type) if keys else None
    if known is None:
        return _unverified(f"the wallet's {value.key_type.value} key is not known")
    return VERIFIED if known == value.pub_key else _invalid("expected the wallet's own public key, got another")


_SIGNATURES: dict[KeyType, type[EcdsaSignature | EddsaSignature]] = {
    KeyType.SECP256K1: EcdsaSignature,
    KeyType.ED25519: EddsaSignature,
}


def _require_key(key_type: KeyType, encoded: bytes, field: str) -> None:
    decode = curves.decode_secp256k1 if key_type is KeyType.SECP256K1 else curves.decode_ed25519_key
    try:
        decode(encoded)
    except CurveError as error:
        raise RejectError(Code.RESULT_INVALID, str(error), field=field) from error


def _child(key_type: KeyType, key: bytes, chain_code: bytes | None, path: Sequence[int] | None) -> bytes:
    if not path or chain_code is None:
        return key
    derive = ckd.derive_secp256k1 if key_type is KeyType.SECP256K1 else ckd.derive_ed25519
    return derive(key, chain_code, path)


def _ecdsa_form(signature: EcdsaSignature, tx: bytes) -> str:
    """What is wrong with a signature whatever the key; empty where nothing is."""
    r, s = int.from_bytes(signature.r, "big"), int.from_bytes(signature.s, "big")
    if len(tx) != DIGEST_BYTES:
        return f"expected a tx of {DIGEST_BYTES} bytes, got {len(tx)}"
    if not (0 < r < SECP256K1_N and 0 < s < SECP256K1_N):
        return "expected r and s from 1 to the curve's order"
    if s > SECP256K1_N // 2:  # malleability: see the module
        return "expected the low s, got the high one"
    return ""


def _ecdsa(signature: EcdsaSignature, tx: bytes, key: bytes) -> str:
    r, s = int.from_bytes(signature.r, "big"), int.from_bytes(signature.s, "big")
    if ENGINE.verify(key, tx, r, s, signature.recovery):
        return ""
    return "r, s and signature_recovery do not sign this tx under the wallet's key"


def _eddsa(signature: EddsaSignature, tx: bytes, key: bytes) -> str:
    if _eddsa_verifies(signature.signature, tx, key):
        return ""
    if tx[:1] == b"\x00" and _eddsa_verifies(signature.signature, tx.lstrip(b"\x00"), key):
        return "the nodes signed the tx without its leading zero bytes, which is another message"
    return "the signature does not sign this tx under the wallet's key"


def _eddsa_verifies(signature: bytes, message: bytes, key: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _invalid(reason: str) -> Verification:
    return Verification(Status.INVALID, reason)


def _unverified(reason: str) -> Verification:
    return Verification(Status.UNVERIFIED, reason)
