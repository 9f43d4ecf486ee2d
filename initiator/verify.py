"""For the nodes' side and for auditors: is this event signed by this initiator?

`verify_event` takes the public key as mpcium's config holds it and the event's bytes as the nodes receive them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from initiator.core import message
from initiator.core.model import Operation
from initiator.core.signature import Verifier
from initiator.core.signer import Algorithm, PublicKey
from initiator.core.spki import parse_public_key
from initiator.errors import RejectError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify_event` found.

    Attributes:
        valid: the initiator's signature, and every authorizer's that could be checked, verify.
        reason: why not, or what was verified.
        operation_id: wallet_id, tx_id or session_id, where the event could be read.
    """

    valid: bool
    reason: str
    operation_id: str | None = None


def verify_event(
    public_key: str | PublicKey,
    operation: Operation | str,
    data: bytes,
    *,
    algorithm: Algorithm = "p256",
    authorizers: Mapping[str, PublicKey] | None = None,
) -> Verdict:
    """Verify one signed event.

    Args:
        public_key: hex or base64 as in `event_initiator_pubkey`, or a parsed key.
        operation: keygen, sign or reshare: the event's bytes do not say it.
        data: the event, JSON.
        authorizers: required authorizers by id; each must have signed, and every signature given must verify.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`.
        ValueError: no such operation.
    """
    operation = Operation(operation)
    key = parse_public_key(public_key, algorithm) if isinstance(public_key, str) else public_key
    try:
        event = message.parse_event(operation, data)
    except RejectError as error:
        return Verdict(valid=False, reason=f"{error.field or 'event'}: {error.reason}")
    operation_id = event.request.operation_id
    if not event.signature:
        return Verdict(valid=False, reason="signature: missing", operation_id=operation_id)
    if not Verifier(key).verify(event.signed, event.signature):
        return Verdict(valid=False, reason="signature: does not verify under this key", operation_id=operation_id)
    problem = _authorizer_problem(event, authorizers) if authorizers is not None else None
    return Verdict(valid=problem is None, reason=problem or "the signature verifies", operation_id=operation_id)


def _authorizer_problem(event: message.ParsedEvent, keys: Mapping[str, PublicKey]) -> str | None:
    signed = message.authorizer_bytes(event.request, event.signature)
    present = set()
    for item in event.authorizer_signatures:
        key = keys.get(item.authorizer_id)
        if key is None:
            return f"authorizer_signatures: {item.authorizer_id[:64]!a} is not among the known authorizers"
        if not Verifier(key).verify(signed, item.signature):
            return f"authorizer_signatures: the one of {item.authorizer_id} does not verify"
        present.add(item.authorizer_id)
    missing = sorted(keys.keys() - present)
    return f"authorizer_signatures: missing {', '.join(missing)}" if missing else None
