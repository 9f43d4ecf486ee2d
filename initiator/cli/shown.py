"""Events and results for people and for programs. Text of somebody else's gets no control character through."""

from __future__ import annotations

from typing import Any

from initiator.client import EcdsaSignature, EddsaSignature, Event, PublicKey, ResharedKey, Wallet
from initiator.core.text import plain

Result = Wallet | EcdsaSignature | EddsaSignature | ResharedKey


def described(event: Event) -> dict[str, Any]:
    """An event as one JSON object: all that it says, bytes in hex."""
    head = {"op": event.op.value, "id": event.id, "state": event.state, "sequence": event.sequence}
    body = {name: _plain(value) for name, value in event.body.items() if name not in head}
    return {name: value for name, value in head.items() if value is not None} | body


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def line(event: Event) -> str:
    """An event as one line."""
    told = f"  {event.code}" if event.code else ""
    told += f" ({event.outcome})" if event.outcome else ""
    told += f": {plain(event.reason)}" if event.reason else ""
    attempt = f"  attempt {event.attempt}" if event.attempt > 1 else ""
    time = event.time.strftime("%Y-%m-%d %H:%M:%SZ")
    name = plain(event.id) or f"(request {event.request_seq})"
    return f"{time}  {event.op.value:<7}  {name:<36}  {event.state}{attempt}{told}"


def key(found: PublicKey) -> dict[str, str]:
    """A public key in its forms."""
    forms = {"hex": str(found), "pem": found.pem}
    return forms | ({"uncompressed": found.sec1_uncompressed.hex()} if found.key_type == "secp256k1" else {})


def result(found: Result) -> dict[str, Any]:
    """A result as JSON; bytes in hex."""
    match found:
        case Wallet():
            keys = {"secp256k1": key(found.secp256k1), "ed25519": key(found.ed25519)}
            path = {"derivation_path": list(found.path)} if found.path else {}
            return {"wallet_id": found.wallet_id, **path, **keys}
        case EcdsaSignature():
            forms = {"der": found.der.hex(), "ethereum": found.ethereum.hex()}
            parts = {"r": found.r.hex(), "s": found.s.hex(), "recovery": found.recovery, "v": found.v}
            return {"tx_id": found.tx_id, **parts, **forms, "verified_by": found.verified_by.value}
        case EddsaSignature():
            return {
                "tx_id": found.tx_id, "signature": found.signature.hex(), "verified_by": found.verified_by.value
            }  # fmt: skip
        case ResharedKey():
            return {
                "session_id": found.session_id, "wallet_id": found.wallet_id, "key_type": found.public_key.key_type,
                "public_key": key(found.public_key), "new_threshold": found.new_threshold,
                "verified_by": found.verified_by.value,
            }  # fmt: skip


def lines(found: Result) -> list[str]:
    """A result for people."""
    match found:
        case Wallet():
            path = f" at {'/'.join(map(str, found.path))}" if found.path else ""
            return [
                f"wallet {found.wallet_id}{path}",
                f"  secp256k1  {found.secp256k1}",
                f"  ed25519    {found.ed25519}",
            ]
        case EcdsaSignature():
            return [
                f"signature of {found.tx_id} (verified by the {found.verified_by.value})",
                f"  r         {found.r.hex()}",
                f"  s         {found.s.hex()}",
                f"  recovery  {found.recovery}",
                f"  der       {found.der.hex()}",
            ]
        case EddsaSignature():
            return [
                f"signature of {found.tx_id} (verified by the {found.verified_by.value})",
                f"  {found.signature.hex()}",
            ]
        case ResharedKey():
            return [
                f"wallet {found.wallet_id}: {found.public_key.key_type} reshared, threshold {found.new_threshold} "
                f"(verified by the {found.verified_by.value})",
                f"  {found.public_key}",
            ]
