"""Daemons under a policy file, and clients that sign what they send."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any

import msgpack
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519

from initiator.app import App
from initiator.config.policyfile import load_policy
from initiator.config.schema import LimitSettings
from initiator.core import requester, validate
from initiator.core.events import format_time
from initiator.core.model import ContentType, Operation
from initiator.core.requester import RequesterSignature
from initiator.core.signer import PublicKey
from tests.support.harness import Bench, ScriptedSigner, settings_for, source

Rules = list[dict[str, Any]]
KEYGEN = {"id": "keygen", "effect": "allow", "operations": ["keygen"]}
KEY = ed25519.Ed25519PrivateKey.generate()
RULES = validate.Rules(
    max_tx_bytes=LimitSettings().max_tx_bytes, tx_id_form="uuid_or_no_hyphen", max_expiry_s=86_400, max_labels=16
)


class Governed:
    """Daemons under one policy file."""

    def __init__(self, server: Bench, folder: Path) -> None:
        self.server = server
        self.path = folder / "policy.yaml"
        self.signer = ScriptedSigner()

    def write(self, rules: Rules, **more: Any) -> str:
        """Put a policy in place, all at once; returns its version."""
        new = self.path.with_suffix(".new")
        new.write_text(yaml.safe_dump({"version": 1, "rules": rules, **more}))
        new.rename(self.path)
        return load_policy(str(self.path)).version

    def app(self, **changes: Any) -> App:
        policy = {"file": str(self.path), "watch_s": 0.05}
        return App(settings_for(self.server.url, policy=policy, **changes), source(self.signer))

    async def rejected(self, op: str, fields: dict[str, Any], client: str = "alice", **headers: str) -> tuple[str, str]:
        """Code and reason of a request's refusal."""
        event = await self.server.rejection(await self.server.submit(op, fields, client, **headers), client)
        return event["code"], event["field"]

    async def sealed(self, op: str, operation_id: str, client: str = "alice") -> dict[str, Any]:
        """What stands with a signature."""
        subject = f"initiator.event.{client}.{op}.{operation_id}.signed.sealed"
        found = await self.server.js.get_last_msg("INITIATOR_EVENTS", subject)
        body: dict[str, Any] = msgpack.unpackb(found.data or b"")
        return body


def name(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(6)}"


def signature(
    fields: dict[str, Any],
    client: str = "alice",
    op: Operation = Operation.KEYGEN,
    audience: str = "initiator",
    key: ed25519.Ed25519PrivateKey = KEY,
    reopens: str | None = None,
) -> dict[str, str]:
    """The header of a client that signs what it sends."""
    request = validate.parse_request(op, fields, ContentType.MSGPACK, RULES, time.time())
    public = PublicKey(algorithm="ed25519", encoded=key.public_key().public_bytes_raw())
    made = key.sign(requester.canonical_bytes(audience, client, request, reopens))
    return {requester.HEADER: requester.format_header(RequesterSignature(requester.key_text(public), made))}


def later(seconds: float) -> str:
    """A moment from now, as requests say it."""
    return format_time(time.time() + seconds)


def soon(**fields: Any) -> dict[str, Any]:
    """A request that expires in ten minutes: what is signed must."""
    return fields | {"expires_at": later(600)}


async def ask(server: Bench, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """A client's question, and what it is answered."""
    await server.nc.flush()
    reply = await server.nc.request(f"initiator.{what}", json.dumps(body).encode(), timeout=5)
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


def keys_of(*clients: str) -> dict[str, Any]:
    return {client: {"keys": [KEY.public_key().public_bytes_raw().hex()]} for client in clients}
