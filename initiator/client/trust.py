"""A completed event becomes a result, once somebody has checked it against the wallet's public key."""

from __future__ import annotations

from initiator.client.errors import UntrustedResultError
from initiator.client.results import (
    EcdsaSignature,
    EddsaSignature,
    PublicKey,
    ResharedKey,
    Result,
    VerifiedBy,
    Wallet,
)
from initiator.client.wire import Event
from initiator.core import result as node
from initiator.core import wallet as checks
from initiator.core.model import KeygenRequest, KeyType, Operation, Request, ReshareRequest, SignRequest
from initiator.core.wallet import Status, Verification
from initiator.errors import RejectError


class Judge:
    """Checks results.

    Args:
        chain_code: the cluster's, 32 bytes; for signatures under a derivation path, and for child keys.
        allow_unverified: hand out what nobody could check, marked so; what is wrong is never handed out.
    """

    def __init__(self, chain_code: bytes | None, allow_unverified: bool) -> None:
        self.chain_code = chain_code
        self._allow_unverified = allow_unverified

    def read(self, request: Request, event: Event, wallet: Wallet | None) -> Result:
        """The result in the `completed` event of a request.

        Args:
            wallet: the wallet that the request names, if it is known.

        Raises:
            UntrustedResultError: it is wrong, not checked by anybody, or no result at all.
        """
        try:
            match request:
                case KeygenRequest():
                    return self.wallet(event)
                case SignRequest():
                    return self._signature(request, event, wallet)
                case ReshareRequest():
                    return self._reshared(request, event, wallet)
        except (KeyError, ValueError, TypeError) as error:
            raise UntrustedResultError(event, f"the daemon's event holds no such result: {error}") from error

    def wallet(self, event: Event) -> Wallet:
        """The wallet in the `completed` event of a keygen; raises UntrustedResultError, or as `Event.result`."""
        value = node.KeygenKeys(
            ecdsa_pub_key=event.result("ecdsa_pub_key"), eddsa_pub_key=event.result("eddsa_pub_key")
        )
        try:
            checks.check_keygen(_success(event, event.id, value))
        except RejectError as error:
            raise UntrustedResultError(event, f"{error.field}: {error.reason}") from error
        return Wallet(
            event.id,
            PublicKey(KeyType.SECP256K1, value.ecdsa_pub_key),
            PublicKey(KeyType.ED25519, value.eddsa_pub_key),
            chain_code=self.chain_code,
        )

    def _signature(self, request: SignRequest, event: Event, wallet: Wallet | None) -> EcdsaSignature | EddsaSignature:
        value: node.EcdsaSignature | node.EddsaSignature
        if request.key_type is KeyType.SECP256K1:
            recovery = event.body["result"]["signature_recovery"]
            value = node.EcdsaSignature(r=event.result("r"), s=event.result("s"), recovery=int(recovery))
        else:
            value = node.EddsaSignature(signature=event.result("signature"))
        found = checks.verify_signature(
            key_type=request.key_type,
            tx=request.tx,
            derivation_path=request.derivation_path,
            result=_success(event, request.wallet_id, value),
            keys=wallet.keys if wallet else None,
            chain_code=self.chain_code,
        )
        verified_by = self._verified_by(event, found)
        if isinstance(value, node.EcdsaSignature):
            return EcdsaSignature(request.tx_id, value.r, value.s, value.recovery, verified_by)
        return EddsaSignature(request.tx_id, value.signature, verified_by)

    def _reshared(self, request: ReshareRequest, event: Event, wallet: Wallet | None) -> ResharedKey:
        threshold = int(event.body["result"]["new_threshold"])
        value = node.ReshareKey(key_type=request.key_type, pub_key=event.result("pub_key"), new_threshold=threshold)
        found = checks.verify_reshare(_success(event, request.wallet_id, value), wallet.keys if wallet else None)
        key = PublicKey(request.key_type, value.pub_key)
        verified_by = self._verified_by(event, found)
        return ResharedKey(request.session_id, request.wallet_id, key, threshold, verified_by)

    def _verified_by(self, event: Event, found: Verification) -> VerifiedBy:
        if found.status is Status.INVALID:
            # forgery: whatever the daemon says of it
            raise UntrustedResultError(event, found.reason, "do not use it; tell whoever runs the daemon")
        if found.status is Status.VERIFIED:
            return VerifiedBy.CLIENT
        if event.verification == Status.VERIFIED:
            return VerifiedBy.DAEMON
        if self._allow_unverified:
            return VerifiedBy.NOBODY
        hint = "give the wallet's keys (`wallets=`) or `chain_code=` to the client, or allow_unverified=True"
        raise UntrustedResultError(event, f"nobody could verify it: {found.reason}", hint)


def _success(event: Event, wallet_id: str, value: node.Value) -> node.NodeResult:
    operation_id = None if event.op is Operation.RESHARE else event.id
    return node.NodeResult(
        operation=event.op,
        success=True,
        error_code="",
        error_reason="",
        wallet_id=wallet_id,
        operation_id=operation_id,
        value=value,
    )
