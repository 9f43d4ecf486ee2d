"""Daemons in this process on a real nats-server, with the test in the place of clients and nodes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import nats
from cryptography.hazmat.primitives.asymmetric import ec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from initiator import keyfile
from initiator.app import App, SignerSource
from initiator.config.schema import Settings
from initiator.core.signer import PublicKey, Signed, Signer, SignerHealth
from initiator.dev import servers
from initiator.dev.nodes import results
from initiator.dev.nodes.keys import KeyType
from initiator.dev.nodes.vault import Vault

CHAIN_CODE = "22" * 32
Body = dict[str, Any]
NODES = ("node0", "node1", "node2")
STREAM = {"keygen": "mpc-keygen", "sign": "mpc-signing"}
PREFIX = {"keygen": "mpc.keygen_request", "sign": "mpc.signing_request"}


class ScriptedSigner:
    """A true signer that first does what a test wrote down: an error to raise, or seconds to be late."""

    def __init__(self, *script: Exception | float) -> None:
        self._signer = keyfile.LocalSigner(ec.generate_private_key(ec.SECP256R1()), "test")
        self.script = list(script)
        self.calls = 0

    @property
    def public_key(self) -> PublicKey:
        return self._signer.public_key

    async def sign(self, message: bytes, *, deadline: float | None = None) -> Signed:
        self.calls += 1
        if self.script:
            act = self.script.pop(0)
            if isinstance(act, Exception):
                raise act
            await asyncio.sleep(act)
        return await self._signer.sign(message, deadline=deadline)

    def health(self) -> SignerHealth:
        return SignerHealth(ok=True)

    async def close(self) -> None:
        return


def settings_for(url: str, **changes: Any) -> Settings:
    """Short waits, no HTTP; `changes` by section."""
    plain: dict[str, Any] = {
        "nats": {"servers": [url]},
        "http": {"enabled": False},
        "clients": {"alice": {}, "bob": {}},
        "worker": {"ack_wait_s": 3.0, "heartbeat_s": 0.5, "drain_timeout_s": 1.0},
        "mpcium": {"chain_code": CHAIN_CODE, "keygen": {"in_flight": 0}, "sign": {"in_flight": 0}},
    }
    for section, values in changes.items():
        plain[section] = plain.get(section, {}) | values
    return Settings.model_validate(plain)


class Bench:
    """What a test holds in its hands."""

    def __init__(self, url: str, nc: Client) -> None:
        self.url = url
        self.nc = nc
        self.js = nc.jetstream()
        self.vault = Vault(bytes.fromhex(CHAIN_CODE))
        self.seen: list[dict[str, Any]] = []
        self.submitted: list[tuple[str, int]] = []
        self._arrived = asyncio.Condition()

    async def listen(self) -> None:
        await self.nc.subscribe("initiator.out.>", cb=self._on_event)
        await self.nc.flush()

    async def _on_event(self, message: Msg) -> None:
        is_json = (message.headers or {}).get("Content-Type") == "application/json"
        async with self._arrived:
            self.seen.append(json.loads(message.data) if is_json else msgpack.unpackb(message.data))
            self._arrived.notify_all()

    # --- as a client

    async def submit(
        self, op: str, fields: dict[str, Any], client: str = "alice", encoding: str = "msgpack", **more: str
    ) -> int:
        """Publish a request; returns its sequence."""
        if encoding == "json":
            plain = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in fields.items()}
            data, headers = json.dumps(plain).encode(), {"Content-Type": "application/json"}
        else:
            data, headers = msgpack.packb(fields), {"Content-Type": "application/msgpack"}
        ack = await self.js.publish(f"initiator.request.{client}.{op}", data, headers=headers | more)
        self.submitted.append((client, ack.seq))
        return ack.seq

    def events(self, op: str, operation_id: str) -> list[dict[str, Any]]:
        """What clients were told of one operation."""
        return [event for event in self.seen if (event["op"], event["id"]) == (op, operation_id)]

    def states(self, op: str, operation_id: str) -> list[str]:
        return [event["state"] for event in self.events(op, operation_id)]

    async def until(
        self, op: str, operation_id: str, *states: str, attempt: int = 0, timeout_s: float = 10.0
    ) -> dict[str, Any]:
        """The first event in one of these states (default: final ones), of an attempt (default: any)."""
        wanted = states or ("completed", "failed")
        async with asyncio.timeout(timeout_s), self._arrived:
            while True:
                for event in self.events(op, operation_id):
                    if event["state"] in wanted and attempt in (0, event["attempt"]):
                        return event
                await self._arrived.wait()

    async def rejection(self, sequence: int, client: str = "alice", timeout_s: float = 10.0) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s), self._arrived:
            while True:
                for event in self.seen:
                    if (event["state"], event["client"], event["request_seq"]) == ("rejected", client, sequence):
                        return event
                await self._arrived.wait()

    def unrepeated(self, op: str, operation_id: str) -> list[str]:
        """The states of one operation, announcements for repeated requests left out."""
        by_id = {event["event_id"]: event["state"] for event in self.events(op, operation_id) if "event_id" in event}
        return list(by_id.values())

    async def all_acked(self, timeout_s: float = 10.0) -> bool:
        """Every request of this test has left the queue."""
        async with asyncio.timeout(timeout_s):
            for client, sequence in self.submitted:
                with contextlib.suppress(NotFoundError):
                    while await self.js.get_msg(f"INITIATOR_REQUESTS_{client}", sequence):
                        await asyncio.sleep(0.02)
        return True

    # --- as a node

    async def published(self, op: str) -> int:
        """How many events the nodes' stream holds."""
        try:
            return (await self.js.stream_info(STREAM[op])).state.messages
        except NotFoundError:
            return 0

    async def event_at_nodes(self, op: str, operation_id: str, attempt: int = 1) -> tuple[bytes, dict[str, str]]:
        """The signed event as it lies in the nodes' stream, and its headers."""
        found = await self.js.get_last_msg(STREAM[op], f"{PREFIX[op]}.{operation_id}~{attempt}")
        return found.data or b"", found.headers or {}

    async def answer(
        self, op: str, operation_id: str, body: dict[str, Any] | bytes, client_id: str = "initiator"
    ) -> None:
        """Publish a result."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.js.publish(results.subject(op, "initiator", operation_id), data)

    def error(
        self, op: str, operation_id: str, code: str, reason: str = "it went wrong", **fields: Any
    ) -> dict[str, Any]:
        names = {"keygen": "wallet_id", "sign": "tx_id"}
        known = {names[op]: operation_id} if op in names else {}
        return results.body(op, error_code=code, error_reason=reason, **known | fields)

    def keygen_success(self, wallet_id: str) -> Body:
        """The result that a true cluster would give; makes the wallet if it is new."""
        if self.vault.share(wallet_id, "ed25519") is None:
            self.vault.create(secrets.token_hex(4), wallet_id, NODES, 1)
        keys: list[KeyType] = ["secp256k1", "ed25519"]
        first, second = (base64.b64encode(self.vault.public_key(wallet_id, key)).decode() for key in keys)
        return results.body(
            "keygen", result_type="success", wallet_id=wallet_id, ecdsa_pub_key=first, eddsa_pub_key=second
        )

    def sign_success(self, request: dict[str, Any]) -> Body:
        """The result that a true cluster would give."""
        path = tuple(request.get("derivation_path") or ())
        made = self.vault.sign(secrets.token_hex(4), request["wallet_id"], request["key_type"], request["tx"], path)
        fields = {name: base64.b64encode(value).decode() for name, value in made.items()}
        names = ("wallet_id", "tx_id", "network_internal_code")
        return results.body("sign", result_type="success", **fields, **{name: request[name] for name in names})

    async def results_settled(self, timeout_s: float = 10.0) -> None:
        """Every result is acked: nothing is left in the nodes' work queue."""
        async with asyncio.timeout(timeout_s):
            while (await self.js.stream_info("mpc")).state.messages:
                await asyncio.sleep(0.02)

    async def dead(self, subject: str) -> list[tuple[bytes, dict[str, str]]]:
        """Dead letters under a subject, oldest first."""
        found: list[tuple[bytes, dict[str, str]]] = []
        state = (await self.js.stream_info("INITIATOR_DEAD")).state
        for sequence in range(max(1, state.first_seq), state.last_seq + 1):
            with contextlib.suppress(NotFoundError):
                message = await self.js.get_msg("INITIATOR_DEAD", sequence)
                if (message.subject or "").startswith(subject):
                    found.append((message.data or b"", message.headers or {}))
        return found

    async def finals(self, op: str, operation_id: str) -> list[str]:
        """The final events of one operation in the record."""
        found = []
        info = await self.js.stream_info("INITIATOR_EVENTS", subjects_filter=f"initiator.event.*.{op}.{operation_id}.*")
        for subject, count in (info.state.subjects or {}).items():
            if subject.rpartition(".")[2] in ("completed", "failed"):
                found += [subject] * count
        return found

    # --- wallets

    async def wallet(self, wallet_id: str) -> None:
        """A wallet whose keygen went through the record."""
        await self.submit("keygen", {"wallet_id": wallet_id})
        await self.until("keygen", wallet_id, "published")
        await self.answer("keygen", wallet_id, self.keygen_success(wallet_id))
        await self.until("keygen", wallet_id, "completed")


