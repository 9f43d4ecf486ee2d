"""The credentials of every KMS call: a frozen snapshot, renewed in the background.

Invariants:
- a call never waits for a renewal and never starts one: it is signed with the snapshot until that truly expires;
- one renewal at a time, in a thread of its own: whoever needs one joins it, and after a failed one nobody tries again
  for some seconds;
- a renewal that fails leaves the snapshot as it was;
- a renewal resolves the source anew, so that rotated files and profiles are read again.

Why not botocore's own: in the last ten minutes before the expiry, while its refresh fails, every caller refreshes in
turn and fails, although the credentials still hold.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError

from initiator.errors import InitiatorError
from initiator.kms.errors import translate_loading
from initiator.log import get_logger

RENEW_BEFORE_S = 600
CHECK_INTERVAL_S = 30.0
RETRY_AFTER_S = 5.0

log = get_logger()


class SnapshotCredentials(Credentials):
    """What botocore signs with. Any thread may read it; the event loop renews it.

    Args:
        load: resolves the source; blocks, may use the network.
        tell_expiry: told when those that end will end (Unix seconds), at each renewal.
    """

    def __init__(
        self, load: Callable[[], Credentials], tell_expiry: Callable[[float], None] = lambda _ends: None
    ) -> None:
        super().__init__(access_key="", secret_key="", method="snapshot")
        self._load = load
        self._tell_expiry = tell_expiry
        # replaced as one: threads read it without a lock
        self._held: tuple[Credentials, ReadOnlyCredentials] | None = None
        self._renewal: asyncio.Task[InitiatorError | None] | None = None
        self._failure: tuple[float, InitiatorError] | None = None
        self._refused_at = -math.inf  # when they were last renewed since KMS had refused them
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="kms-credentials")
        self.generation = 0

    def load_credentials(self) -> Credentials:
        """This object is its own provider to a botocore session."""
        return self

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """The snapshot, without I/O.

        Raises:
            CredentialRetrievalError: it expired, and no renewal has succeeded.
        """
        held = self._held
        if held is None or _expires_within(held[0], 0):
            raise CredentialRetrievalError(provider=held[0].method if held else "none", error_msg="they expired")
        return held[1]

    async def renew_after_refusal(self, seen: int) -> bool:
        """Renew what KMS refused; False where these were renewed just now: then it is not their age that is wrong.

        Args:
            seen: the `generation` that was refused; nothing is done where a newer one is there already.

        Raises:
            RetryError, HaltError: see `renew`.
        """
        if seen != self.generation:
            return True
        if asyncio.get_running_loop().time() - self._refused_at < RETRY_AFTER_S:
            return False
        await self.renew()
        self._refused_at = asyncio.get_running_loop().time()
        return True

    async def renew(self) -> None:
        """Resolve the source anew, together with all who ask meanwhile.

        Raises:
            RetryError: `KMS_CREDENTIALS`; the snapshot stays as it was.
            HaltError: `CONFIG_INVALID`: there is no such profile.
        """
        loop = asyncio.get_running_loop()
        if self._failure and loop.time() - self._failure[0] < RETRY_AFTER_S:
            raise self._failure[1]
        if self._renewal is None or self._renewal.done():
            self._renewal = loop.create_task(self._renew())
        # shielded: one caller that gives up does not take it from the others
        if failure := await asyncio.shield(self._renewal):
            raise failure

    async def _renew(self) -> InitiatorError | None:
        loop = asyncio.get_running_loop()
        try:
            self._held = await loop.run_in_executor(self._pool, self._resolve)
        except InitiatorError as error:
            self._failure = (loop.time(), error)
            return error
        self._failure = None
        self.generation += 1
        if (ends := _ends(self._held[0])) is not None:
            self._tell_expiry(ends)
        return None

    def _resolve(self) -> tuple[Credentials, ReadOnlyCredentials]:
        try:
            source = self._load()
            frozen = source.get_frozen_credentials()
        except Exception as error:
            raise translate_loading(error) from error
        return source, frozen

    async def keep_fresh(self, interval_s: float = CHECK_INTERVAL_S) -> None:
        """Renew well before the expiry, for ever; static credentials are left alone.

        The wall clock is asked at intervals, since a timer would oversleep a suspended machine.
        """
        while True:
            await asyncio.sleep(interval_s)
            if self._held is None or not _expires_within(self._held[0], RENEW_BEFORE_S):
                continue
            try:
                await self.renew()
            except InitiatorError as error:
                log.warning("credentials.renewal_failed", code=error.code.value, reason=error.reason, hint=error.hint)
            else:
                log.info("credentials.renewed", source=self._held[0].method)

    def close(self) -> None:
        """Let go of the thread, without waiting for a renewal that runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __repr__(self) -> str:
        return f"SnapshotCredentials(generation={self.generation})"

    def __getstate__(self) -> Any:
        raise TypeError("credentials are not serialised")


def _ends(source: Credentials) -> float | None:
    """Unix seconds; None: never. botocore shows it nowhere but in this field."""
    ends = getattr(source, "_expiry_time", None)
    return ends.timestamp() if isinstance(ends, datetime) else None


def _expires_within(source: Credentials, seconds: int) -> bool:
    return isinstance(source, RefreshableCredentials) and source.refresh_needed(seconds)
