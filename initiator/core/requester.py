"""Requester signatures: a client's own word for a request, so that a stolen NATS login alone moves nothing.

The signed bytes are netstrings (`length:bytes,`) one after the other, so that no two requests share them and any
language can write them: domain, audience, client, operation, each field of the operation in the order below,
`expires_at`, `labels`, and the failure that it goes on after, if it does. The operation's id is the nonce: a replay
joins its own operation. A request that was refused left no trace, so what is signed must expire.

Header: `Initiator-Signature: KEY SIGNATURE`: the public key as `key_text` writes it, and padded base64.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from initiator.core import events
from initiator.core.model import KeygenRequest, Request, ReshareRequest, SignRequest
from initiator.core.signature import verifier
from initiator.core.signer import PublicKey
from initiator.core.spki import ED25519_BYTES, ed25519_from_raw, parse_public_key
from initiator.errors import Code, HaltError, RejectError

HEADER = "Initiator-Signature"
# cross-protocol: no other signature of these keys begins like this; a change of the form needs a new one
DOMAIN = b"initiator-requester-signature-v1"
MAX_SIGNATURE_BYTES = 128

_NKEY = re.compile(r"U[A-Z2-7]{55}")
_NKEY_USER = 20 << 3
_RAW_HEX = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class RequesterSignature:
    """A signature under one of a client's keys, which `key` names as `key_text` does."""

    key: str
    signature: bytes


def canonical_bytes(audience: str, client: str, request: Request, reopens: str | None = None) -> bytes:
    """What a client signs.

    Args:
        audience: which daemons it is for (`policy.audience`), so that one cluster's request is no other's.
        reopens: the `failed` event that it asks to go on after.
    """
    match request:
        case KeygenRequest():
            own: tuple[bytes, ...] = (request.wallet_id.encode(),)
        case SignRequest():
            own = (
                request.key_type.encode(),
                request.wallet_id.encode(),
                request.network_internal_code.encode(),
                request.tx_id.encode(),
                request.tx,
                # path swap: mpcium's own signature does not cover it
                "/".join(map(str, request.derivation_path or ())).encode(),
            )
        case ReshareRequest():
            own = (
                request.session_id.encode(),
                _joined(node.encode() for node in request.node_ids),
                str(request.new_threshold).encode(),
                request.key_type.encode(),
                request.wallet_id.encode(),
            )
    expires_at = b"" if request.expires_at is None else events.format_time(request.expires_at).encode()
    pairs = sorted((key.encode(), value.encode()) for key, value in request.labels.items())
    labels = _joined(part for pair in pairs for part in pair)
    head = (DOMAIN, audience.encode(), client.encode(), request.operation.encode())
    return _joined((*head, *own, expires_at, labels, (reopens or "").encode()))


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"%d:%b," % (len(part), part) for part in parts)


# --- what is kept of it


def evidence(audience: str, request: Request, signed: RequesterSignature, reopens: str | None) -> dict[str, Any]:
    """What of the signed bytes the record's other fields do not say, and the signature over them."""
    return {
        "key": signed.key,
        "signature": signed.signature,
        "audience": audience,
        "expires_at": None if request.expires_at is None else events.format_time(request.expires_at),
        "labels": dict(request.labels),
        "reopens": reopens,
    }


def as_signed(given: Mapping[str, Any], audience: str, client: str, request: Request) -> tuple[Request, bytes]:
    """A request with what its client said besides mpcium's fields, by `evidence`, and the bytes that were signed.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: `given` is no evidence.
    """
    expires_at = None if given["expires_at"] is None else events.parse_time(given["expires_at"])
    whole = replace(request, expires_at=expires_at, labels=dict(given["labels"]))
    return whole, canonical_bytes(audience, client, whole, given["reopens"])


# --- keys


def parse_key(text: str) -> PublicKey:
    """A client's public key: an NKey (`U…`), an Ed25519 key as hex, or P-256 SubjectPublicKeyInfo as hex or base64.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`: none of these.
    """
    text = text.strip()
    if text[:2] == "SU":
        raise HaltError(
            Code.PUBLIC_KEY_INVALID,
            "expected a public key, got an NKey seed: it belongs in no file of others",
            field="keys",
        )
    if _NKEY.fullmatch(text):
        return PublicKey(algorithm="ed25519", encoded=_nkey_bytes(text))
    if _RAW_HEX.fullmatch(text):
        return parse_public_key(text, "ed25519")
    return parse_public_key(text)


def _nkey_bytes(text: str) -> bytes:
    raw = base64.b32decode(text)
    prefix, key, checksum = raw[0], raw[1:-2], int.from_bytes(raw[-2:], "little")
    if prefix != _NKEY_USER or len(key) != ED25519_BYTES or binascii.crc_hqx(raw[:-2], 0) != checksum:
        raise HaltError(
            Code.PUBLIC_KEY_INVALID, "expected an NKey of a user (U…), got one that is mistyped", field="keys"
        )
    ed25519_from_raw(key)
    return key


def key_text(key: PublicKey) -> str:
    """The one form in which headers and records name a key: an NKey, or base64 of SubjectPublicKeyInfo."""
    if key.algorithm == "p256":
        return base64.b64encode(key.encoded).decode()
    body = bytes([_NKEY_USER]) + key.encoded
    return base64.b32encode(body + binascii.crc_hqx(body, 0).to_bytes(2, "little")).decode()


# --- the header


def format_header(signed: RequesterSignature) -> str:
    """The header's value."""
    return f"{signed.key} {base64.b64encode(signed.signature).decode()}"


def parse_header(value: str) -> RequesterSignature:
    """A header's value; whether there is such a key, and whose it is, is for the policy to say.

    Raises:
        RejectError: `REQUESTER_SIGNATURE_INVALID`: it has another form.
    """
    key, _, signature = value.partition(" ")
    try:
        found = RequesterSignature(key, base64.b64decode(signature, validate=True))
    except (binascii.Error, ValueError):
        found = None
    # malleability: one text for one signature
    if found is None or not 0 < len(found.signature) <= MAX_SIGNATURE_BYTES or format_header(found) != value:
        raise _invalid("expected `KEY SIGNATURE`: an NKey or a P-256 key in base64, and the signature in base64")
    return found


def check_known(signed: RequesterSignature, keys: Sequence[PublicKey], client: str) -> PublicKey:
    """The key of a signature, if it is one of the client's own ones.

    Raises:
        RejectError: `REQUESTER_SIGNATURE_INVALID`.
    """
    # substitution: a key that comes along with its signature proves nothing; only the policy says whose it is
    for key in keys:
        if key_text(key) == signed.key:
            return key
    raise _invalid(f"this key is none of the {len(keys)} that the policy knows of {client}")


def verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Refuse a signature that is not over this very message (see `canonical_bytes`).

    Raises:
        RejectError: `REQUESTER_SIGNATURE_INVALID`.
    """
    if not verifier(key).verify(message, signature):
        raise _invalid(
            "the signature does not verify over this request: expected one over audience, client, operation, all "
            "fields, expires_at, labels and what it goes on after"
        )


def _invalid(reason: str) -> RejectError:
    return RejectError(Code.REQUESTER_SIGNATURE_INVALID, reason, field=HEADER)