def sign_request(wallet_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "key_type": "ed25519",
        "wallet_id": wallet_id,
        "network_internal_code": "sol",
        "tx_id": f"tx{secrets.token_hex(6)}",
        "tx": b"\x01" + secrets.token_bytes(31),
        "derivation_path": None,
    } | changes


@contextlib.asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    """A nats-server and the test's own connection."""
    config = f"{servers.NatsProcess().place(folder)}\nmax_payload: 1MB\n"
    async with servers.nats_server(config, folder) as url:
        nc = await nats.connect(url)
        try:
            ready = Bench(url, nc)
            await ready.listen()
            yield ready
        finally:
            await nc.close()


@contextlib.asynccontextmanager
async def daemon(settings: Settings, signer: Signer | None = None) -> AsyncIterator[App]:
    """A daemon in this process, ready; drained at the end."""
    async with running(App(settings, source(signer or ScriptedSigner()))) as app:
        yield app


def source(signer: Signer) -> SignerSource:
    """Where a daemon gets this signer from."""

    async def connect(_settings: Settings) -> Signer:
        return signer

    return connect


@contextlib.asynccontextmanager
async def running(app: App) -> AsyncIterator[App]:
    """A daemon made elsewhere, ready; drained at the end."""
    run = asyncio.create_task(app.run())
    try:
        async with asyncio.timeout(20):
            while not app.health.ready:
                await asyncio.sleep(0.01)
                if run.done():
                    run.result()
        yield app
    finally:
        app.stop()
        async with asyncio.timeout(20):
            await run
