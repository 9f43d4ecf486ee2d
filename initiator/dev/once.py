"""The main job, shown once: requests in, signed events verified by the nodes, results back, each checked here.

Checks with the public library alone (`initiator.verify` and the pure core), against what the client received: a
demonstration that trusts nothing that the daemon says about itself.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import nats
from nats.aio.client import Client

from initiator.core.model import KeyType, Operation
from initiator.core.result import EcdsaSignature, EddsaSignature, NodeResult, Value
from initiator.core.wallet import Status, WalletKeys, verify_signature
from initiator.dev import accounts
from initiator.dev.audit import AuditTrail
from initiator.dev.requester import Encoding, Requester, Seen, as_bytes, requester
from initiator.dev.stack import CHAIN_CODE, Stack
from initiator.verify import verify_event

PATH = [44, 60, 0, 0, 7]


class _CheckError(Exception):
    """Something did not hold."""


class Demonstration:
    """One run over one stack."""

    def __init__(self, stack: Stack, client: Requester, audit_log: Path | None = None) -> None:
        self._stack = stack
        self._audit_log = audit_log
        self._client = client
        self._started = time.monotonic()
        self._node_events: list[dict[str, Any]] = []
        stack.on_node_event = self._on_node_event
        client.on_seen = lambda seen: self.say(f"    {seen.state}")

    def _on_node_event(self, event: dict[str, Any]) -> None:
        self._node_events.append(event)

    def say(self, text: str) -> None:
        click.echo(f"{time.monotonic() - self._started:6.2f} s  {text}")

    def ok(self, text: str) -> None:
        self.say(f"  ✓ {text}")

    async def run(self) -> None:
        """All steps; raises `_CheckError` or TimeoutError at the first that fails."""
        wallet = f"wallet_{secrets.token_hex(4)}"
        keys = await self._keygen(wallet)
        for key_type in KeyType:
            await self._sign(wallet, keys, key_type)
        await self._reshare(wallet, keys)
        await self._tamper(wallet)
        if self._stack.options.strict:
            await self._denied(wallet)
        await self._audited(wallet)

    async def _denied(self, wallet: str) -> None:
        """What the policy does not allow is refused, with its rule."""
        signer, self._client.signer = self._client.signer, None
        await self._refused_for(Operation.KEYGEN, {"wallet_id": f"w{secrets.token_hex(4)}"}, "without signature")
        self._client.signer = signer
        await self._refused_for(Operation.KEYGEN, {"wallet_id": f"test-{secrets.token_hex(4)}"}, "a test wallet")
        path = {"derivation_path": [44, 501, 0]}
        fields = {"key_type": "ed25519", "wallet_id": wallet, "network_internal_code": "demo", "tx": b"\x01"}
        await self._refused_for(Operation.SIGN, fields | {"tx_id": f"tx{secrets.token_hex(5)}"} | path, "another path")

    async def _refused_for(self, op: Operation, fields: Mapping[str, Any], what: str) -> None:
        sequence = await self._client.submit(op, fields)
        seen = await self._client.wait_for_rejection(op, sequence)
        if seen.body.get("code") != "POLICY_DENIED":
            raise _CheckError(f"{what}: expected POLICY_DENIED, got {seen.body.get('code')}")
        self.ok(f"{what}: refused by {seen.body.get('field')}")

    async def _audited(self, wallet: str) -> None:
        """The record as a log that an outsider verifies; and one changed byte is found."""
        self.say("audit: the record becomes a log")
        folder = self._audit_log or self._stack.folder / "audit-log"
        trail = AuditTrail(self._stack, folder)
        size = await trail.export()
        report = await trail.verify(folder)
        if report:
            raise _CheckError(f"the audit log does not verify: {report}")
        self.ok(f"{size} entries, each signature among them, verify with the files alone")
        await trail.prove(wallet)
        self.ok(f"the keygen of {wallet} is proved to whoever has the log's public key")
        broken = await trail.verify(trail.with_a_changed_byte())
        if not broken:
            raise _CheckError("a changed byte of the log was not found")
        self.ok(f"one changed byte is found: {broken[0]}; {broken[-1]}")
        if self._audit_log:
            self.say(f"  verify it yourself: {trail.command(folder)}")

    async def _ask(self, op: Operation, fields: Mapping[str, Any], encoding: Encoding) -> Seen:
        """Submit, show each stage as it arrives, return the completed event."""
        operation_id = str(fields[{"keygen": "wallet_id", "sign": "tx_id", "reshare": "session_id"}[op]])
        self.say(f"{op} {operation_id}: request published ({encoding})")
        await self._client.submit(op, fields, encoding)
        final = await self._client.wait_for(op, operation_id)
        if final.state != "completed":
            raise _CheckError(f"{op} {operation_id} failed: {final.body.get('code')} {final.body.get('reason')}")
        await self._check_nodes(op, operation_id)
        return final

    async def _check_nodes(self, op: Operation, operation_id: str) -> None:
        """The event on the nodes' side verifies under the public key, and they said so."""
        if op is not Operation.RESHARE:
            data = await self._node_message(op, operation_id)
            if self._stack.public_key is None or not self._verifies(op, data):
                raise _CheckError(f"{op} {operation_id}: the event does not verify")
        async with asyncio.timeout(5):
            while len(self._verified_by(operation_id)) < 3:  # noqa: ASYNC110 - lines of another process
                await asyncio.sleep(0.02)
        self.ok(f"signature verified by {', '.join(sorted(self._verified_by(operation_id)))}")

    def _verifies(self, op: Operation, data: bytes) -> bool:
        """Under the initiator's key, and under those of all authorizers, where there are any."""
        assert self._stack.public_key is not None  # noqa: S101 - looked at before
        keys = {one.id: one.public_key for one in self._stack.trust.authorizers} if self._stack.trust else None
        found = verify_event(self._stack.public_key, op, data, authorizers=keys or None)
        if keys and found.valid:
            self.ok(f"signed by {', '.join(sorted(keys))}, too")
        return found.valid

    def _verified_by(self, operation_id: str) -> set[str]:
        return {
            str(event.get("node"))
            for event in self._node_events
            if event.get("event") == "node.verified" and operation_id in map(str, event.values())
        }

    async def _node_message(self, op: Operation, operation_id: str) -> bytes:
        stream = {Operation.KEYGEN: "mpc-keygen", Operation.SIGN: "mpc-signing"}[op]
        subject = {Operation.KEYGEN: "mpc.keygen_request", Operation.SIGN: "mpc.signing_request"}[op]
        login = await self._as_node()
        try:
            message = await login.jetstream().get_last_msg(stream, f"{subject}.{operation_id}~1")
            return message.data or b""
        finally:
            await login.close()

    async def _as_node(self) -> Client:
        return await nats.connect(
            self._stack.nats_url, user=accounts.NODES, password=self._stack.password(accounts.NODES)
        )

    async def _keygen(self, wallet: str) -> WalletKeys:
        final = await self._ask(Operation.KEYGEN, {"wallet_id": wallet}, "msgpack")
        result = final.body["result"]
        keys = WalletKeys(ecdsa=as_bytes(result["ecdsa_pub_key"]), eddsa=as_bytes(result["eddsa_pub_key"]))
        self.ok("public keys are points of secp256k1 and Ed25519")
        return keys

    async def _sign(self, wallet: str, keys: WalletKeys, key_type: KeyType) -> None:
        tx = b"\x01" + secrets.token_bytes(31)
        tx_id = f"tx_{key_type}_{secrets.token_hex(4)}"
        fields = {
            "key_type": key_type.value,
            "wallet_id": wallet,
            "network_internal_code": "demo",
            "tx_id": tx_id,
            "tx": tx,
            "derivation_path": PATH,
        }
        final = await self._ask(Operation.SIGN, fields, "json")
        result = NodeResult(
            operation=Operation.SIGN,
            success=True,
            error_code="",
            error_reason="",
            wallet_id=wallet,
            operation_id=tx_id,
            value=_signature_of(final.body["result"]),
        )
        verification = verify_signature(
            key_type=key_type,
            tx=tx,
            derivation_path=PATH,
            result=result,
            keys=keys,
            chain_code=bytes.fromhex(CHAIN_CODE),
        )
        if verification.status is not Status.VERIFIED:
            raise _CheckError(f"{key_type}: {verification.reason}")
        self.ok(f"{key_type} signature verifies under the wallet's child key m/{'/'.join(map(str, PATH))}")

    async def _reshare(self, wallet: str, keys: WalletKeys) -> None:
        fields = {
            "session_id": f"session_{secrets.token_hex(4)}",
            "node_ids": ["node0", "node1", "node2"],
            "new_threshold": 1,
            "key_type": "ed25519",
            "wallet_id": wallet,
        }
        final = await self._ask(Operation.RESHARE, fields, "json")
        if as_bytes(final.body["result"]["pub_key"]) != keys.eddsa:
            raise _CheckError("the reshare changed the wallet's public key")
        self.ok("the wallet's public key is unchanged")

    async def _tamper(self, wallet: str) -> None:
        """A changed event, put where the nodes take theirs: they refuse it."""
        target = f"forged_{secrets.token_hex(4)}"
        self.say(f"tampering: the signed keygen of {wallet}, changed to {target}")
        event = json.loads(await self._node_message(Operation.KEYGEN, wallet))
        event["wallet_id"] = target
        if (
            self._stack.public_key is None
            or verify_event(self._stack.public_key, Operation.KEYGEN, json.dumps(event).encode()).valid
        ):
            raise _CheckError("a tampered event verifies")
        login = await self._as_node()
        try:
            await login.jetstream().publish(f"mpc.keygen_request.{target}", json.dumps(event).encode())
            async with asyncio.timeout(10):
                while not self._refused(target):  # noqa: ASYNC110 - lines of another process
                    await asyncio.sleep(0.02)
        finally:
            await login.close()
        self.ok(f"refused by the nodes: {self._refused(target)[0].get('reason')}")

    def _refused(self, operation_id: str) -> list[dict[str, Any]]:
        return [
            event
            for event in self._node_events
            if event.get("event") == "node.refused" and operation_id in map(str, event.values())
        ]


def _signature_of(result: Mapping[str, Any]) -> Value:
    if "signature" in result:
        return EddsaSignature(signature=as_bytes(result["signature"]))
    return EcdsaSignature(r=as_bytes(result["r"]), s=as_bytes(result["s"]), recovery=result["signature_recovery"])


async def demonstrate(stack: Stack, audit_log: Path | None = None) -> int:
    """Run the demonstration; 0 if everything held, 1 if not.

    Args:
        audit_log: where the audit log is left; default: with the stack it goes.
    """
    client = stack.options.clients[0]
    signer = stack.trust.signer_of(client) if stack.trust else None
    try:
        async with requester(stack.nats_url, client, stack.password(client), signer) as service:
            run = Demonstration(stack, service, audit_log)
            await run.run()
            run.say("all checks passed")
    except (_CheckError, TimeoutError) as error:
        click.echo(
            f"FAILED: {error or 'no answer in time'}\n\nthe daemon's log:\n{stack.daemon_log()[-4000:]}", err=True
        )
        return 1
    return 0
