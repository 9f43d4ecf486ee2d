"""Signed requests: the client's own word for what it asks, which a stolen NATS login does not have."""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from initiator.client.errors import RejectedError
from initiator.core import requester
from initiator.core.model import Request
from initiator.core.requester import RequesterSignature
from initiator.core.signer import PublicKey
from initiator.core.spki import p256_public_key
from initiator.errors import Code, HaltError, RejectError

AUDIENCE = "initiator"
_USER_SEED = bytes([(18 << 3) | (20 << 3 >> 5), (20 << 3 & 31) << 3])  # reads as `SU`: a seed, of a user
_ECDSA = ec.ECDSA(hashes.SHA256())
Sign = Callable[[bytes], bytes | Awaitable[bytes]]


class RequestSigner:
    """Signs each request that a client sends; see `from_file`, or bring a callback to where your key is kept.

    Args:
        public_key: as the daemon's policy has it: an NKey (`U…`), or a P-256 key in hex or base64.
        sign: makes a signature of bytes: 64 bytes of Ed25519, or ECDSA P-256 over their SHA-256 in DER. It may be a
            coroutine function; else it runs in a thread.
        audience: the daemon's `policy.audience`.

    Raises:
        RejectedError: `public_key` is none.
    """

    def __init__(self, public_key: str, sign: Sign, *, audience: str = AUDIENCE) -> None:
        try:
            self._key = requester.parse_key(public_key)
        except HaltError as error:
            raise RejectedError(Code.INVALID_FIELD, error.reason, field="public_key") from None
        self._sign = sign
        self._audience = audience

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, audience: str = AUDIENCE) -> Self:
        """With the key in a file: an NKey seed of a user (`SU…`), or a PEM private key (Ed25519 or P-256).

        Raises:
            RejectedError: it cannot be read, is open to others, or holds no such key.
        """
        key = _load(Path(path))
        if isinstance(key, ed25519.Ed25519PrivateKey):
            public = PublicKey(algorithm="ed25519", encoded=key.public_key().public_bytes_raw())
            edwards = key

            async def sign(message: bytes) -> bytes:
                return edwards.sign(message)
        else:
            public = p256_public_key(key.public_key())
            p256 = key

            async def sign(message: bytes) -> bytes:
                return p256.sign(message, _ECDSA)

        return cls(requester.key_text(public), sign, audience=audience)

    @property
    def public_key(self) -> str:
        """As the daemon's policy takes it."""
        return requester.key_text(self._key)

    def __repr__(self) -> str:
        return f"RequestSigner({self.public_key})"

    async def header(self, client: str, request: Request, reopens: str | None = None) -> dict[str, str]:
        """The header of a request, which goes on after a failure where it names one.

        Raises:
            RejectedError: what `sign` returned is no signature of this key.
        """
        message = requester.canonical_bytes(self._audience, client, request, reopens)
        signature = await self._signature(message)
        try:
            requester.verify(self._key, signature, message)
        except RejectError:
            reason = f"what was signed does not verify under {self.public_key}: is it another key's?"
            raise RejectedError(Code.REQUESTER_SIGNATURE_INVALID, reason, field="signer") from None
        return {requester.HEADER: requester.format_header(RequesterSignature(self.public_key, signature))}

    async def _signature(self, message: bytes) -> bytes:
        if inspect.iscoroutinefunction(self._sign):
            made = await self._sign(message)
        else:
            made = await asyncio.to_thread(self._sign, message)
            if inspect.isawaitable(made):
                made = await made
        if not isinstance(made, bytes):
            reason = f"expected bytes from the callback, got {type(made).__name__}"
            raise RejectedError(Code.REQUESTER_SIGNATURE_INVALID, reason, field="signer")
        return made


_Key = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


def _refused(path: Path, reason: str) -> RejectedError:
    return RejectedError(Code.KEY_FILE_INVALID, f"{path}: {reason}", field="signing_key")


def _load(path: Path) -> _Key:
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise _refused(path, str(error.strerror)) from None
    # theft: whoever reads it signs in the client's name
    if stat.S_IMODE(mode) & 0o007:
        raise _refused(path, f"expected a file that others cannot read, got mode {stat.S_IMODE(mode):03o}")
    if content.lstrip().startswith(b"-----BEGIN"):
        return _from_pem(path, content)
    lines = [line for line in content.decode("ascii", "replace").splitlines() if line.strip().startswith("SU")]
    seed = _seed(lines[0].strip()) if len(lines) == 1 else None
    if seed is None:
        raise _refused(path, "expected one NKey seed of a user (SU…), or a PEM private key")
    return ed25519.Ed25519PrivateKey.from_private_bytes(seed)


def _from_pem(path: Path, content: bytes) -> _Key:
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _refused(path, "expected a PEM private key without a passphrase") from None
    is_p256 = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == ec.SECP256R1.name
    if not isinstance(key, ed25519.Ed25519PrivateKey) and not is_p256:
        raise _refused(path, "expected an Ed25519 or a P-256 key, got one of another kind")
    return key  # type: ignore[return-value]


def new_seed() -> str:
    """A new NKey seed of a user."""
    body = _USER_SEED + ed25519.Ed25519PrivateKey.generate().private_bytes_raw()
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode().rstrip("=")


def _seed(text: str) -> bytes | None:
    """The 32 bytes in an NKey seed of a user; None if it is none."""
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        return None
    body, checksum = raw[:-2], int.from_bytes(raw[-2:], "little")
    if base64.b32encode(raw).decode().rstrip("=") != text:
        return None  # its last character has bits that mean nothing: mistyped all the same
    if len(body) != 34 or binascii.crc_hqx(body, 0) != checksum:
        return None
    return body[2:] if body[:2] == _USER_SEED else None
