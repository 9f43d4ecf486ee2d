"""Authorizers of a test: what they are asked, and their answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from nats.aio.msg import Msg

from initiator.core import authorization, subjects
from initiator.core.authorization import Answer, Asking
from initiator.core.spki import p256_public_key
from tests.support.governed import KEYGEN
from tests.support.harness import Bench

RISK = ed25519.Ed25519PrivateKey.generate()
OPS = ec.generate_private_key(ec.SECP256R1())
AUTHORIZERS = {
    "risk": {"algorithm": "ed25519", "public_key": RISK.public_key().public_bytes_raw().hex()},
    "ops": {"algorithm": "p256", "public_key": p256_public_key(OPS.public_key()).hex},
}
BOTH = KEYGEN | {"authorizers": ["risk", "ops"]}


class Authorizers:
    """Hears what authorizers are asked, and answers for them."""

    def __init__(self, server: Bench) -> None:
        self._server = server
        self.asked: list[Asking] = []
        self._arrived = asyncio.Event()

    async def listen(self) -> None:
        async def on_asking(received: Msg) -> None:
            asking = authorization.decode_asking(received.data)
            assert (
                received.subject
                == f"initiator.authorize.{asking.authorizer_id}.{asking.operation}.{asking.operation_id}"
            )
            self.asked.append(asking)
            self._arrived.set()

        await self._server.nc.subscribe("initiator.authorize.>", cb=on_asking)
        await self._server.nc.flush()

    async def asking(self, authorizer: str, operation_id: str, after: int = 0) -> Asking:
        """The next thing that one is asked about an operation."""
        async with asyncio.timeout(15):
            while True:
                for asking in self.asked[after:]:
                    if (asking.authorizer_id, asking.operation_id) == (authorizer, operation_id):
                        return asking
                self._arrived.clear()
                await self._arrived.wait()

    async def answer(self, asking: Asking, data: bytes, authorizer: str = "") -> dict[str, Any]:
        """The daemon's reply."""
        subject = subjects.authorized(authorizer or asking.authorizer_id, asking.operation, asking.operation_id)
        reply = await self._server.nc.request(subject, data, timeout=5)
        body: dict[str, Any] = json.loads(reply.data)
        return body

    async def sign(self, authorizer: str, operation_id: str) -> dict[str, Any]:
        asking = await self.asking(authorizer, operation_id)
        return await self.answer(asking, authorization.encode_answer(signed(asking)))


def signed(asking: Asking) -> Answer:
    raw = asking.to_sign()
    made = RISK.sign(raw) if asking.authorizer_id == "risk" else OPS.sign(raw, ec.ECDSA(hashes.SHA256()))
    return Answer(asking.authorizer_id, made)
