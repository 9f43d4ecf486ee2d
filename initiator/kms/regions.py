"""One multi-Region key in several AWS Regions: tried in order, each behind a circuit breaker.

Invariants:
- every Region's public key is compared with the pin, or with the first Region's key, before it signs anything; every
  signature is verified under that key, whichever Region it came from: so moving on is safe;
- a Region that holds another key or signs wrongly is left alone at once, and readiness says so as long as it is;
- a Region that hangs costs one read timeout for each of the calls that opened its breaker, and then one in a probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from initiator.config.schema import KmsSettings
from initiator.core.signer import PublicKey, Signed, SignerHealth
from initiator.errors import Code, HaltError, InitiatorError, RetryError
from initiator.kms.breaker import Breaker
from initiator.kms.limiter import Unlimited, local_limiter
from initiator.kms.signer import KmsSigner
from initiator.log import get_logger

log = get_logger()
Told = Callable[[str, bool], None]
# what says nothing about the Region itself
_BUSY = frozenset({Code.KMS_THROTTLED, Code.KMS_CREDENTIALS})
# what a Region must not do even once
_LIES = frozenset({Code.KEY_MISMATCH, Code.SIGNATURE_INVALID, Code.KEY_UNSUITABLE, Code.PUBLIC_KEY_INVALID})


class _Region:
    """One Region: its signer, once its key was seen and found right."""

    def __init__(self, settings: KmsSettings) -> None:
        self.settings = settings
        self.name = settings.region or "default"
        self.breaker = Breaker()
        self.signer: KmsSigner | None = None
        self.trouble: InitiatorError | None = None


class RegionalSigner:
    """Signs in the first Region that can. Make one with `connect`.

    Args:
        told: hears of every Region that goes out (False) or comes back (True).
    """

    def __init__(self, regions: list[_Region], told: Told) -> None:
        self._regions = regions
        self._told = told
        first = regions[0].settings
        self._limiter = local_limiter(first.max_signs_per_s, first.burst_signs)
        self._public_key: PublicKey | None = None

    @classmethod
    async def connect(
        cls, settings: KmsSettings, *, pin: PublicKey | None = None, told: Told = lambda _name, _up: None
    ) -> RegionalSigner:
        """Look at the key in every Region; those that are away are tried again when they are needed.

        Raises:
            HaltError: no Region can sign, and in the first one that is for a person to mend.
            RetryError: no Region can sign yet.
        """
        one = cls([_Region(of_region) for of_region in settings.of_regions()], told)
        one._public_key = pin
        for region in one._regions:
            with contextlib.suppress(InitiatorError):
                await one._ready(region)
        if not any(region.signer for region in one._regions):
            trouble = one._regions[0].trouble
            await one.close()
            raise trouble or RetryError(Code.KMS_UNAVAILABLE, "no Region answers")
        return one

    @property
    def public_key(self) -> PublicKey:
        if self._public_key is None:
            raise HaltError(Code.PUBLIC_KEY_INVALID, "no Region has told its key")
        return self._public_key

    def health(self) -> SignerHealth:
        """Well while some Region can sign and none has lied."""
        troubles = [region.trouble for region in self._regions if region.trouble is not None]
        lies = [trouble for trouble in troubles if trouble.code in _LIES]
        if not lies and len(troubles) < len(self._regions):
            return SignerHealth(ok=True)
        worst = (lies or troubles)[0]
        out = ", ".join(region.name for region in self._regions if region.trouble is not None)
        return SignerHealth(ok=False, code=worst.code, reason=f"{worst.reason} (out: {out})")

    async def close(self) -> None:
        for region in self._regions:
            if region.signer is not None:
                await region.signer.close()

    async def sign(self, message: bytes, *, deadline: float | None = None) -> Signed:
        """Sign `message`; see `Signer.sign`. Regions are tried in order, all of them again until `deadline`."""
        loop = asyncio.get_running_loop()
        backoff_s = self._regions[0].settings.retry_base_s
        while True:
            trouble: InitiatorError | None = None
            for region in self._regions:
                if region.breaker.admits(loop.time()):
                    await self._place(region, deadline)
                    try:
                        return await self._sign_in(region, message)
                    except InitiatorError as error:
                        trouble = trouble or error
            wait_s = self._next_try_s(loop.time(), backoff_s)
            if deadline is None or loop.time() + wait_s >= deadline:
                raise trouble or self._all_out()
            await asyncio.sleep(wait_s)
            backoff_s = min(backoff_s * 2, self._regions[0].settings.retry_max_s)

    async def _place(self, region: _Region, deadline: float | None) -> None:
        """One place for one call, whichever Region gets it."""
        try:
            await self._limiter.acquire(deadline)
        except BaseException:
            region.breaker.left()
            raise

    def _next_try_s(self, now: float, backoff_s: float) -> float:
        jitter = random.uniform(0.5, 1)  # noqa: S311 - no secret
        if any(region.breaker.closed for region in self._regions):
            return backoff_s * jitter
        probe_s = min(region.breaker.probe_at for region in self._regions) - now
        return max(probe_s, backoff_s * jitter)

    def _all_out(self) -> InitiatorError:
        worst = next((region.trouble for region in self._regions if region.trouble), None)
        return RetryError(worst.code if worst else Code.KMS_UNAVAILABLE, worst.reason if worst else "no Region answers")

    async def _sign_in(self, region: _Region, message: bytes) -> Signed:
        try:
            signer = region.signer or await self._ready(region)
            signed = await signer.sign(message)  # without a deadline: one attempt
        except asyncio.CancelledError:
            region.breaker.left()
            raise
        except InitiatorError as error:
            self._failed(region, error)
            raise
        if region.breaker.succeeded():
            log.info("kms.region_back", region=region.name)
            self._told(region.name, True)
        region.trouble = None
        return signed

    async def _ready(self, region: _Region) -> KmsSigner:
        """The Region's signer, its key compared with ours."""
        try:
            region.signer = await KmsSigner.connect(region.settings, pin=self._public_key, limiter=Unlimited())
        except InitiatorError as error:
            region.trouble = error
            raise
        region.trouble = None
        self._public_key = self._public_key or region.signer.public_key
        return region.signer

    def _failed(self, region: _Region, error: InitiatorError) -> None:
        if error.code in _BUSY:
            region.breaker.left()
            return
        halts = isinstance(error, HaltError)
        opened = region.breaker.failed(asyncio.get_running_loop().time(), at_once=halts)
        if not region.breaker.closed:
            region.trouble = error
        if opened:
            write = log.error if halts else log.warning
            write("kms.region_out", region=region.name, code=error.code.value, reason=error.reason)
            self._told(region.name, False)
