"""A policy for the development stack: clients sign their requests, authorizers sign, too, all with fresh keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from initiator import keyfile
from initiator.client import RequestSigner
from initiator.client.signing import new_seed
from initiator.core.signer import Algorithm, PublicKey

AUDIENCE = "initiator-dev"


@dataclass(frozen=True, slots=True)
class DevAuthorizer:
    """One authorizer: its id, its key file and its public key."""

    id: str
    key_path: Path
    public_key: PublicKey


def authorizer_ids(count: int) -> tuple[str, ...]:
    """The ids of so many."""
    return tuple(f"authorizer{number}" for number in range(1, count + 1))


class Trust:
    """Keys and rules of one stack.

    Args:
        strict: clients must sign, and may use their own wallets alone; else whoever is configured may ask for anything.
    """

    def __init__(self, folder: Path, clients: Sequence[str], authorizers: Sequence[str], *, strict: bool) -> None:
        self._folder = folder
        self._strict = strict
        self.authorizers = [self._authorizer(number, name) for number, name in enumerate(authorizers)]
        self._signers = {name: self._signer(name) for name in clients} if strict else {}
        self.policy_path = folder / "policy.json"
        self.policy_path.write_text(json.dumps(self._policy(), indent=2))  # JSON is YAML

    def _private(self, name: str, content: str) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(content)
        return path

    def _authorizer(self, number: int, name: str) -> DevAuthorizer:
        algorithm: Algorithm = "p256" if number % 2 else "ed25519"  # both kinds are shown
        content, public = keyfile.generate(algorithm)
        return DevAuthorizer(name, self._private(f"{name}.key", content), public)

    def _signer(self, client: str) -> RequestSigner:
        return RequestSigner.from_file(self._private(f"{client}.nk", new_seed()), audience=AUDIENCE)

    def signer_of(self, client: str) -> RequestSigner | None:
        """What a client signs with; None where it need not."""
        return self._signers.get(client)

    def signing_key_of(self, client: str) -> str | None:
        """The file of that key."""
        return str(self._folder / f"{client}.nk") if client in self._signers else None

    def _policy(self) -> dict[str, Any]:
        names = [one.id for one in self.authorizers]
        common: dict[str, Any] = {"effect": "allow", "authorizers": names}
        rules: list[dict[str, Any]] = [{"id": "everything", **common}]
        limits: list[dict[str, Any]] = []
        if self._strict:
            common |= {"signed": True, "max_deadline_s": 3600}
            own = {"owners": ["{client}"]}
            rules = [
                {"id": "no-tests", "effect": "deny", "wallets": ["test-*"]},
                {"id": "new-wallets", "operations": ["keygen"], **common},
                {"id": "own-wallets", "operations": ["sign"], "paths": ["m", "m/44/60/0/0/*"], **own, **common},
                {"id": "own-reshares", "operations": ["reshare"], "nodes": ["node?"], **own, **common},
            ]
            limits = [{"id": "a-day", "most": 10_000, "period": "day"}]
        keys = {name: {"keys": [signer.public_key]} for name, signer in self._signers.items()}
        authorizers = [(one.id, one.public_key) for one in self.authorizers]
        public = {name: {"algorithm": key.algorithm, "public_key": key.hex} for name, key in authorizers}
        return {"version": 1, "clients": keys, "authorizers": public, "rules": rules, "limits": limits}

    def authorizer_config(self, one: DevAuthorizer, login: dict[str, Any], pin: PublicKey) -> Path:
        """The settings file of an authorizer that signs whatever its clients have signed."""
        keys = {name: {"keys": [signer.public_key]} for name, signer in self._signers.items()}
        rule: dict[str, Any] = {"id": "signed-by-its-client" if self._strict else "everything", "effect": "allow"}
        rule |= {"signed": True} if self._strict else {}
        own = self._private(f"{one.id}.policy.json", json.dumps({"version": 1, "clients": keys, "rules": [rule]}))
        settings = {
            "authorizer_id": one.id,
            "nats": login,
            "key": {"path": str(one.key_path)},
            "event_initiator_pubkey": pin.hex,
            "event_initiator_algorithm": pin.algorithm,
            "policy": str(own),
            "decisions": str(self._folder / f"{one.id}.decisions.db"),
            "audience": AUDIENCE,
            "log": {"format": "json"},
        }
        return self._private(f"{one.id}.json", json.dumps(settings, indent=2))
