"""The same client for code without an event loop: each call blocks its thread; any number of threads may call."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from initiator.client.aio import InitiatorClient
from initiator.client.calls import SUBMIT_S, TIMEOUT_S, CallOptions
from initiator.client.errors import UnavailableError
from initiator.client.results import EcdsaSignature, EddsaSignature, ResharedKey, Result, Signature, Wallet
from initiator.client.signing import RequestSigner
from initiator.client.waiting import ASK_S, Progress
from initiator.client.wire import Event, Handle
from initiator.core.model import KeyType, Operation, Request
from initiator.errors import Code
from initiator.loopthread import LoopClosedError, LoopThread

T = TypeVar("T")


class SyncInitiatorClient:
    """See `InitiatorClient`; make one with `connect`. Results and errors are the same."""

    def __init__(self, loop: LoopThread, inner: InitiatorClient) -> None:
        self._loop = loop
        self._inner = inner

    @classmethod
    @contextlib.contextmanager
    def connect(
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
    ) -> Iterator[Self]:
        """A client with a connection of its own, for the length of the block; see `InitiatorClient.connect`."""
        with LoopThread("initiator-client") as loop:
            opening = InitiatorClient.connect(
                servers, client=client, chain_code=chain_code, wallets=wallets, allow_unverified=allow_unverified,
                signer=signer, connect_timeout=connect_timeout, **nats_options,
            )  # fmt: skip
            inner = loop.run(opening.__aenter__())
            try:
                yield cls(loop, inner)
            finally:
                with contextlib.suppress(LoopClosedError):  # in a process that was forked
                    loop.run(opening.__aexit__(None, None, None))

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            return self._loop.run(call)
        except LoopClosedError as error:
            raise UnavailableError(Code.BUS_UNAVAILABLE, str(error), maybe_queued=error.begun) from None

    @property
    def client(self) -> str:
        """Your name."""
        return self._inner.client

    def keygen(self, wallet_id: str, **options: Unpack[CallOptions]) -> Wallet:
        """See `InitiatorClient.keygen`."""
        return self._run(self._inner.keygen(wallet_id, **options))

    @overload
    def sign(
        self, wallet_id: str, tx: bytes, *, tx_id: str, key_type: Literal["ed25519", KeyType.ED25519],
        network_internal_code: str = ..., derivation_path: Sequence[int] | None = ...,
        **options: Unpack[CallOptions],
    ) -> EddsaSignature: ...  # fmt: skip

    @overload
    def sign(
        self, wallet_id: str, tx: bytes, *, tx_id: str, key_type: Literal["secp256k1", KeyType.SECP256K1],
        network_internal_code: str = ..., derivation_path: Sequence[int] | None = ...,
        **options: Unpack[CallOptions],
    ) -> EcdsaSignature: ...  # fmt: skip

    @overload
    def sign(
        self, wallet_id: str, tx: bytes, *, tx_id: str, key_type: KeyType | str,
        network_internal_code: str = ..., derivation_path: Sequence[int] | None = ...,
        **options: Unpack[CallOptions],
    ) -> Signature: ...  # fmt: skip

    def sign(
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
        """See `InitiatorClient.sign`."""
        call = self._inner.sign(
            wallet_id, tx, tx_id=tx_id, key_type=key_type, network_internal_code=network_internal_code,
            derivation_path=derivation_path, **options,
        )  # fmt: skip
        return self._run(call)

    def reshare(
        self,
        session_id: str,
        *,
        wallet_id: str,
        key_type: KeyType | str,
        node_ids: Sequence[str],
        new_threshold: int,
        **options: Unpack[CallOptions],
    ) -> ResharedKey:
        """See `InitiatorClient.reshare`."""
        call = self._inner.reshare(
            session_id, wallet_id=wallet_id, key_type=key_type, node_ids=node_ids, new_threshold=new_threshold,
            **options,
        )  # fmt: skip
        return self._run(call)

    def request(self, request: Request, **options: Unpack[CallOptions]) -> Result:
        """See `InitiatorClient.request`."""
        return self._run(self._inner.request(request, **options))

    def submit(self, request: Request, *, timeout: float = SUBMIT_S, retry: Event | str | None = None) -> Handle:
        """See `InitiatorClient.submit`."""
        return self._run(self._inner.submit(request, timeout=timeout, retry=retry))

    def result(self, handle: Handle, timeout: float = TIMEOUT_S, *, progress: Progress | None = None) -> Result:
        """See `InitiatorClient.result`."""
        return self._run(self._inner.result(handle, timeout, progress=progress))

    def wallet(self, wallet_id: str) -> Wallet | None:
        """See `InitiatorClient.wallet`."""
        return self._run(self._inner.wallet(wallet_id))

    def status(
        self, op: Operation | str, operation_id: str, *, request_seq: int | None = None, timeout: float = ASK_S
    ) -> Event | None:
        """See `InitiatorClient.status`."""
        return self._run(self._inner.status(op, operation_id, request_seq=request_seq, timeout=timeout))

    def history(self, op: Operation | str, operation_id: str, **options: float) -> list[Event]:
        """See `InitiatorClient.history`."""
        return self._run(self._inner.history(op, operation_id, **options))

    def cancel(self, op: Operation | str, operation_id: str, **options: float) -> Event:
        """See `InitiatorClient.cancel`."""
        return self._run(self._inner.cancel(op, operation_id, **options))

    def events(
        self, *, since: datetime | timedelta | None = None, after: int = 0, follow: bool = False
    ) -> Iterator[Event]:
        """See `InitiatorClient.events`."""
        found = self._inner.events(since=since, after=after, follow=follow)
        try:
            while (event := self._run(_next(found))) is not None:
                yield event
        finally:
            with contextlib.suppress(UnavailableError):
                self._run(found.aclose())


async def _next(events: AsyncGenerator[Event, None]) -> Event | None:
    return await anext(events, None)
