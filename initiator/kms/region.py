"""One Region: its client and threads, its key, its breaker, and what is known of it.

Invariants:
- nothing is signed here before the Region's public key was compared with the pin; where it differs, never;
- no signature leaves here that does not verify under the pinned key: not from an empty 200, not from a lying
  endpoint, not from an alias that was moved;
- what goes out as RAW is at most 4,096 bytes; above that KMS gets the SHA-256, which signs the same;
- threads are the Region's own: one that hangs takes none from the others, and who waits for a thread here goes on
  elsewhere as soon as the breaker opens;
- a call's end is noted by the call itself, also where nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from typing import Any

from initiator.config.signers import KmsTarget
from initiator.core.keynames import same_key
from initiator.core.signature import Verifier
from initiator.core.signer import Permit, PublicKey, Signed
from initiator.core.spki import check_pin, p256_from_spki
from initiator.errors import Code, HaltError, InitiatorError, RetryError
from initiator.kms import errors
from initiator.kms.breaker import Breaker, BreakerState
from initiator.kms.errors import Kind
from initiator.log import get_logger
from initiator.metrics import Metrics

log = get_logger()
MAX_RAW_BYTES = 4096
ALGORITHM = "ECDSA_SHA_256"


class Standing(StrEnum):
    """What is known of the key and the answers of a Region that can be reached."""

    UNCHECKED = "unchecked"  # its key was not compared with the pin yet
    PINNED = "pinned"
    REFUSED = "refused"  # the last call was denied, or the key is not enabled there
    SUSPECT = "suspect"  # the last signature was false; stays so until a right one comes
    BARRED = "barred"  # its key is another one: never used


class Region:
    """One Region; made by `KmsSigner`, used on the event loop.

    Args:
        threads: calls at once.
        patience_s: how long a call may take: the library's timeouts bound each step of it, not a trickle of bytes.
        hang_opens: one timeout opens the breaker, since there are other Regions to go to.
        permit: asked for each signature; None: nobody is.
    """

    def __init__(
        self,
        target: KmsTarget,
        client: Any,
        breaker: Breaker,
        metrics: Metrics,
        *,
        threads: int,
        patience_s: float,
        always_digest: bool,
        hang_opens: bool,
        permit: Permit | None = None,
    ) -> None:
        self.configured_key_id = target.key_id
        self.name: str = target.region or client.meta.region_name
        self.key_id = target.key_id  # the key's ARN, once it is known
        self.breaker = breaker
        self._client = client
        self._metrics = metrics
        self._always_digest, self._hang_opens = always_digest, hang_opens
        self._patience_s = patience_s
        self._permit = permit
        self._given_up: set[int] = set()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"kms-{self.name}")
        self._places = asyncio.Semaphore(threads)
        self._described: dict[str, Any] = {}
        self._verifier: Verifier | None = None
        self._barred: InitiatorError | None = None
        self._false: InitiatorError | None = None
        self._refused: InitiatorError | None = None
        self._down: InitiatorError | None = None
        self._told: tuple[StrEnum, StrEnum] = (BreakerState.CLOSED, Standing.UNCHECKED)

    # --- what is known

    @property
    def standing(self) -> Standing:
        if self._barred:
            return Standing.BARRED
        if self._verifier is None:
            return Standing.UNCHECKED
        if self._false:
            return Standing.SUSPECT
        return Standing.REFUSED if self._refused else Standing.PINNED

    @property
    def trouble(self) -> InitiatorError | None:
        """Why it is out or in doubt, if it is."""
        down = self._down if self.breaker.state is not BreakerState.CLOSED else None
        return self._barred or self._false or self._refused or down

    @property
    def signs(self) -> bool:
        """Whether its key is the pinned one."""
        return self._verifier is not None

    def report(self) -> str:
        """What is amiss, in words; empty where nothing is."""
        trouble = self.trouble
        state = self.standing if self.breaker.state is BreakerState.CLOSED else self.breaker.state
        return f"{self.name} is {state}: {trouble.code} {trouble.reason}" if trouble else ""

    # --- the key

    async def look(self) -> PublicKey | None:
        """Ask for the public key; None where it did not come or is of another form (`trouble` says why)."""
        ticket = self.breaker.admit()
        if ticket is None:
            return None
        self._tell()
        try:
            described = await self._run(self._describe)
        except InitiatorError as error:
            self._down, self._refused = error, error if isinstance(error, HaltError) else None
            self.breaker.failed(ticket, at_once=True)
            self._tell()
            return None
        except BaseException:
            self.breaker.forget(ticket)
            raise
        self.breaker.succeeded(ticket)
        self._down = self._refused = None
        return self._read(described)

    def _read(self, described: dict[str, Any]) -> PublicKey | None:
        self._described = described
        try:
            return public_key_of(described)
        except HaltError as error:
            self._barred = error
            self._tell()
            return None

    def adopt(self, key: PublicKey, pin: PublicKey) -> None:
        """Use this Region from now on if its key is the pinned one, and never if it is not."""
        try:
            check_pin(key, pin)
        except HaltError as error:
            # substitution: a replica, an alias or an endpoint of another Region that holds somebody else's key
            self._barred = error
        else:
            self.key_id = self._described["KeyId"]
            self._verifier = Verifier(pin)
        self._tell()

    async def key_moved(self) -> bool:
        """Whether the configured name means another key by now.

        Raises:
            InitiatorError: it cannot be told.
        """
        described = await self._run(self._describe)
        return bool(described["PublicKey"] != self._described["PublicKey"])

    def _describe(self) -> dict[str, Any]:
        key_id = self.configured_key_id
        try:
            described: dict[str, Any] = self._client.get_public_key(KeyId=key_id)
        except Exception as error:
            raise errors.translate(error, "kms:GetPublicKey", key_id) from error
        if not isinstance(described.get("PublicKey"), bytes) or not described.get("KeyId"):
            raise RetryError(Code.KMS_PROTOCOL, "kms:GetPublicKey: an answer without a public key")
        return described

    # --- signing

    async def sign(self, message: bytes, deadline: float | None) -> Signed:
        """One call, if the breaker allows one.

        Raises:
            RetryError: out of reach, throttled, without credentials, or left alone for now.
            HaltError: refused, barred, or a false answer.
            HeldBackError: operators' orders forbid the call; nobody was asked.
        """
        ticket = await self._enter(deadline)
        await self._ask_leave(ticket, deadline)
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._sign_once, message)
        future.add_done_callback(partial(self._settle, ticket))
        self._tell()
        left_s = _left(deadline)
        await asyncio.wait({future}, timeout=min(self._patience_s, math.inf if left_s is None else left_s))
        if future.done():
            return future.result()
        if left_s is None or left_s > self._patience_s:
            raise self._give_up(ticket)
        raise errors.TooLateError("kms:Sign: no answer before the deadline")

    async def _ask_leave(self, ticket: int, deadline: float | None) -> None:
        """Here and nowhere else, so that each call is accounted for."""
        if self._permit is None:
            return
        try:
            await self._permit.spend(deadline)
        except BaseException:
            self.breaker.forget(ticket)
            self._places.release()
            raise

    def _give_up(self, ticket: int) -> InitiatorError:
        """A call that goes on for longer than its timeouts allow; it keeps its thread until it ends."""
        self._given_up.add(ticket)
        self._down = RetryError(
            Code.KMS_UNAVAILABLE, f"kms:Sign: no answer within {self._patience_s:g} s", delay_s=0.25
        )
        self.breaker.failed(ticket, at_once=self._hang_opens)
        self._tell()
        return self._down

    async def _enter(self, deadline: float | None) -> int:
        """A thread and a ticket."""
        if self.breaker.admits and self.signs:
            left_s = _left(deadline)
            try:
                async with asyncio.timeout(min(self._patience_s, math.inf if left_s is None else left_s)):
                    await self._places.acquire()
            except TimeoutError:
                if left_s is not None and left_s <= self._patience_s:
                    raise errors.TooLateError("kms:Sign: no thread was free before the deadline") from None
                reason = f"kms:Sign: no thread was free within {self._patience_s:g} s"
                raise RetryError(Code.KMS_UNAVAILABLE, reason, delay_s=0.25) from None
            ticket = self.breaker.admit()  # meanwhile it may have opened
            if ticket is not None:
                return ticket
            self._places.release()
        raise self._left_alone()

    def _left_alone(self) -> InitiatorError:
        trouble = self._barred or self._down or self.trouble
        code, reason = (trouble.code, trouble.reason) if trouble else (Code.KMS_UNAVAILABLE, "a failure")
        if self._barred:
            return HaltError(code, reason, field=self._barred.field, hint=self._barred.hint)
        wait_s = self.breaker.wait_s
        return RetryError(code, f"left alone for {wait_s:.1f} s more after {reason}", delay_s=wait_s)

    def _settle(self, ticket: int, future: asyncio.Future[Signed]) -> None:
        """What this call's end says."""
        self._places.release()
        if ticket in self._given_up:
            self._given_up.discard(ticket)
            future.cancelled() or future.exception()  # what came of it in the end is nobody's any more
            return
        error = None if future.cancelled() else future.exception()
        kind = errors.kind_of(error) if error else None
        if future.cancelled() or kind in (Kind.CREDENTIALS, Kind.SETTING):
            self.breaker.forget(ticket)
        elif kind in (Kind.DOWN, Kind.HUNG):
            self._down = error if isinstance(error, InitiatorError) else None
            self.breaker.failed(ticket, at_once=self._hang_opens and kind is Kind.HUNG)
        else:
            self.breaker.succeeded(ticket)
        if kind in (Kind.REFUSED, Kind.CREDENTIALS) and isinstance(error, InitiatorError):
            self._refused = error
        elif kind is Kind.FALSE and isinstance(error, InitiatorError):
            self._false = error
        elif error is None and not future.cancelled():
            self._false = self._refused = None
        if not future.cancelled():
            code = error.code if isinstance(error, InitiatorError) else "ERROR" if error else "OK"
            self._metrics.signer_calls.labels(self.name, code).inc()
        self._tell()

    def _sign_once(self, message: bytes) -> Signed:
        """One call, in a thread: asked, checked, verified."""
        as_digest = self._always_digest or len(message) > MAX_RAW_BYTES
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
        if self._verifier is None or not self._verifier.verify(message, signature):
            raise HaltError(
                Code.SIGNATURE_INVALID, "kms:Sign: the signature does not verify under the pinned key",
                hint="nothing was recorded or published; check the endpoint and the key",
            )  # fmt: skip
        request_id = str(answer.get("ResponseMetadata", {}).get("RequestId", ""))
        return Signed(signature=signature, request_id=request_id, key_id=self.key_id)

    # --- the rest

    async def _run(self, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _tell(self) -> None:
        """One line and one count for each move of the breaker and of the standing."""
        now: tuple[StrEnum, StrEnum] = (self.breaker.state, self.standing)
        told, self._told = self._told, now
        moved = [state for state, before in zip(now, told, strict=True) if state != before]
        trouble = self.trouble
        for state in moved:
            code, reason = (trouble.code.value, trouble.reason) if trouble else ("", "")
            self._metrics.signer_region_changes.labels(self.name, state.value, code).inc()
            level = log.info if state in _WELL else log.error if state in _ALARMING else log.warning
            level("signer.region_changed", region=self.name, state=state.value, code=code, reason=reason)
        if moved:
            usable = now == (BreakerState.CLOSED, Standing.PINNED)
            self._metrics.signer_region_usable.labels(self.name).set(usable)

    def close(self) -> None:
        """Let go of the threads, without waiting for calls that run."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()


_WELL = {BreakerState.CLOSED, BreakerState.HALF_OPEN, Standing.PINNED}
_ALARMING = {Standing.BARRED, Standing.SUSPECT}


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())


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
