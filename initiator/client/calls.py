"""One operation from its request to its verified result, however often it is asked for.

Invariants:
- a call listens before it asks, and asks for the state in words where it matters: what the daemon tells by itself is a
  hint, what is on its record is the answer;
- every request has a deadline, so that no copy of it can come to life much later;
- a result is handed out only after somebody has verified it, and a wallet's keys never change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypedDict, cast

from initiator.client import wire
from initiator.client.errors import (
    NothingSignedError,
    OutcomeUnknownError,
    RejectedError,
    UnavailableError,
    UntrustedResultError,
)
from initiator.client.link import Link
from initiator.client.results import EcdsaSignature, EddsaSignature, Result, VerifiedBy, Wallet
from initiator.client.signing import RequestSigner
from initiator.client.trust import Judge
from initiator.client.waiting import ASK_S, Progress, Waiter, Waiting
from initiator.client.wire import Event, Handle
from initiator.core.lifecycle import REOPEN
from initiator.core.model import KeygenRequest, Operation, Request, SignRequest
from initiator.errors import Code

_LONGEST_S = 366 * 86_400.0
TIMEOUT_S = 120.0
"""How long a call waits for its result, if not told otherwise."""
SUBMIT_S = 15.0
EXPIRES_S = {Operation.KEYGEN: 900.0, Operation.SIGN: 900.0, Operation.RESHARE: 1800.0}
"""The deadline, from now, of a request that names none: as the daemon's own."""


class CallOptions(TypedDict, total=False):
    """What every call takes besides what it asks for.

    Attributes:
        timeout: seconds (default: 120); afterwards it goes on all the same.
        expires_at: the daemon gives up after this (default: 15 minutes from now by this machine's clock; reshare: 30).
        labels: kept with the operation's record.
        retry: the failure of an earlier call that this one goes on after (`NothingSignedError.event`), or its id.
            Once asked, it may begin at any time before its deadline: `cancel` before you use another id.
        progress: told of each event on the way.
    """

    timeout: float
    expires_at: datetime | None
    labels: Mapping[str, str] | None
    retry: Event | str | None
    progress: Progress | None


