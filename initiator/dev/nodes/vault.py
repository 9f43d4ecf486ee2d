"""What the nodes of one cluster hold together: wallets, their committees, and the runs of the protocol.

All nodes of a run must come to the same end, as in a real protocol. A run is named by the `SessionID` that the
forwarding node chose; the first node that gets there does the work, the others find it done.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from initiator.dev.nodes import keys
from initiator.dev.nodes.keys import KeyType

_REMEMBERED_RUNS = 10_000
T = TypeVar("T")


class KeyExistsError(Exception):
    """The wallet has a key already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One key of a wallet and the committee that can use it."""

    scalar: int
    participants: tuple[str, ...]
    threshold: int
    version: int = 1


class Vault:
    """Wallets by id and key type; in memory, and in a JSON file if there is one."""

    def __init__(self, chain_code: bytes, store: Path | None = None) -> None:
        self._chain_code = chain_code
        self._store = store
        self._shares: dict[tuple[str, KeyType], Share] = {}
        self._runs: OrderedDict[tuple[str, str], Any] = OrderedDict()
        if store is not None and store.exists():
            self._load(store)

    def share(self, wallet_id: str, key_type: KeyType) -> Share | None:
        """A wallet's key, if it exists."""
        return self._shares.get((wallet_id, key_type))

    def public_key(self, wallet_id: str, key_type: KeyType) -> bytes:
        return keys.public_key(key_type, self._shares[wallet_id, key_type].scalar)

    def create(self, run: str, wallet_id: str, participants: tuple[str, ...], threshold: int) -> None:
        """Make both keys of a wallet.

        Raises:
            KeyExistsError: another run made them.
        """
        self._once(("create:" + wallet_id, run), lambda: self._create(wallet_id, participants, threshold))

    def _create(self, wallet_id: str, participants: tuple[str, ...], threshold: int) -> None:
        for key_type in keys.KEY_TYPES:
            if (wallet_id, key_type) in self._shares:
                raise KeyExistsError(f"Key already exists: {wallet_id}")
        for key_type in keys.KEY_TYPES:
            scalar = keys.new_scalar(key_type)
            self._shares[wallet_id, key_type] = Share(scalar=scalar, participants=participants, threshold=threshold)
        self._save()

    def sign(self, run: str, wallet_id: str, key_type: KeyType, tx: bytes, path: tuple[int, ...]) -> dict[str, bytes]:
        """The signature fields of a result.

        Raises:
            SigningError: the run fails.
        """
        return self._once(("sign:" + wallet_id, run), lambda: self._sign(wallet_id, key_type, tx, path))

    def _sign(self, wallet_id: str, key_type: KeyType, tx: bytes, path: tuple[int, ...]) -> dict[str, bytes]:
        scalar = keys.child(key_type, self._shares[wallet_id, key_type].scalar, self._chain_code, path)
        if key_type == "ed25519":
            return {"signature": keys.sign_eddsa(scalar, tx)}
        done = keys.sign_ecdsa(scalar, tx)
        return {"r": done.r, "s": done.s, "signature_recovery": done.recovery}

    def reshare(
        self, run: str, wallet_id: str, key_type: KeyType, participants: tuple[str, ...], threshold: int
    ) -> None:
        """Hand a key to another committee; the key stays what it is."""

        def move() -> None:
            old = self._shares[wallet_id, key_type]
            self._shares[wallet_id, key_type] = replace(
                old, participants=participants, threshold=threshold, version=old.version + 1
            )
            self._save()

        self._once(("reshare:" + wallet_id, run), move)

    def committee_before(self, run: str, wallet_id: str, key_type: KeyType) -> Share | None:
        """The committee that a reshare starts from, whichever node of the run asks first."""
        return self._once(("before:" + wallet_id, run), lambda: self._shares.get((wallet_id, key_type)))

    def _once(self, name: tuple[str, str], work: Callable[[], T]) -> T:
        if name in self._runs:
            done: T = self._runs[name]
            return done
        result = work()
        if name[1]:
            self._runs[name] = result
            if len(self._runs) > _REMEMBERED_RUNS:
                self._runs.popitem(last=False)
        return result

    # --- the file

    def _load(self, store: Path) -> None:
        for item in json.loads(store.read_text("utf-8")):
            wallet_id, key_type = item.pop("wallet_id"), item.pop("key_type")
            item["scalar"], item["participants"] = int(item["scalar"], 16), tuple(item["participants"])
            self._shares[wallet_id, key_type] = Share(**item)

    def _save(self) -> None:
        if self._store is None:
            return
        listed = [
            {"wallet_id": wallet_id, "key_type": key_type} | asdict(share) | {"scalar": f"{share.scalar:064x}"}
            for (wallet_id, key_type), share in self._shares.items()
        ]
        new = self._store.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(listed), "utf-8")
        os.replace(new, self._store)
