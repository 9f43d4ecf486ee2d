"""What a service gets: wallets, keys and signatures, in the forms that chains and libraries take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from initiator.core import ckd
from initiator.core.model import KeyType
from initiator.core.wallet import WalletKeys


class VerifiedBy(StrEnum):
    """Who has checked a result against the wallet's public key."""

    CLIENT = "client"  # this library, against the keys that it knows
    DAEMON = "daemon"  # the daemon, against the keys on its record
    NOBODY = "nobody"  # only with `allow_unverified`


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key on one of the two curves.

    Attributes:
        raw: mpcium's own form: X‖Y (64 bytes) on secp256k1, 32 bytes on Ed25519.
    """

    key_type: KeyType
    raw: bytes

    @property
    def sec1(self) -> bytes:
        """SEC 1, compressed (33 bytes, 02 or 03 first). Raises ValueError for Ed25519, which SEC 1 does not know."""
        self._require_secp256k1()
        return bytes([2 + (self.raw[63] & 1)]) + self.raw[:32]

    @property
    def sec1_uncompressed(self) -> bytes:
        """SEC 1, uncompressed (65 bytes, 04 first). Raises ValueError for Ed25519."""
        self._require_secp256k1()
        return b"\x04" + self.raw

    @property
    def pem(self) -> str:
        """SubjectPublicKeyInfo in PEM."""
        key: ec.EllipticCurvePublicKey | Ed25519PublicKey
        if self.key_type is KeyType.SECP256K1:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), self.sec1_uncompressed)
        else:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def _require_secp256k1(self) -> None:
        if self.key_type is not KeyType.SECP256K1:
            raise ValueError("SEC 1 is a form of secp256k1 keys; an Ed25519 key has `raw` and `pem`")

    def __str__(self) -> str:
        return (self.sec1 if self.key_type is KeyType.SECP256K1 else self.raw).hex()


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet's two public keys, or its two child keys at `path`.

    Attributes:
        chain_code: the cluster's, 32 bytes; without it no child keys can be derived.
    """

    wallet_id: str
    secp256k1: PublicKey
    ed25519: PublicKey
    path: tuple[int, ...] = ()
    chain_code: bytes | None = field(default=None, repr=False)

    def derive(self, path: Sequence[int]) -> Wallet:
        """The child keys at `path`, as the nodes derive them for a `derivation_path`; always from the wallet itself.

        Args:
            path: non-hardened levels (below 2**31); an empty one gives the wallet's own keys.

        Raises:
            ValueError: no chain code, a hardened level, or a wallet that is a child already.
        """
        if self.path:
            raise ValueError("derive from the wallet itself: the nodes know no chain code of a child")
        if path and self.chain_code is None:
            raise ValueError("child keys need the cluster's chain_code: give it to `connect`")
        code = self.chain_code or bytes(ckd.CHAIN_CODE_BYTES)
        return Wallet(
            self.wallet_id,
            PublicKey(KeyType.SECP256K1, ckd.derive_secp256k1(self.secp256k1.raw, code, path)),
            PublicKey(KeyType.ED25519, ckd.derive_ed25519(self.ed25519.raw, code, path)),
            tuple(path),
            self.chain_code,
        )

    def key(self, key_type: KeyType | str) -> PublicKey:
        """The key on one curve."""
        return self.secp256k1 if KeyType(key_type) is KeyType.SECP256K1 else self.ed25519

    @property
    def keys(self) -> WalletKeys:
        """What signatures are verified with."""
        return WalletKeys(ecdsa=self.secp256k1.raw, eddsa=self.ed25519.raw)


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """A signature on secp256k1, with the low s.

    Attributes:
        r, s: 32 bytes each, big-endian.
        recovery: which of the possible public keys is the signer's, 0 to 3.
    """

    tx_id: str
    r: bytes = field(repr=False)
    s: bytes = field(repr=False)
    recovery: int
    verified_by: VerifiedBy

    @property
    def v(self) -> int:
        """27 or 28, as Ethereum's signed messages and old transactions have it; typed ones take `recovery`."""
        return 27 + self.recovery

    @property
    def der(self) -> bytes:
        """ASN.1 DER, as Bitcoin and most libraries take it."""
        return encode_dss_signature(int.from_bytes(self.r, "big"), int.from_bytes(self.s, "big"))

    @property
    def ethereum(self) -> bytes:
        """Ethereum's 65 bytes, which are r, s and v."""
        return self.r + self.s + bytes([self.v])


@dataclass(frozen=True, slots=True)
class EddsaSignature:
    """An Ed25519 signature: 64 bytes."""

    tx_id: str
    signature: bytes = field(repr=False)
    verified_by: VerifiedBy


Signature = EcdsaSignature | EddsaSignature


@dataclass(frozen=True, slots=True)
class ResharedKey:
    """A key whose shares moved to other nodes; the public key is still the wallet's."""

    session_id: str
    wallet_id: str
    public_key: PublicKey
    new_threshold: int
    verified_by: VerifiedBy


Result = Wallet | EcdsaSignature | EddsaSignature | ResharedKey
