"""Local signers for development: P-256 and Ed25519 keys in mpcium's own file formats, and PEM.

Formats: `<name>.key` holds hex of an Ed25519 seed, or of a P-256 key as SEC1 DER (PKCS#8 DER too); the same as raw
DER; PEM; `<name>.key.age` is binary age with a passphrase over the hex (extra `age`). Production refuses these
signers unless asked in so many words.
"""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from initiator.config.load import read_secret
from initiator.config.signers import LocalKeySettings
from initiator.core.signature import Verifier
from initiator.core.signer import Algorithm, Permit, PublicKey, Signed, SignerHealth
from initiator.core.spki import p256_public_key
from initiator.errors import Code, HaltError

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
MAX_FILE_BYTES = 16_384
_ECDSA = ec.ECDSA(hashes.SHA256())


def _invalid(reason: str, path: Path, hint: str | None = None) -> HaltError:
    return HaltError(Code.KEY_FILE_INVALID, reason, field=str(path), hint=hint)


class LocalSigner:
    """Signs with a key in memory; the same protocol and checks as the KMS signer."""

    def __init__(self, key: PrivateKey, name: str) -> None:
        self._key = key
        self._name = name
        self.permit: Permit | None = None  # accounts for each signature; None: nobody does
        self._public_key = public_key_of(key)
        self._verifier = Verifier(self._public_key)

    def __repr__(self) -> str:
        return f"LocalSigner({self._public_key.algorithm}, {self._name!r})"

    @property
    def public_key(self) -> PublicKey:
        return self._public_key

    def health(self) -> SignerHealth:
        return SignerHealth(ok=True)

    async def close(self) -> None:
        return

    async def sign(self, message: bytes, *, deadline: float | None = None) -> Signed:
        """Sign in a thread, verify, return; see `Signer.sign`."""
        if self.permit is not None:
            await self.permit.spend(deadline)
        signature = await asyncio.to_thread(self._sign, message)
        if not self._verifier.verify(message, signature):
            raise HaltError(Code.SIGNATURE_INVALID, "the local signature does not verify under its own key")
        return Signed(signature=signature, request_id="", key_id=self._name)

    def _sign(self, message: bytes) -> bytes:
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(message, _ECDSA)
        return self._key.sign(message)


def public_key_of(key: PrivateKey) -> PublicKey:
    """The public half, as mpcium's config takes it."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return p256_public_key(key.public_key())
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PublicKey(algorithm="ed25519", encoded=raw)


def load_local_signer(settings: LocalKeySettings) -> LocalSigner:
    """The signer of a key file.

    Raises:
        HaltError: `KEY_FILE_INVALID`, with what was expected; `CONFIG_INVALID` without a path.
    """
    if not settings.path:
        raise HaltError(Code.CONFIG_INVALID, "no key file is configured", field="signer.local.path")
    path = Path(settings.path)
    passphrase = read_secret(settings.passphrase, settings.passphrase_file)
    return LocalSigner(_load(_read(path), path, passphrase), path.name)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = path.stat()
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _invalid(f"cannot be read: {error.strerror}", path) from error
    # whoever may read the file may sign: refuse what others can read, as ssh does
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise _invalid("readable by others than its owner", path, hint=f"chmod 600 {path}")
    if not content or len(content) > MAX_FILE_BYTES:
        raise _invalid(f"expected 1 to {MAX_FILE_BYTES} bytes", path)
    return content


def _load(content: bytes, path: Path, passphrase: str | None) -> PrivateKey:
    if content.startswith(b"age-encryption.org/"):
        content = _decrypt(content, path, passphrase)
        passphrase = None
    if b"-----BEGIN" in content:
        return _checked(_from_pem(content, path, passphrase), path)
    try:
        der = bytes.fromhex(content.decode("ascii").strip().removeprefix("0x"))
    except ValueError:
        der = content
    if len(der) == 32:
        return ed25519.Ed25519PrivateKey.from_private_bytes(der)
    try:
        return _checked(load_der_private_key(der, password=None), path)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _invalid("expected hex of an Ed25519 seed or of SEC1 or PKCS#8 DER, raw DER, or PEM", path) from error


def _from_pem(content: bytes, path: Path, passphrase: str | None) -> object:
    try:
        return load_pem_private_key(content, passphrase.encode() if passphrase else None)
    except TypeError as error:  # encrypted without a passphrase, or the other way round
        raise _invalid("the passphrase does not fit: is the PEM encrypted?", path) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid("expected PEM of a private key, and its passphrase", path) from error


def _checked(key: object, path: Path) -> PrivateKey:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name != "secp256r1":
            raise _invalid(f"expected P-256, got a key on {key.curve.name}", path)
        return key
    raise _invalid(f"expected a P-256 or Ed25519 key, got {type(key).__name__}", path)


def _decrypt(content: bytes, path: Path, passphrase: str | None) -> bytes:
    try:
        from pyrage import passphrase as age
    except ImportError as error:
        raise _invalid("is encrypted with age", path, hint="pip install 'initiator[age]'") from error
    if not passphrase:
        raise _invalid("is encrypted: a passphrase is needed", path, hint="set signer.local.passphrase_file")
    try:
        decrypted: bytes = age.decrypt(content, passphrase)
    except Exception as error:  # pyrage's errors have no common public base
        raise _invalid("cannot be decrypted: a wrong passphrase, or a damaged file", path) from error
    return decrypted


def generate(algorithm: Algorithm) -> tuple[str, PublicKey]:
    """A new key: its file content in mpcium's hex form, and its public half."""
    if algorithm == "ed25519":
        seed_key = ed25519.Ed25519PrivateKey.generate()
        raw = seed_key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return raw.hex(), public_key_of(seed_key)
    key = ec.generate_private_key(ec.SECP256R1())
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return der.hex(), public_key_of(key)
