"""The signer protocol: who holds the event-initiator key, seen from the pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from initiator.errors import Code, RetryError

Algorithm = Literal["p256", "ed25519"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """The event-initiator public key.

    Attributes:
        algorithm: `p256` or `ed25519`, as mpcium's `event_initiator_algorithm` spells it.
        encoded: what mpcium's `event_initiator_pubkey` holds: SubjectPublicKeyInfo DER for P-256 (91 bytes), the
            raw 32 bytes for Ed25519.
    """

    algorithm: Algorithm
    encoded: bytes

    @property
    def hex(self) -> str:
        """Lower-case hex, ready for the nodes' config."""
        return self.encoded.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signature with what an auditor needs to find it in the signer's own log.

    Attributes:
        signature: DER ECDSA for P-256, 64 bytes for Ed25519.
        request_id: the KMS request id (matches CloudTrail); empty for local signers.
        key_id: the key ARN or the local key's name.
    """

    signature: bytes
    request_id: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerHealth:
    """Whether the signer can sign, and if not, why; `note` says what is amiss although it can."""

    ok: bool
    code: Code | None = None
    reason: str = ""
    note: str = ""


class Limiter(Protocol):
    """Keeps the signer under its share of a quota, for this process or together with others."""

    async def acquire(self, deadline: float | None = None) -> None:
        """Wait until one more call to KMS may be made.

        Args:
            deadline: event loop time after which it would be too late.

        Raises:
            RetryError: `KMS_THROTTLED`: not before `deadline`; nothing was taken.
        """
        ...


class HeldBackError(RetryError):
    """Operators' orders, or that nobody knows them, forbid a call to the signer, which is well."""


class Permit(Protocol):
    """Leave for one call to the signer; retries ask again."""

    async def spend(self, deadline: float | None = None) -> None:
        """Account for one call, which may be made at once then.

        Args:
            deadline: event loop time after which it would be too late.

        Raises:
            HeldBackError: it must not be made.
        """
        ...


class Signer(Protocol):
    """Signs messages with the one key that every peer node trusts.

    Implementations return only signatures that verify under `public_key`.
    """

    @property
    def public_key(self) -> PublicKey: ...

    async def sign(self, message: bytes, *, deadline: float | None = None) -> Signed:
        """Sign `message` (hashed with SHA-256 for P-256).

        Args:
            message: the exact bytes that the nodes verify.
            deadline: event loop time (seconds, `loop.time()`) after which no further attempt is made.

        Raises:
            RetryError: the signer is unreachable, throttled or without credentials.
            HaltError: the key is unusable, denied, or is not the pinned one.
        """
        ...

    def health(self) -> SignerHealth:
        """Whether it could sign now, as far as the last calls tell; never blocks."""
        ...

    async def close(self) -> None: ...
