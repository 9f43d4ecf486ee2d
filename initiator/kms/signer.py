"""The event-initiator key in AWS KMS, in one Region or several.

Invariants:
- the key is pinned: in each Region its public key is checked (P-256, SIGN_VERIFY, ECDSA_SHA_256, the exact SPKI form)
  and compared with the configured one before that Region signs anything; every answer must name that same key;
- no signature leaves here that does not verify under the pinned key, whichever Region it came from;
- Regions are asked in their order, each once an attempt: the first that can sign does. One that is down, throttled or
  refuses is passed over; a false signature is not: it is told, and nothing is signed in this attempt;
- where all are left alone by their breakers, nobody is asked;
- a place under the limit is taken for each call to a Region, so it bounds what each Region gets.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass
from typing import Any

from initiator.config.signers import KmsSettings
from initiator.core.signer import HeldBackError, Limiter, Permit, PublicKey, Signed, SignerHealth
from initiator.errors import Code, HaltError, InitiatorError, RetryError
from initiator.kms import errors
from initiator.kms.breaker import Breaker
from initiator.kms.client import build_client, load_credentials
from initiator.kms.credentials import SnapshotCredentials
from initiator.kms.errors import Kind
from initiator.kms.limiter import Measured, local_limiter
from initiator.kms.region import Region, Standing
from initiator.log import get_logger
from initiator.metrics import Metrics

log = get_logger()
ALIAS_CHECK_S = 60.0


@dataclass(slots=True)
class _Call:
    """One `sign`, over all its attempts."""

    message: bytes
    deadline: float | None
    renewed: bool = False


class KmsSigner:
    """Signs with one KMS key. Make one with `connect`."""

    def __init__(
        self,
        settings: KmsSettings,
        regions: list[Region],
        credentials: SnapshotCredentials,
        pin: PublicKey,
        limiter: Limiter,
    ) -> None:
        self._settings = settings
        self._regions = regions
        self._credentials = credentials
        self._public_key = pin
        self._limiter = limiter
        self._failure: InitiatorError | None = None  # of the last attempt, if it failed
        self._background = [asyncio.create_task(credentials.keep_fresh())]
        self._background += [asyncio.create_task(self._watch(region)) for region in regions]

    @classmethod
    async def connect(
        cls,
        settings: KmsSettings,
        *,
        pin: PublicKey | None = None,
        metrics: Metrics | None = None,
        limiter: Limiter | None = None,
        permit: Permit | None = None,
    ) -> KmsSigner:
        """Fetch and check the public key, in each Region that can be reached.

        Args:
            pin: the key that the nodes trust; None to accept whichever the first Region that answers holds.
            metrics: where calls and Regions' moves are counted; None: nowhere.
            limiter: default: this process's own, by the settings.
            permit: accounts for each call to Sign; None: nobody does.

        Raises:
            RetryError: no Region that may hold the key can be reached, or there are no credentials yet.
            HaltError: no key id, a key of another form in every Region, or `KEY_MISMATCH`.
        """
        if not settings.targets:
            raise HaltError(Code.CONFIG_INVALID, "no key is configured", field="signer.kms.key_id")
        metrics = metrics or Metrics()
        expiry = metrics.credentials_expiry
        credentials = SnapshotCredentials(
            lambda: load_credentials(settings), tell_expiry=lambda ends: expiry.labels("kms").set(ends)
        )
        regions: list[Region] = []
        try:
            await credentials.renew()
            regions = await _build(settings, credentials, metrics, permit)
            trusted = await _check_keys(regions, pin)
            limiter = limiter or local_limiter(settings.max_signs_per_s, settings.burst_signs)
            return cls(settings, regions, credentials, trusted, Measured(limiter, metrics.limiter_seconds.observe))
        except BaseException:
            _close(regions, credentials)
            raise

    @property
    def public_key(self) -> PublicKey:
        return self._public_key

    def health(self) -> SignerHealth:
        """See `Signer.health`; a Region that is out while others sign is a note."""
        out = "; ".join(report for region in self._regions if (report := region.report()))
        for region in self._regions:
            if region.standing is Standing.SUSPECT and region.trouble:
                return SignerHealth(ok=False, code=region.trouble.code, reason=out)
        if self._failure:
            return SignerHealth(ok=False, code=self._failure.code, reason=self._failure.reason)
        troubles = [region.trouble for region in self._regions]
        if troubles[0] and all(troubles):
            return SignerHealth(ok=False, code=troubles[0].code, reason=out)
        return SignerHealth(ok=True, note=out)

    async def close(self) -> None:
        for task in self._background:
            task.cancel()
        _close(self._regions, self._credentials)

    # --- signing

    async def sign(self, message: bytes, *, deadline: float | None = None) -> Signed:
        """Sign `message`; see `Signer.sign`. Unavailability and throttling are retried until `deadline`."""
        loop = asyncio.get_running_loop()
        backoff_s = self._settings.retry_base_s
        call = _Call(message, deadline)
        while True:
            if any(region.signs and region.breaker.admits for region in self._regions):
                await self._limiter.acquire(deadline)
            try:
                signed = await self._attempt(call)
            except (errors.TooLateError, HeldBackError):
                raise
            except RetryError as error:
                self._failure = error
                wait_s = self._wait_s()
                error.delay_s = max(error.delay_s, wait_s)
                pause_s = wait_s + random.uniform(0, backoff_s)  # noqa: S311 - full jitter, no secret
                if error.code is Code.KMS_CREDENTIALS or deadline is None or loop.time() + pause_s >= deadline:
                    raise
                await asyncio.sleep(pause_s)
                backoff_s = min(backoff_s * 2, self._settings.retry_max_s)
            except InitiatorError as error:
                self._failure = error
                raise
            else:
                self._failure = None
                return signed

    def _wait_s(self) -> float:
        """Until some breaker lets a call through."""
        return min(region.breaker.wait_s for region in self._regions if region.signs)

    async def _attempt(self, call: _Call) -> Signed:
        """Each Region once, in order, until one has signed."""
        failures: list[tuple[str, InitiatorError]] = []
        asked = False
        for region in self._regions:
            if failures and _past(call.deadline):
                if region.signs:  # it might have signed: not for a person to mend, whatever the others' trouble is
                    failures.append((region.name, errors.TooLateError("not asked before the deadline")))
                break
            admits = region.signs and region.breaker.admits
            try:
                if asked and admits:  # what waited for a Region that hung must not go to the next all at once
                    await self._limiter.acquire(call.deadline)
                asked = asked or admits
                return await self._ask(region, call)
            except HeldBackError:
                raise  # no Region may be asked
            except errors.TooLateError as error:
                if not failures:
                    raise
                failures.append((region.name, error))
            except InitiatorError as error:
                # equivocation: who answers falsely for KMS is not rewarded by being gone round unseen
                if errors.kind_of(error) in (Kind.FALSE, Kind.SETTING) and region.signs:
                    failures = [(region.name, error)]
                    break
                failures.append((region.name, error))
        raise errors.combine(failures, named=len(self._regions) > 1)

    async def _ask(self, region: Region, call: _Call) -> Signed:
        """One Region; with fresh credentials at once, and only once, where they expired or were rotated."""
        generation = self._credentials.generation
        try:
            return await region.sign(call.message, call.deadline)
        except RetryError as error:
            if error.code is not Code.KMS_CREDENTIALS or call.renewed:
                raise
            call.renewed = True
            if not await self._renew(generation, call.deadline):
                raise
        await self._limiter.acquire(call.deadline)
        return await region.sign(call.message, call.deadline)

    async def _renew(self, generation: int, deadline: float | None) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._credentials.renew_after_refusal(generation)
        except TimeoutError:
            raise errors.TooLateError("renewing the credentials: no answer before the deadline") from None

    async def sign_everywhere(self, message: bytes, *, deadline: float) -> dict[str, InitiatorError | None]:
        """One signature in each Region, for `initiator check`: by the Region's name what went wrong, or None."""
        found: dict[str, InitiatorError | None] = {}
        for region in self._regions:
            try:
                await region.sign(message, deadline)
            except InitiatorError as error:
                found[region.name] = error
            else:
                found[region.name] = None
        return found

    # --- watching

    async def _watch(self, region: Region) -> None:
        """Compare the key of a Region that was down at the start as soon as it is back, then see that it stays."""
        while region.standing is Standing.UNCHECKED:
            await asyncio.sleep(region.breaker.wait_s)
            if key := await region.look():
                region.adopt(key, self._public_key)
        warned = False
        while region.signs:
            await asyncio.sleep(ALIAS_CHECK_S)
            try:
                moved = await region.key_moved()
            except InitiatorError:
                continue  # signing itself says what is wrong
            if isinstance(self._failure, RetryError):
                self._failure = None  # it answers again, although nobody has asked for a signature since
            # an alias that is moved does not move us (calls name the key itself), but the next start would be refused
            if moved and not warned:
                log.error(
                    "signer.key_id_moved", key_id=region.configured_key_id, pinned=region.key_id, region=region.name,
                    code=Code.KEY_MISMATCH.value, hint="point the alias back, or rotate the pin and the nodes together",
                )  # fmt: skip
            warned = moved


