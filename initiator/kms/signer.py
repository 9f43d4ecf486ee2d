"""The event-initiator key in AWS KMS.

Invariants:
- the key is pinned: its public key is checked at the start (P-256, SIGN_VERIFY, ECDSA_SHA_256, the exact SPKI form)
  and compared with the configured one; every answer must name that same key;
- no signature leaves here that does not verify under the pinned key: not from an empty 200, not from a lying
  endpoint, not from an alias that was moved;
- what goes out as RAW is at most 4,096 bytes; above that KMS gets the SHA-256, which signs the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from initiator.config.schema import KmsSettings
from initiator.core.signature import Verifier
from initiator.core.signer import Limiter, PublicKey, Signed, SignerHealth
from initiator.core.spki import check_pin, p256_from_spki
from initiator.errors import Code, HaltError, InitiatorError, RetryError
from initiator.kms import errors
from initiator.kms.client import build_client, load_credentials
from initiator.kms.credentials import SnapshotCredentials
from initiator.kms.limiter import local_limiter
from initiator.log import get_logger

log = get_logger()
MAX_RAW_BYTES = 4096
ALIAS_CHECK_S = 60.0
ALGORITHM = "ECDSA_SHA_256"


class KmsSigner:
    """Signs with one KMS key. Make one with `connect`.

    Attributes:
        key_id: the key's ARN as KMS names it (some emulators: its bare id).
        key_spec_known: false where an emulator left KeySpec out; the SPKI form decided then.
    """

    def __init__(
        self,
        settings: KmsSettings,
        client: Any,
        pool: ThreadPoolExecutor,
        credentials: SnapshotCredentials,
        described: dict[str, Any],
        limiter: Limiter,
    ) -> None:
        self._settings = settings
        self._limiter = limiter
        self._client = client
        self._pool = pool
        self._credentials = credentials
        self._public_key = public_key_of(described)
        self._verifier = Verifier(self._public_key)
        self.key_id: str = described["KeyId"]
        self.key_spec_known = "KeySpec" in described
        self._health = SignerHealth(ok=True)
        self._background = [asyncio.create_task(credentials.keep_fresh()), asyncio.create_task(self._watch_alias())]

    @classmethod
    async def connect(
        cls, settings: KmsSettings, *, pin: PublicKey | None = None, limiter: Limiter | None = None
    ) -> KmsSigner:
        """Fetch and check the public key.

        Args:
            pin: the key that the nodes trust; None to accept whichever the key id names.
            limiter: what spaces the calls; default: this replica's own, by the settings.

        Raises:
            RetryError: KMS is away or there are no credentials yet.
            HaltError: no key id, a key of another form, or `KEY_MISMATCH`.
        """
        if not settings.key_id:
            raise HaltError(Code.CONFIG_INVALID, "no key is configured", field="signer.kms.key_id")
        pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="kms")
        credentials = SnapshotCredentials(lambda: load_credentials(settings))
        try:
            await credentials.renew()
            loop = asyncio.get_running_loop()
            client, described = await loop.run_in_executor(pool, _connect, settings, credentials)
            check_pin(public_key_of(described), pin)
            limiter = limiter or local_limiter(settings.max_signs_per_s, settings.burst_signs)
            return cls(settings, client, pool, credentials, described, limiter)
        except BaseException:
            pool.shutdown(wait=False)
            credentials.close()
            raise

    @property
    def public_key(self) -> PublicKey:
        return self._public_key

    def health(self) -> SignerHealth:
        return self._health

    async def close(self) -> None:
        for task in self._background:
            task.cancel()
        self._credentials.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def sign(self, message: bytes, *, deadline: float | None = None) -> Signed:
        """Sign `message`; see `Signer.sign`. Unavailability and throttling are retried until `deadline`."""
        loop = asyncio.get_running_loop()
        backoff_s = self._settings.retry_base_s
        renewed = False
        while True:
            generation = self._credentials.generation
            await self._limiter.acquire(deadline)
            try:
                signed = await loop.run_in_executor(self._pool, self._sign_once, message)
            except RetryError as error:
                self._unwell(error)
                if error.code is Code.KMS_CREDENTIALS:
                    # expired or rotated: with fresh ones at once, and only once
                    if renewed:
                        raise
                    renewed = True
                    await self._renew(generation)
                    continue
                pause_s = random.uniform(0, backoff_s)  # noqa: S311 - full jitter, no secret
                if deadline is None or loop.time() + pause_s >= deadline:
                    raise
                await asyncio.sleep(pause_s)
                backoff_s = min(backoff_s * 2, self._settings.retry_max_s)
            except InitiatorError as error:
                self._unwell(error)
                raise
            else:
                self._health = SignerHealth(ok=True)
                return signed

    async def _renew(self, generation: int) -> None:
        try:
            await self._credentials.renew(generation)
        except InitiatorError as error:
            self._unwell(error)
            raise

    def _unwell(self, error: InitiatorError) -> None:
        self._health = SignerHealth(ok=False, code=error.code, reason=error.reason)

    async def _watch_alias(self) -> None:
        """An alias that is moved does not move us (calls name the key itself), but the next start would be refused."""
        warned = False
        while True:
            await asyncio.sleep(ALIAS_CHECK_S)
            try:
                described = await asyncio.get_running_loop().run_in_executor(
                    self._pool, _describe, self._client, self._settings.key_id or ""
                )
            except InitiatorError:
                continue  # signing itself says what is wrong
            moved = described["PublicKey"] != self._public_key.encoded
            if moved and not warned:
                log.error(
                    "signer.key_id_moved", key_id=self._settings.key_id, pinned=self.key_id,
                    code=Code.KEY_MISMATCH.value, hint="point the alias back, or rotate the pin and the nodes together",
                )  # fmt: skip
            warned = moved

    def _sign_once(self, message: bytes) -> Signed:
        """One call, in a thread: asked, checked, verified."""
        as_digest = self._settings.always_digest or len(message) > MAX_RAW_BYTES
        try:
            answer = self._client.sign(
                KeyId=self.key_id,
                Message=hashlib.sha256(message).digest() if as_digest else message,
                MessageType="DIGEST" if as_digest else "RAW",
                SigningAlgorithm=ALGORITHM,
            )
        except Exception as error:
            raise errors.translate(error, "kms:Sign", self.key_id) from error
        return self._checked(message, answer)

    def _checked(self, message: bytes, answer: dict[str, Any]) -> Signed:
        signature = answer.get("Signature")
        if not isinstance(signature, bytes) or not signature:
            # an empty or cut 200 passes through botocore without an error; nothing left us, so asking again is safe
            raise RetryError(Code.KMS_PROTOCOL, "kms:Sign: an answer without a signature", delay_s=0.25)
        if answer.get("SigningAlgorithm", ALGORITHM) != ALGORITHM:
            raise HaltError(Code.KMS_PROTOCOL, f"kms:Sign: expected {ALGORITHM}, got another algorithm")
        if not same_key(self.key_id, str(answer.get("KeyId", ""))):
            raise HaltError(
                Code.KEY_MISMATCH, "kms:Sign: the answer names another key", field="signer.kms.key_id",
                hint="was the alias moved? point it back, or rotate the pin and the nodes together",
            )  # fmt: skip
        if not self._verifier.verify(message, signature):
            raise HaltError(
                Code.SIGNATURE_INVALID, "kms:Sign: the signature does not verify under the pinned key",
                hint="nothing was recorded or published; check the endpoint and the key",
            )  # fmt: skip
        request_id = str(answer.get("ResponseMetadata", {}).get("RequestId", ""))
        return Signed(signature=signature, request_id=request_id, key_id=self.key_id)


def _connect(settings: KmsSettings, credentials: SnapshotCredentials) -> tuple[Any, dict[str, Any]]:
    """The client, and what GetPublicKey said."""
    try:
        client = build_client(settings, credentials)
    except Exception as error:
        raise errors.translate_building(error) from error
    return client, _describe(client, settings.key_id or "")


def _describe(client: Any, key_id: str) -> dict[str, Any]:
    try:
        described: dict[str, Any] = client.get_public_key(KeyId=key_id)
    except Exception as error:
        raise errors.translate(error, "kms:GetPublicKey", key_id) from error
    if not isinstance(described.get("PublicKey"), bytes) or not described.get("KeyId"):
        raise RetryError(Code.KMS_PROTOCOL, "kms:GetPublicKey: an answer without a public key")
    return described


def public_key_of(described: dict[str, Any]) -> PublicKey:
    """The public key of a GetPublicKey answer.

    Raises:
        HaltError: `KEY_UNSUITABLE` for another spec, usage or algorithm; `PUBLIC_KEY_INVALID` for another form.
    """
    expected = (("KeySpec", "ECC_NIST_P256"), ("KeyUsage", "SIGN_VERIFY"))
    for name, want in expected:
        got = described.get(name, want)  # moto leaves KeySpec out: then the exact SPKI form decides
        if got != want:
            raise HaltError(
                Code.KEY_UNSUITABLE, f"{name}: expected {want}, got {got}", field="signer.kms.key_id",
                hint="create a key with KeySpec ECC_NIST_P256 and KeyUsage SIGN_VERIFY",
            )  # fmt: skip
    algorithms = described.get("SigningAlgorithms", [ALGORITHM])
    if not isinstance(algorithms, list) or ALGORITHM not in algorithms:
        raise HaltError(Code.KEY_UNSUITABLE, f"SigningAlgorithms: expected {ALGORITHM}", field="signer.kms.key_id")
    p256_from_spki(described["PublicKey"])
    return PublicKey(algorithm="p256", encoded=described["PublicKey"])


def same_key(pinned: str, answered: str) -> bool:
    """Whether two key names are one key: equal, or replicas of one multi-Region key, which differ in Region only."""
    if pinned == answered:
        return True
    a, b = pinned.split(":"), answered.split(":")
    if len(a) == len(b) == 6:
        return a[5].startswith("key/mrk-") and [*a[:3], *a[4:]] == [*b[:3], *b[4:]]
    # an emulator that names keys by ARN in one call and by bare id in another
    return bool(answered) and (pinned.rpartition("/")[2] == answered.rpartition("/")[2]) and 1 in (len(a), len(b))
