"""Keeping under our share of KMS's quota.

Invariants:
- in any span of t seconds at most `burst + rate * t` calls are let through;
- first come, first served; whoever waits has made no attempt yet;
- whoever cannot be served before its deadline is told at once and takes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from initiator.core.signer import Limiter
from initiator.errors import Code, RetryError


class Unlimited:
    """No limit."""

    async def acquire(self, deadline: float | None = None) -> None:
        return


class TokenBucket:
    """A limit for this process alone.

    Args:
        rate: calls a second in the long run.
        burst: calls that may go at once after a quiet while.
        now: monotonic seconds; default: the event loop's.
        sleep: default: `asyncio.sleep`.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        now: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate, self._burst = rate, float(burst)
        self._now = now or asyncio.get_running_loop().time
        self._sleep = sleep
        self._tokens = self._burst  # below zero: so many are waiting
        self._at = self._now()

    async def acquire(self, deadline: float | None = None) -> None:
        """Wait for a place; see `Limiter.acquire`."""
        now = self._now()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        wait_s = max(0.0, (1.0 - self._tokens) / self._rate)
        if deadline is not None and wait_s and now + wait_s >= deadline:
            reason = (
                f"this replica's own limit of {self._rate:g} signatures a second leaves no place before the deadline"
            )
            hint = "raise signer.kms.max_signs_per_s, if the account's quota allows, or add replicas"
            raise RetryError(Code.KMS_THROTTLED, reason, hint=hint, delay_s=wait_s)
        self._tokens -= 1.0
        if wait_s:
            await self._sleep(wait_s)  # whoever leaves now leaves its place empty: the others' times stay as they are


class Measured:
    """A limiter whose callers' waits are told, in seconds; refusals are not."""

    def __init__(self, limiter: Limiter, tell: Callable[[float], None]) -> None:
        self._limiter = limiter
        self._tell = tell

    async def acquire(self, deadline: float | None = None) -> None:
        """Wait for a place; see `Limiter.acquire`."""
        now = asyncio.get_running_loop().time
        began = now()
        await self._limiter.acquire(deadline)
        self._tell(now() - began)


def local_limiter(rate: float, burst: int) -> Limiter:
    """The limiter of these settings; a rate of 0 is none."""
    return TokenBucket(rate, burst) if rate else Unlimited()