async def _build(
    settings: KmsSettings, credentials: SnapshotCredentials, metrics: Metrics, permit: Permit | None
) -> list[Region]:
    """The Regions, in order; their keys are not looked at yet."""

    built = await asyncio.to_thread(_clients, settings, credentials)
    now = asyncio.get_running_loop().time
    return [
        Region(
            target,
            client,
            # a lone Region is asked again and again: there is nowhere else to go
            Breaker(
                failures=settings.breaker_failures if len(built) > 1 else sys.maxsize,
                pause_s=settings.breaker_pause_s,
                pause_max_s=settings.breaker_pause_max_s,
                now=now,
            ),
            metrics,
            threads=settings.threads,
            patience_s=settings.connect_timeout_s + settings.read_timeout_s + 1.0,
            always_digest=settings.always_digest,
            hang_opens=len(built) > 1,
            permit=permit,
        )
        for target, client in zip(settings.targets, built, strict=True)
    ]


def _clients(settings: KmsSettings, credentials: SnapshotCredentials) -> list[Any]:
    """One client a Region; here, since boto3's sessions are not thread-safe, one after the other."""
    clients = []
    for index, target in enumerate(settings.targets):
        try:
            clients.append(build_client(settings, target, credentials))
        except Exception as error:
            raise errors.translate_building(error, index if settings.regions else None) from error
    return clients


async def _check_keys(regions: list[Region], pin: PublicKey | None) -> PublicKey:
    """The pinned key, once one Region at least is known to hold it."""
    keys = await asyncio.gather(*(region.look() for region in regions))
    trusted = pin or next((key for key in keys if key), None)
    for region, key in zip(regions, keys, strict=True):
        if region.trouble and region.trouble.code is Code.CONFIG_INVALID:
            raise errors.combine([(region.name, region.trouble)], named=len(regions) > 1)
        if key and trusted:
            region.adopt(key, trusted)
    if trusted is None or not any(region.signs for region in regions):
        failures = [(region.name, region.trouble) for region in regions if region.trouble]
        raise errors.combine(failures, named=len(regions) > 1)
    return trusted


def _close(regions: list[Region], credentials: SnapshotCredentials) -> None:
    for region in regions:
        region.close()
    credentials.close()


def _past(deadline: float | None) -> bool:
    return deadline is not None and asyncio.get_running_loop().time() >= deadline
