"""A nats-server in a temporary folder and a requester with a key of its own, for tests of the simulated nodes."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig
from nats.js.client import JetStreamContext

from initiator.core.model import Operation
from initiator.core.result import NodeResult, parse_result
from initiator.core.wallet import WalletKeys, check_keygen

CLIENT_ID = "desk"
SERVER = Path(sys.executable).with_name("nats-server")
DURABLES = {
    Operation.KEYGEN: "mpc_keygen_result",
    Operation.SIGN: "mpc_signing_result",
    Operation.RESHARE: "mpc_reshare_result",
}


@asynccontextmanager
async def nats_server(folder: Path, *options: str, port: int = -1) -> AsyncIterator[str]:
    """A server with JetStream on a free port, or on one that it had before; yields its URL."""
    process = await asyncio.create_subprocess_exec(
        SERVER, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "js"), "--ports_file_dir", str(folder),
        *options, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(10):
            url = await _url(folder / f"nats-server_{process.pid}.ports")
        yield url
    finally:
        process.terminate()
        await process.wait()


async def _url(ports: Path) -> str:
    while True:  # the server writes the file once it listens
        try:
            return str(json.loads(await asyncio.to_thread(ports.read_text))["nats"][0])
        except (FileNotFoundError, json.JSONDecodeError):
            await asyncio.sleep(0.02)


class Desk:
    """Signs and sends events as an initiator does, and takes the results that are meant for it.

    Args:
        client_id: scopes results; None reads the unscoped ones.
    """

    def __init__(self, nc: Client, key: ec.EllipticCurvePrivateKey, client_id: str | None = CLIENT_ID) -> None:
        self.nc = nc
        self.js: JetStreamContext = nc.jetstream()
        self._key = key
        self._client_id = client_id

    def sign_bytes(self, data: bytes) -> bytes:
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    # --- requests; a `tamper` replaces fields after signing, as somebody on the way might

    async def send_keygen(
        self, wallet_id: str, *, session: str | None = "fresh", tamper: dict[str, Any] | None = None
    ) -> None:
        event = {"wallet_id": wallet_id, "signature": _b64(self.sign_bytes(wallet_id.encode()))}
        await self._publish("mpc.keygen_request", event | (tamper or {}), session)

    async def send_sign(
        self,
        wallet_id: str,
        tx_id: str,
        tx: bytes,
        key_type: str = "secp256k1",
        *,
        path: Sequence[int] | None = None,
        session: str | None = "fresh",
        tamper: dict[str, Any] | None = None,
    ) -> None:
        signed = {"key_type": key_type, "wallet_id": wallet_id, "network_internal_code": "net", "tx_id": tx_id}
        signed["tx"] = _b64(tx)
        event = signed | {"signature": self._signature(signed), "derivation_path": path and list(path)}
        await self._publish("mpc.signing_request", event | (tamper or {}), session)

    async def send_reshare(
        self,
        session_id: str,
        wallet_id: str,
        node_ids: list[str],
        key_type: str = "secp256k1",
        tamper: dict[str, Any] | None = None,
    ) -> None:
        signed = {"session_id": session_id, "node_ids": node_ids, "new_threshold": 1, "key_type": key_type}
        signed["wallet_id"] = wallet_id
        event = signed | {"signature": self._signature(signed)}
        headers = self._headers("fresh")
        await self.nc.publish("mpc:reshare", json.dumps(event | (tamper or {})).encode(), headers=headers)

    def _signature(self, fields: dict[str, Any]) -> str:
        return _b64(self.sign_bytes(json.dumps(fields, separators=(",", ":")).encode()))

    def _headers(self, session: str | None) -> dict[str, str]:
        headers = {} if session is None else {"SessionID": str(uuid.uuid4())}
        return headers | ({} if self._client_id is None else {"ClientID": self._client_id})

    async def _publish(self, prefix: str, event: dict[str, Any], session: str | None) -> None:
        subject = f"{prefix}.{uuid.uuid4().hex}"
        await self.js.publish(subject, json.dumps(event).encode(), headers=self._headers(session))

    # --- results

    async def message(self, operation: Operation, *, wait_s: float = 5.0) -> Msg:
        """The next stored result message; acked."""
        name = DURABLES[operation]
        if self._client_id is not None:
            durable, tail = f"{name}_{self._client_id}", f"{self._client_id}.*"
            await self.js.add_consumer(
                "mpc", ConsumerConfig(durable_name=durable, filter_subject=f"mpc.{name}.{tail}", ack_wait=30)
            )
            name = durable
        subscription = await self.js.pull_subscribe_bind(name, "mpc")
        try:
            message = (await subscription.fetch(1, timeout=wait_s))[0]
            await message.ack_sync()
        finally:
            await subscription.unsubscribe()
        return message

    async def result(self, operation: Operation, *, wait_s: float = 5.0) -> NodeResult:
        """The next result."""
        return parse_result(operation, (await self.message(operation, wait_s=wait_s)).data)

    async def stored_results(self) -> int:
        """How many results lie in the stream, taken ones excluded."""
        return (await self.js.stream_info("mpc")).state.messages

    async def new_wallet(self, wallet_id: str) -> WalletKeys:
        await self.send_keygen(wallet_id)
        return check_keygen(await self.result(Operation.KEYGEN))

    async def error(self, operation: Operation) -> str:
        """The code of the next result, which must be an error."""
        result = await self.result(operation)
        assert not result.success
        return result.error_code


@asynccontextmanager
async def desk(url: str, key: ec.EllipticCurvePrivateKey, client_id: str | None = CLIENT_ID) -> AsyncIterator[Desk]:
    """A connected requester."""
    nc = await nats.connect(url)
    try:
        yield Desk(nc, key, client_id)
    finally:
        await nc.close()


def spki_hex(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
