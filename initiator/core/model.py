"""What a client may ask for: the three operations as immutable values.

Field names are mpcium's. A value of these types has passed every check of `initiator.core.validate`; nothing
else in the package constructs them from outside input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class Operation(StrEnum):
    """The operations of an mpcium cluster, named as in our subjects."""

    KEYGEN = "keygen"
    SIGN = "sign"
    RESHARE = "reshare"


class KeyType(StrEnum):
    """mpcium's key types: ECDSA on secp256k1 and EdDSA on Ed25519."""

    SECP256K1 = "secp256k1"
    ED25519 = "ed25519"


class ContentType(StrEnum):
    """Encodings of requests and events; msgpack where a request has no Content-Type header."""

    MSGPACK = "application/msgpack"
    JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeygenRequest:
    """Create a wallet: one secp256k1 and one Ed25519 key, shared over the peer nodes."""

    wallet_id: str
    expires_at: float | None = None  # Unix seconds
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def operation(self) -> Operation:
        return Operation.KEYGEN

    @property
    def operation_id(self) -> str:
        return self.wallet_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRequest:
    """Sign `tx` with a wallet's key, or with its child key at `derivation_path` (non-hardened, uint32 each)."""

    key_type: KeyType
    wallet_id: str
    network_internal_code: str
    tx_id: str
    tx: bytes
    derivation_path: tuple[int, ...] | None = None
    expires_at: float | None = None  # Unix seconds
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def operation(self) -> Operation:
        return Operation.SIGN

    @property
    def operation_id(self) -> str:
        return self.tx_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ReshareRequest:
    """Move a wallet's key of one type to `node_ids` with a new threshold."""

    session_id: str
    node_ids: tuple[str, ...]
    new_threshold: int
    key_type: KeyType
    wallet_id: str
    expires_at: float | None = None  # Unix seconds
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def operation(self) -> Operation:
        return Operation.RESHARE

    @property
    def operation_id(self) -> str:
        return self.session_id


Request: TypeAlias = KeygenRequest | SignRequest | ReshareRequest