def deadline_of(timeout_s: float) -> float:
    """A timeout as loop time; raises RejectedError for what is no time to wait."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s <= _LONGEST_S:
        reason = f"expected seconds, more than 0 and at most {_LONGEST_S:g}, got {str(timeout_s)[:32]}"
        raise RejectedError(Code.INVALID_FIELD, reason, field="timeout")
    return asyncio.get_running_loop().time() + timeout_s


class Calls:
    """All that one client asks for.

    Args:
        wallets: wallets whose keys are known, and cannot be changed by anybody.
        signer: signs each request.
    """

    def __init__(
        self, link: Link, judge: Judge, wallets: Iterable[Wallet], signer: RequestSigner | None = None
    ) -> None:
        self._link = link
        self._signer = signer
        self._judge = judge
        given = [wallet if wallet.chain_code else replace(wallet, chain_code=judge.chain_code) for wallet in wallets]
        self._wallets = {wallet.wallet_id: wallet for wallet in given}
        self._waiting = Waiting(link)

    async def listen(self) -> None:
        """Begin to hear of events. Raises UnavailableError."""
        await self._link.listen(self._waiting.on_event)

    def close(self) -> None:
        """Whoever waits is told that it is still running."""
        self._waiting.close()

    def news(self) -> AbstractContextManager[asyncio.Event]:
        """Set whenever something was heard, or may have been missed."""
        return self._waiting.news()

    # --- operations

    async def call(self, request: Request, options: CallOptions) -> Result:
        """Ask for an operation, and wait for its result."""
        loop = asyncio.get_running_loop()
        deadline = deadline_of(options.get("timeout", TIMEOUT_S))
        handle = wire.handle_of(self._link.client, request, options.get("retry"))
        proves_itself = partial(self._proves_itself, request)
        with self._waiting.of(handle, options.get("progress"), proves_itself) as waiter:  # no event can be missed
            waiter.handle = await self.submit(handle, min(deadline, loop.time() + SUBMIT_S))
            return await self._ended(waiter, deadline)

    async def submit(self, handle: Handle, deadline: float) -> Handle:
        """Put a request into the queue."""
        request = handle.request
        if request.expires_at is None:
            request = replace(request, expires_at=time.time() + EXPIRES_S[request.operation])
        headers = {wire.CONTENT_TYPE: "application/msgpack"} | ({REOPEN: handle.reopens} if handle.reopens else {})
        if self._signer is not None:
            headers |= await self._signer.header(self._link.client, request, handle.reopens)
        sequence = await self._link.submit(handle.op, wire.encode(request), headers, deadline)
        return replace(handle, request=request, sequence=sequence)

    async def result(self, handle: Handle, deadline: float, progress: Progress | None) -> Result:
        """Wait for the result of what was submitted, here or elsewhere."""
        with self._waiting.of(handle, progress, partial(self._proves_itself, handle.request)) as waiter:
            waiter.ask_at_once()
            return await self._ended(waiter, deadline)

    async def _ended(self, waiter: Waiter, deadline: float) -> Result:
        """The result of what is under way, held against the wallet's keys."""
        request = waiter.handle.request
        known = await self._known_wallet(request, deadline)  # while it is under way, so that its end costs no time
        final = await self._waiting.until_final(waiter, deadline)
        if final.state == "rejected":
            field = cast(str | None, final.body.get("field"))
            hint = "is this machine's clock right? if so, give expires_at" if field == "expires_at" else None
            raise RejectedError(final.code, final.reason, field=field, hint=hint)
        if final.state == "failed":
            raise (NothingSignedError if final.outcome == "none" else OutcomeUnknownError)(final)
        result = self._judge.read(request, final, known or await self._known_wallet(request, deadline))
        return self._remember(result, final) if isinstance(result, Wallet) else result

    # --- wallets

    async def wallet(self, wallet_id: str, deadline: float) -> Wallet | None:
        """A wallet whose keys are known, or on the daemon's record; None if there is none of that name."""
        if known := self._wallets.get(wallet_id):
            return known
        answer = await self.ask("status", {"op": Operation.KEYGEN.value, "id": wallet_id}, deadline)
        event = wire.read_event_or_none(answer.get("event"))
        if event is None or event.state != "completed":
            return None
        return self._remember(cast(Wallet, self._judge.read(KeygenRequest(wallet_id=wallet_id), event, None)), event)

    def _remember(self, wallet: Wallet, event: Event) -> Wallet:
        known = self._wallets.setdefault(wallet.wallet_id, wallet)
        if known.keys != wallet.keys:
            # substitution: whoever can change a wallet's keys can have others sign in its name
            hint = "do not use it; tell whoever runs the daemon"
            raise UntrustedResultError(event, "the daemon's record has other keys than those known here", hint)
        return known

    async def _known_wallet(self, request: Request, deadline: float) -> Wallet | None:
        """The keys that a result is held against: as they were given, or as the daemon has them."""
        if isinstance(request, KeygenRequest):
            return None
        try:
            return await self.wallet(request.wallet_id, min(deadline, asyncio.get_running_loop().time() + ASK_S))
        except UnavailableError:
            return None  # then the daemon's own verdict counts

    def _proves_itself(self, request: Request, event: Event) -> bool:
        """Whether an event that was only told is a signature that verifies against keys that are known here."""
        known = self._wallets.get(request.wallet_id) if isinstance(request, SignRequest) else None
        if known is None or event.state != "completed":
            return False
        try:
            result = self._judge.read(request, event, known)
        except UntrustedResultError:
            return False
        return isinstance(result, EcdsaSignature | EddsaSignature) and result.verified_by is VerifiedBy.CLIENT

    # --- questions

    async def ask(self, kind: str, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        """One question to the daemon, and its answer; raises as `Link.ask`."""
        return await self._link.ask(f"initiator.query.{self._link.client}.{kind}", body, deadline)
