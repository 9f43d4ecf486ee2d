"""What one node does with an event that reached it: verify it for itself, take part in the run, answer.

Each path follows mpcium's event consumer step by step, wrong turns included: a sign event that does not verify gets
no answer at all, a keygen or reshare gets an error at once.

Source: mpcium's pkg/eventconsumer/event_consumer.go and pkg/mpc/node.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from nats.aio.client import Client
from nats.aio.msg import Msg

from initiator.dev.nodes import wire
from initiator.dev.nodes.answers import Answers, Headers
from initiator.dev.nodes.config import NodesConfig
from initiator.dev.nodes.keys import KEY_TYPES, KeyType, SigningError
from initiator.dev.nodes.sessions import Sessions
from initiator.dev.nodes.trust import RefusedError, Trust
from initiator.dev.nodes.vault import KeyExistsError, Share, Vault

_VERIFY, _AUTHORIZE = "Failed to verify initiator message", "Failed to authorize initiator message"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """One node's handlers of `mpc:generate`, `mpc:sign` and `mpc:reshare`."""

    nc: Client
    node_id: str
    config: NodesConfig
    trust: Trust
    vault: Vault
    sessions: Sessions
    answers: Answers

    # --- keygen

    async def keygen(self, message: Msg) -> None:
        """Make a wallet; whatever comes out is answered and replied to."""
        await self._keygen(message.data, dict(message.headers or {}))
        await self._reply(message)

    async def _keygen(self, data: bytes, headers: Headers) -> None:
        try:
            event = wire.read_keygen(data)
        except wire.UnmarshalError as error:
            wallet_id = wire.read_ids(data)["wallet_id"]
            context = "Failed to unmarshal keygen message"
            await self.answers.failure("keygen", wallet_id, headers, context, str(error), wallet_id=wallet_id)
            return
        wallet_id = event.wallet_id

        async def fail(context: str, error: str) -> None:
            await self.answers.failure("keygen", wallet_id, headers, context, error, wallet_id=wallet_id)

        if problem := self._distrust("keygen", wallet_id, event):
            await fail(*problem)
            return
        if not self.sessions.begin(wallet_id, "keygen"):
            await fail("Duplicate keygen session", f"duplicate keygen request detected for walletID={wallet_id}")
            return
        try:
            self.vault.create(headers.get("SessionID", ""), wallet_id, self.config.node_ids, self.config.threshold)
            keys = {
                "ecdsa_pub_key": self.vault.public_key(wallet_id, "secp256k1"),
                "eddsa_pub_key": self.vault.public_key(wallet_id, "ed25519"),
            }
            await self.answers.success("keygen", wallet_id, headers, wallet_id=wallet_id, **keys)
        except KeyExistsError as error:
            await fail("Failed to create ECDSA key generation session", str(error))
        finally:
            self.sessions.end(wallet_id, "keygen")

    # --- sign

    async def sign(self, message: Msg) -> None:
        """Sign; no reply where mpcium's node goes silent, so that the request is delivered again."""
        if await self._sign(message.data, dict(message.headers or {})):
            await self._reply(message)

    async def _sign(self, data: bytes, headers: Headers) -> bool:
        try:
            event = wire.read_sign(data)
        except wire.UnmarshalError as error:
            self.answers.refused("sign", wire.read_ids(data)["tx_id"], str(error))
            return False
        if self._distrust("sign", event.tx_id, event):
            return False
        ids = {"network_internal_code": event.network_internal_code, "wallet_id": event.wallet_id, "tx_id": event.tx_id}
        try:
            signature = self._signature(event, headers)
        except SigningError as error:
            await self.answers.failure("sign", event.tx_id, headers, error.context, str(error), **ids)
            return True
        if signature is not None:
            await self.answers.success("sign", event.tx_id, headers, **ids, **signature)
        return signature is not None

    def _signature(self, event: wire.Sign, headers: Headers) -> dict[str, bytes] | None:
        """The run's signature; None where this node is not in the wallet's committee and leaves it to the others.

        Raises:
            SigningError: the run fails.
        """
        if not self.sessions.begin(event.wallet_id, event.tx_id):
            duplicate = f"duplicate signing request detected for walletID={event.wallet_id} txID={event.tx_id}"
            raise SigningError("Duplicate session", duplicate)
        if event.key_type not in KEY_TYPES:
            raise SigningError("Failed to create signing session", f"unsupported key type: {event.key_type}")
        share = self.vault.share(event.wallet_id, event.key_type)
        if share is None:
            raise SigningError("Failed to create signing session", "Key info not found")
        if self.node_id not in share.participants:
            return None
        run = headers.get("SessionID", "")
        return self.vault.sign(run, event.wallet_id, event.key_type, event.tx or b"", event.derivation_path)

    # --- reshare

    async def reshare(self, message: Msg) -> None:
        """Hand a key on; one at a time, and nobody is ever replied to."""
        headers = dict(message.headers or {})
        try:
            event = wire.read_reshare(message.data)
        except wire.UnmarshalError as error:
            self.answers.refused("reshare", "", str(error))
            return

        async def fail(context: str, error: str) -> None:
            fields = self._reshare_fields(event)
            await self.answers.failure("reshare", event.session_id, headers, context, error, **fields)

        if not event.session_id:
            await fail("Session ID is empty", "validation: session ID is empty")
        elif problem := self._distrust("reshare", event.session_id, event):
            await fail(*problem)
        elif event.key_type not in KEY_TYPES:
            await fail("Failed to get session type", f"unsupported key type: {event.key_type}")
        else:
            await self._join_reshare(event, headers)

    async def _join_reshare(self, event: wire.Reshare, headers: Headers) -> None:
        key_type = cast("KeyType", event.key_type)
        run, committee = headers.get("SessionID") or event.session_id, event.node_ids or ()
        before = self.vault.committee_before(run, event.wallet_id, key_type)
        fields = self._reshare_fields(event)
        if error := self._reshare_error(event, committee, before):
            context = "Failed to create old reshare session"
            await self.answers.failure("reshare", event.session_id, headers, context, error, **fields)
            return
        self.vault.reshare(run, event.wallet_id, key_type, committee, event.new_threshold)
        if self.node_id in committee:  # the old committee's members stay silent
            fields["pub_key"] = self.vault.public_key(event.wallet_id, key_type)
            await self.answers.success("reshare", event.session_id, headers, **fields)

    def _reshare_error(self, event: wire.Reshare, committee: tuple[str, ...], before: Share | None) -> str:
        needed = event.new_threshold + 1
        if self.config.nodes < needed:
            return f"not enough peers to create reshare session! Expected at least {needed}, got {self.config.nodes}"
        if len(committee) < needed:
            return "new peer list is smaller than required t+1"
        for peer in committee:
            if peer not in self.config.node_ids:
                return f"new peer {peer} is not ready"
        return "" if before is not None else "failed to get old key info: Key info not found"

    def _reshare_fields(self, event: wire.Reshare) -> dict[str, object]:
        return {"wallet_id": event.wallet_id, "new_threshold": event.new_threshold, "key_type": event.key_type}

    # --- all

    def _distrust(self, operation: str, operation_id: str, event: wire.Message) -> tuple[str, str] | None:
        """Why this node does not believe an event (mpcium's context and words), or None."""
        try:
            self.trust.check(event)
        except RefusedError as error:
            self.answers.refused(operation, operation_id, str(error))
            return (_AUTHORIZE if "authorizer" in str(error) else _VERIFY), str(error)
        self.answers.verified(operation, operation_id)
        return None

    async def _reply(self, message: Msg) -> None:
        if message.reply:
            await self.nc.publish(message.reply, message.data)
