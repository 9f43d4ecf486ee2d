"""The asynchronous client: one call for a wallet or a signature, however often it is repeated; see `calls`."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self, Unpack, cast, overload

from nats.aio.client import Client

from initiator.client import wire
from initiator.client.calls import SUBMIT_S, TIMEOUT_S, CallOptions, Calls, deadline_of
from initiator.client.errors import (
    ClientError,
    RejectedError,
    TooLateError,
    UnavailableError,
)
from initiator.client.link import Link
from initiator.client.results import EcdsaSignature, EddsaSignature, ResharedKey, Result, Signature, Wallet
from initiator.client.signing import RequestSigner
from initiator.client.trust import Judge
from initiator.client.waiting import ASK_S, Progress
from initiator.client.wire import Event, Handle
from initiator.core.events import format_time, is_id
from initiator.core.model import KeyType, Operation, Request
from initiator.errors import Code

_FOLLOW_S = 5.0


class InitiatorClient:
    """A service's way to the daemon. Make one with `connect`, or around a NATS connection of your own.

    Args:
        nc: a connected nats-py client; it stays yours.
        client: your name in the daemon's configuration: the token in your subjects.
        chain_code: the cluster's, 32 bytes or 64 hex digits: verifies signatures under derivation paths, derives keys.
        wallets: wallets whose keys you know already, and nobody can change; others are asked for when they are needed.
        allow_unverified: hand out signatures that nobody could verify, marked so.
        signer: signs each request with a key of your own, where the daemon's policy knows it.
    """

    def __init__(
        self,
        nc: Client,
        *,
        client: str,
        chain_code: bytes | str | None = None,
        wallets: Iterable[Wallet] = (),
        allow_unverified: bool = False,
        signer: RequestSigner | None = None,
    ) -> None:
        self._setup(Link(nc, client, owned=False), chain_code, wallets, allow_unverified, signer)

    def _setup(
        self,
        link: Link,
        chain_code: bytes | str | None,
        wallets: Iterable[Wallet],
        allow_unverified: bool,
        signer: RequestSigner | None,
    ) -> None:
        self._link = link
        self._calls = Calls(link, Judge(_chain_code(chain_code), allow_unverified), wallets, signer)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        servers: str | list[str],
        *,
        client: str,
        chain_code: bytes | str | None = None,
        wallets: Iterable[Wallet] = (),
        allow_unverified: bool = False,
        signer: RequestSigner | None = None,
        connect_timeout: float = 10.0,
        **nats_options: Any,
    ) -> AsyncIterator[Self]:
        """A client with a connection of its own, for the length of the block.

        Args:
            servers: URLs of NATS.
            signer: see the class.
            connect_timeout: seconds for the first connection; later ones are tried for ever.
            nats_options: login, TLS and the like, as `nats.connect` takes them (`user`, `password`, `tls` …).

        Raises:
            UnavailableError: no server answers.
            DeniedError: the login is refused, or may not do what a client must.
            RejectedError: `client` is no name of a client.
        """
        link = await Link.connect(servers, client, connect_timeout, nats_options)
        self = cls.__new__(cls)
        self._setup(link, chain_code, wallets, allow_unverified, signer)
        async with self:
            yield self

    async def __aenter__(self) -> Self:
        try:
            await self._calls.listen()
        except ClientError:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening. What was asked for goes on; who waits here is told that it is still running."""
        self._calls.close()
        await self._link.close()

    @property
    def client(self) -> str:
        """Your name."""
        return self._link.client

    # --- what to ask for

    async def keygen(self, wallet_id: str, **options: Unpack[CallOptions]) -> Wallet:
        """A new wallet; the same one where it was asked for before.

        Raises:
            ClientError: one of its kinds, one for each way to react.
        """
        expires_at, labels = options.get("expires_at"), options.get("labels")
        request = wire.keygen(wallet_id, expires_at=expires_at, labels=labels)
        return cast(Wallet, await self._calls.call(request, options))

    @overload
    async def sign(
        self, wallet_id: str, tx: bytes, *, tx_id: str, key_type: Literal["ed25519", KeyType.ED25519],
        network_internal_code: str = ..., derivation_path: Sequence[int] | None = ...,
        **options: Unpack[CallOptions],
    ) -> EddsaSignature: ...  # fmt: skip

    @overload
    async def sign(
        self, wallet_id: str, tx: bytes, *, tx_id: str, key_type: Literal["secp256k1", KeyType.SECP256K1],
        network_internal_code: str = ..., derivation_path: Sequence[int] | None = ...,
        **options: Unpack[CallOptions],
    ) -> EcdsaSignature: ...  # fmt: skip

    @overload
    async def sign(
        self, wallet_id: str, tx: bytes, *, tx_id: str, key_type: KeyType | str,
        network_internal_code: str = ..., derivation_path: Sequence[int] | None = ...,
        **options: Unpack[CallOptions],
    ) -> Signature: ...  # fmt: skip

    async def sign(
        self,
        wallet_id: str,
        tx: bytes,
        *,
        tx_id: str,
        key_type: KeyType | str,
        network_internal_code: str = "",
        derivation_path: Sequence[int] | None = None,
        **options: Unpack[CallOptions],
    ) -> Signature:
        """A signature; the same one where it was asked for before.

        Args:
            tx: for `secp256k1` the 32-byte hash, for `ed25519` the message.
            tx_id: your id of this transaction; one id never gets two payloads.
            derivation_path: the child key that signs: non-hardened levels.

        The errors are those of `keygen`.
        """
        request = wire.sign(
            wallet_id=wallet_id, tx_id=tx_id, tx=tx, key_type=key_type, network_internal_code=network_internal_code,
            derivation_path=derivation_path, expires_at=options.get("expires_at"), labels=options.get("labels"),
        )  # fmt: skip
        return cast(Signature, await self._calls.call(request, options))

    async def reshare(
        self,
        session_id: str,
        *,
        wallet_id: str,
        key_type: KeyType | str,
        node_ids: Sequence[str],
        new_threshold: int,
        **options: Unpack[CallOptions],
    ) -> ResharedKey:
        """A key's shares moved to other nodes. The errors are those of `keygen`."""
        request = wire.reshare(
            session_id=session_id, wallet_id=wallet_id, key_type=key_type, node_ids=node_ids,
            new_threshold=new_threshold, expires_at=options.get("expires_at"), labels=options.get("labels"),
        )  # fmt: skip
        return cast(ResharedKey, await self._calls.call(request, options))

    async def request(self, request: Request, **options: Unpack[CallOptions]) -> Result:
        """Any request, and its result: what `keygen`, `sign` and `reshare` do with one that was made already."""
        return await self._calls.call(request, options)

    async def submit(self, request: Request, *, timeout: float = SUBMIT_S, retry: Event | str | None = None) -> Handle:
        """Put a request into the queue and do not wait for its result; make one as `KeygenRequest(wallet_id=…)`.

        Args:
            timeout: seconds until the queue must have taken it.

        Raises:
            RejectedError: it cannot even be sent.
            UnavailableError: the queue is full, not there or silent.
        """
        handle = wire.handle_of(self.client, request, retry)
        return await self._calls.submit(handle, deadline_of(timeout))

    async def result(self, handle: Handle, timeout: float = TIMEOUT_S, *, progress: Progress | None = None) -> Result:
        """Wait for the result of what was submitted, here or elsewhere. Errors are those of `keygen`."""
        return await self._calls.result(handle, deadline_of(timeout), progress)

    # --- questions

    async def wallet(self, wallet_id: str) -> Wallet | None:
        """A wallet that this client has made, or was given; None if there is none of that name.

        Raises:
            UnavailableError: no daemon answers.
            UntrustedResultError: what is on record are no keys.
        """
        return await self._calls.wallet(wallet_id, asyncio.get_running_loop().time() + ASK_S)

    async def status(
        self, op: Operation | str, operation_id: str, *, request_seq: int | None = None, timeout: float = ASK_S
    ) -> Event | None:
        """The last event of an operation of yours; None if there is none (or it waits in the queue).

        Args:
            request_seq: a request's own sequence (`Handle.sequence`): if that one was refused, its refusal.

        Raises:
            RejectedError: no such operation kind, or no id.
            UnavailableError: no daemon answers in time.
        """
        deadline = deadline_of(timeout)
        body: dict[str, Any] = {"op": wire.operation_of(op).value}
        if request_seq is None or is_id(operation_id):  # else it was refused for its id
            body["id"] = operation_id
        if request_seq is not None:
            body["request_seq"] = request_seq
        answer = await self._calls.ask("status", body, deadline)
        refusal = wire.read_event_or_none(answer.get("rejection"))
        return refusal or wire.read_event_or_none(answer.get("event"))

    async def history(self, op: Operation | str, operation_id: str, *, timeout: float = ASK_S) -> list[Event]:
        """All events of an operation of yours, oldest first. Errors are those of `status`."""
        body: dict[str, Any] = {"op": wire.operation_of(op).value, "id": operation_id}
        found: list[Event] = []
        deadline = deadline_of(timeout)
        while True:
            answer = await self._calls.ask("history", body, deadline)
            found += wire.read_page(answer)
            if not answer.get("events"):
                return found
            body["after"] = answer["next"]

    async def events(
        self, *, since: datetime | timedelta | None = None, after: int = 0, follow: bool = False
    ) -> AsyncGenerator[Event, None]:
        """Your events and refusals, oldest first, each once and in the record's order.

        Args:
            since: a moment, or how long ago; default: from the beginning.
            after: only what is later in the record than this `Event.sequence`: where an earlier reader stopped.
            follow: go on with what comes, for ever, also over lost connections and restarts.

        Raises:
            RejectedError: `since` has no zone.
            UnavailableError: no daemon answers (once one has, this is waited for while following).
        """
        body: dict[str, Any] = {"after": after} | ({"since": _since(since)} if since is not None else {})
        answered = False
        with self._calls.news() as news:
            while True:
                news.clear()
                try:
                    answer = await self._calls.ask("events", body, asyncio.get_running_loop().time() + ASK_S)
                except UnavailableError:
                    if not follow or not answered or self._link.closed:
                        raise
                    await asyncio.sleep(1.0)
                    continue
                answered = True
                body = {"after": answer["next"]}
                for event in wire.read_page(answer):
                    yield event
                if answer.get("events"):
                    continue
                if not follow:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_FOLLOW_S):
                        await news.wait()

    async def cancel(self, op: Operation | str, operation_id: str, *, timeout: float = ASK_S) -> Event:
        """End an operation that nothing was signed for; returns its final event, `failed` with outcome `none`.

        It stays ended: a request that waits to go on after an earlier failure (`retry`) will not. After this, and not
        before, what it was for may be asked for under another id.

        Raises:
            TooLateError: complete signed bytes are on record, or were: it may have been signed.
            RejectedError: `NOT_FOUND`: no operation of yours has this id, or not yet: it may wait in the queue.
            UnavailableError: no daemon answers in time; asking again is harmless.
        """
        body = {"op": wire.operation_of(op).value, "id": operation_id}
        deadline = deadline_of(timeout)
        try:
            answer = await self._link.ask(f"initiator.cancel.{self.client}", body, deadline)
        except RejectedError as error:
            if error.code != Code.TOO_LATE:
                raise
            raise TooLateError(error.code, error.reason, hint="wait for its result") from None
        return wire.read_event(answer["event"])


def _since(moment: datetime | timedelta) -> str:
    if isinstance(moment, timedelta):
        return f"{max(0, math.ceil(moment.total_seconds()))}s"  # ago, by the daemon's clock
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise RejectedError(Code.INVALID_FIELD, "expected a datetime with a zone, or a timedelta", field="since")
    try:
        return format_time(moment.timestamp())
    except (ValueError, OverflowError):
        raise RejectedError(Code.INVALID_FIELD, "expected a time before the year 9999", field="since") from None


def _chain_code(value: bytes | str | None) -> bytes | None:
    try:
        code = bytes.fromhex(value) if isinstance(value, str) else value
    except ValueError:
        code = b""
    if code is not None and len(code) != 32:
        raise RejectedError(Code.INVALID_FIELD, "expected 32 bytes, or 64 hex digits", field="chain_code")
    return code
