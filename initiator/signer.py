"""The KMS signer by itself, for tools without an event loop that only want signatures::

    with KmsSigner(key_id="alias/event-initiator", region="eu-central-1") as signer:
        print(signer.public_key)           # for the nodes' event_initiator_pubkey
        signature = signer.sign(message)   # ECDSA P-256 over SHA-256, DER

It is the daemon's own signer: the key's form is checked, every signature is verified before it is returned, throttling
and outages are retried until the timeout, and several Regions of a multi-Region key stand in for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Self

from initiator.config.load import section_from
from initiator.config.signers import KmsSettings
from initiator.core.signer import PublicKey
from initiator.core.spki import fingerprint, parse_public_key
from initiator.kms import KmsSigner as AsyncKmsSigner
from initiator.loopthread import LoopClosedError, LoopThread

__all__ = ["KmsSigner"]


class KmsSigner:
    """Signs with one KMS key; any number of threads may call.

    Args:
        key_id: key id, key ARN, `alias/NAME` or alias ARN; ECC_NIST_P256 with SIGN_VERIFY.
        region: AWS Region; default: AWS's own chain.
        pin: the public key that it must be (as `event_initiator_pubkey`); default: whichever is there.
        timeout_s: how long a signature is tried for, unless told otherwise.
        options: further settings of `signer.kms`, such as `endpoint_url`, `profile`, `regions`, `max_signs_per_s`, or
            static credentials (`access_key_id`, `secret_access_key`, `session_token`).

    Raises:
        HaltError: a setting is wrong, the key is of another form, or `KEY_MISMATCH`.
        RetryError: KMS is out of reach, or there are no credentials.
    """

    def __init__(
        self,
        key_id: str,
        *,
        region: str | None = None,
        pin: str | None = None,
        timeout_s: float = 10.0,
        **options: Any,
    ) -> None:
        self._timeout_s = timeout_s
        trusted = parse_public_key(pin) if pin else None
        self._loop = LoopThread("kms-signer").__enter__()
        try:
            fields = options | {"key_id": key_id, "region": region}
            settings = section_from(KmsSettings, fields, "signer.kms", strict=False)
            self._signer = self._loop.run(AsyncKmsSigner.connect(settings, pin=trusted))
        except BaseException:
            self._loop.__exit__()
            raise

    @property
    def public_key(self) -> str:
        """Hex of the SubjectPublicKeyInfo, as the nodes' `event_initiator_pubkey` takes it."""
        return self._key.hex

    @property
    def public_key_der(self) -> bytes:
        """The same as DER."""
        return self._key.encoded

    @property
    def fingerprint(self) -> str:
        """SHA-256 of it, as the daemon's logs name it."""
        return fingerprint(self._key)

    @property
    def algorithm(self) -> str:
        """As the nodes' `event_initiator_algorithm` takes it, `p256`."""
        return self._key.algorithm

    @property
    def _key(self) -> PublicKey:
        return self._signer.public_key

    def sign(self, message: bytes, *, timeout_s: float | None = None) -> bytes:
        """The signature over SHA-256 of `message`: ECDSA P-256 in DER, verified.

        Raises:
            RetryError: KMS is away, throttles or has no credentials for us, until the timeout.
            HaltError: it refuses, or answered with a signature that does not verify.
            LoopClosedError: it is closed, or was made before this process was forked.
        """
        return self._loop.run(self._sign(message, self._timeout_s if timeout_s is None else timeout_s))

    async def _sign(self, message: bytes, timeout_s: float) -> bytes:
        signed = await self._signer.sign(message, deadline=asyncio.get_running_loop().time() + timeout_s)
        return signed.signature

    def close(self) -> None:
        """Let go of threads and connections."""
        with contextlib.suppress(LoopClosedError):  # already
            self._loop.run(self._signer.close())
            self._loop.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
