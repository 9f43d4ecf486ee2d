"""Is a node's success true? Reads what the check needs from the record and asks the pure core.

A result carries no signature of the nodes, so nothing in it is believed that can be checked: its wallet, its key
type and threshold against the request, its public keys against their curves, its signature against the wallet's
key (or child key).
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from typing import Any

from initiator.config.wallets import Wallets
from initiator.core import message
from initiator.core.events import Event
from initiator.core.model import ContentType, KeygenRequest, Request, ReshareRequest, SignRequest
from initiator.core.result import KeygenKeys, NodeResult, ReshareKey
from initiator.core.wallet import Status, Verification, WalletKeys, check_keygen, verify_reshare, verify_signature
from initiator.errors import RejectError
from initiator.record import Record

_REMEMBERED = 10_000


class WalletBook:
    """Public keys of wallets, as their keygen's `completed` event recorded them; remembered once found.

    Args:
        made_before: wallets whose keygen never went through this record. They count before what is on record: an
            operator vouches for them, and a keygen's result could be forged.
    """

    def __init__(self, record: Record, made_before: Wallets) -> None:
        self._record = record
        self._made_before = made_before
        self._known: OrderedDict[str, tuple[WalletKeys, str]] = OrderedDict()

    async def keys(self, wallet_id: str) -> WalletKeys | None:
        """The wallet's keys; None if nobody has told us."""
        vouched = self.vouched(wallet_id)
        if vouched is not None:
            return vouched
        known = await self._on_record(wallet_id)
        return known[0] if known else None

    async def owner(self, wallet_id: str) -> str | None:
        """The client whose keygen made the wallet; None if nobody has told us.

        Raises:
            RetryError: the record cannot be read now.
        """
        if wallet_id in self._made_before.keys:
            return self._made_before.owners.get(wallet_id)
        known = await self._on_record(wallet_id)
        return known[1] if known else None

    async def _on_record(self, wallet_id: str) -> tuple[WalletKeys, str] | None:
        known = self._known.get(wallet_id)
        if known is not None:
            self._known.move_to_end(wallet_id)
            return known
        entry = await self._record.completed_keygen(wallet_id)
        if entry is None:
            return None
        found = self._known[wallet_id] = _keys_of(entry.event), entry.event.client
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    def vouched(self, wallet_id: str) -> WalletKeys | None:
        """The keys that the configuration gives for a wallet."""
        return self._made_before.keys.get(wallet_id)


def other_keys(event: Event, result: NodeResult) -> bool:
    """Whether a keygen's result names other keys than those that its `completed` event has."""
    value = result.value
    if not isinstance(value, KeygenKeys):
        return False
    return WalletKeys(ecdsa=value.ecdsa_pub_key, eddsa=value.eddsa_pub_key) != _keys_of(event)


def _keys_of(event: Event) -> WalletKeys:
    result = event.body["result"]
    return WalletKeys(ecdsa=_bytes_of(event, result["ecdsa_pub_key"]), eddsa=_bytes_of(event, result["eddsa_pub_key"]))


def _bytes_of(event: Event, value: Any) -> bytes:
    return base64.b64decode(value) if event.content_type is ContentType.JSON else bytes(value)


class ResultVerifier:
    """Checks a success against the request that was signed."""

    def __init__(self, book: WalletBook, chain_code: bytes | None) -> None:
        self._book = book
        self._chain_code = chain_code

    async def verify(self, signed_event: bytes, result: NodeResult) -> Verification:
        """Whether `result` answers the request inside our own recorded event bytes, and is true.

        Raises:
            RetryError: the record cannot be read now.
        """
        request = message.parse_event(result.operation, signed_event).request
        mismatch = _mismatch(request, result)
        if mismatch:
            return Verification(Status.INVALID, mismatch)
        if isinstance(request, KeygenRequest):
            return _keygen(result, self._book.vouched(request.wallet_id))
        keys = await self._book.keys(request.wallet_id)
        if isinstance(request, SignRequest):
            return verify_signature(
                key_type=request.key_type,
                tx=request.tx,
                derivation_path=request.derivation_path,
                result=result,
                keys=keys,
                chain_code=self._chain_code,
            )
        return verify_reshare(result, keys)


def _keygen(result: NodeResult, vouched: WalletKeys | None) -> Verification:
    """Keys are believed once they are recorded, not before: of two different successes one is."""
    try:
        keys = check_keygen(result)
    except RejectError as error:
        return Verification(Status.INVALID, f"{error.field}: {error.reason}")
    if vouched is not None and keys != vouched:
        return Verification(Status.INVALID, "wallet_id: this wallet was made before, with other keys")
    return Verification(Status.VERIFIED)


def _mismatch(request: Request, result: NodeResult) -> str:
    """What of the result belongs to another request; empty if nothing does."""
    # swap: a true signature of another wallet under our tx_id
    if result.wallet_id != request.wallet_id:
        return "wallet_id: the result is for another wallet"
    if isinstance(request, ReshareRequest) and isinstance(result.value, ReshareKey):
        if result.value.key_type is not request.key_type:
            return f"key_type: expected {request.key_type}, got {result.value.key_type}"
        if result.value.new_threshold != request.new_threshold:
            return f"new_threshold: expected {request.new_threshold}, got {result.value.new_threshold}"
    return ""
