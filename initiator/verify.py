"""For the nodes' side and for auditors: is this event signed by this initiator?

`verify_event` takes the public key as mpcium's config holds it and the event's bytes as the nodes receive them. It
needs no configuration, no network and no clock. Two limits of the protocol itself:

- the signature covers neither `derivation_path` nor any time: a valid event may be a replay, and its path somebody
  else's;
- the bytes do not say which operation they are: the verdict holds for the operation that was asked about.

    >>> from initiator.verify import verify_event
    >>> verdict = verify_event(event_initiator_pubkey, "sign", data)
    >>> verdict.valid, verdict.reason
    (True, 'signed by the initiator')
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from initiator.core import message
from initiator.core.model import Operation
from initiator.core.signature import Verifier
from initiator.core.signer import Algorithm, PublicKey
from initiator.core.spki import fingerprint, parse_public_key
from initiator.errors import HaltError, RejectError

__all__ = ["Algorithm", "Operation", "PublicKey", "Verdict", "parse_public_key", "verify_event"]

AuthorizerKey = PublicKey | tuple[str, Algorithm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify_event` found.

    Attributes:
        valid: the initiator signed this, and, where authorizers' keys were given, so did they.
        readable: the bytes are an event of that operation at all; if not, nothing was verified.
        reason: why not, or what was verified; safe to log.
        field: the part of the event that is wrong, None where none is.
        operation_id: wallet_id, tx_id or session_id, where the event could be read: any text, not only our ids.
        key_fingerprint: of the key that was used, as `SHA256:…`.
        authorizers: whose signatures were verified, in the event's order.
    """

    valid: bool
    readable: bool
    reason: str
    key_fingerprint: str
    field: str | None = None
    operation_id: str | None = None
    authorizers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Problem:
    field: str
    reason: str


def verify_event(
    public_key: str | PublicKey,
    operation: Operation | str,
    data: bytes,
    *,
    algorithm: Algorithm = "p256",
    authorizers: Mapping[str, AuthorizerKey] | None = None,
    required_authorizers: Collection[str] | None = None,
) -> Verdict:
    """Verify one signed event.

    Args:
        public_key: hex or base64 as in `event_initiator_pubkey`, or a parsed key.
        operation: keygen, sign or reshare.
        data: the event as published to the nodes, JSON.
        algorithm: of a `public_key` given as text.
        authorizers: known authorizers' keys by id. None: their signatures are not looked at, as on nodes without
            `authorization.enabled`. Otherwise every signature in the event must verify, and of a known authorizer.
        required_authorizers: who must have signed; None: all of `authorizers`.

    Raises:
        HaltError: `PUBLIC_KEY_INVALID`: one of the keys; the field says which.
        ValueError: no such operation, one authorizer twice, or a required one whose key was not given.
    """
    operation = Operation(operation)
    key = parse_public_key(public_key, algorithm) if isinstance(public_key, str) else public_key
    initiator = Verifier(key)
    known, required = _authorizers(authorizers, required_authorizers)
    try:
        event = message.parse_event(operation, data)
    except RejectError as error:
        return Verdict(
            valid=False, readable=False, reason=error.reason, field=error.field, key_fingerprint=fingerprint(key)
        )
    problem = _initiator_problem(event, initiator)
    if problem is None and authorizers is not None:
        problem = _authorizers_problem(event, known, required)
    return _verdict(event, key, problem, authorizers_checked=authorizers is not None)


def _verdict(
    event: message.ParsedEvent, key: PublicKey, problem: _Problem | None, *, authorizers_checked: bool
) -> Verdict:
    """What is said of an event that could be read."""
    names = tuple(dict.fromkeys(item.authorizer_id for item in event.authorizer_signatures))
    return Verdict(
        valid=problem is None,
        readable=True,
        reason=problem.reason if problem else _summary(names, authorizers_checked),
        field=problem.field if problem else None,
        operation_id=event.request.operation_id,
        key_fingerprint=fingerprint(key),
        authorizers=names if problem is None and authorizers_checked else (),
    )


def _authorizers(
    keys: Mapping[str, AuthorizerKey] | None, required: Collection[str] | None
) -> tuple[dict[str, Verifier], frozenset[str]]:
    known: dict[str, Verifier] = {}
    for name, key in (keys or {}).items():
        # the nodes' config reader lowers the ids of authorizers, and theirs is the comparison that counts
        if name.lower() in known:
            raise ValueError(f"authorizers: {name.lower()} is there twice (upper and lower case are one id)")
        known[name.lower()] = _authorizer_verifier(name, key)
    wanted = frozenset(known if required is None else required)
    if wanted - known.keys():
        raise ValueError(f"required_authorizers: no key for {', '.join(sorted(wanted - known.keys()))}")
    return known, wanted


def _authorizer_verifier(name: str, key: AuthorizerKey) -> Verifier:
    try:
        return Verifier(key if isinstance(key, PublicKey) else parse_public_key(*key))
    except HaltError as error:
        raise HaltError(error.code, error.reason, field=f"authorizers.{name}", hint=error.hint) from error


def _initiator_problem(event: message.ParsedEvent, initiator: Verifier) -> _Problem | None:
    if not event.signature:
        return _Problem("signature", "missing")
    if not initiator.verify(event.signed, event.signature):
        return _Problem("signature", "does not verify under this key")
    return None


def _authorizers_problem(
    event: message.ParsedEvent, known: Mapping[str, Verifier], required: frozenset[str]
) -> _Problem | None:
    signed = message.authorizer_bytes(event.request, event.signature)
    present = set()
    for index, item in enumerate(event.authorizer_signatures):
        field = f"authorizer_signatures[{index}]"
        verifier = known.get(item.authorizer_id)
        if verifier is None:
            return _Problem(field, f"{item.authorizer_id[:64]!a} is not among the known authorizers")
        # every signature that is given must verify, required or not, as on the nodes
        if not verifier.verify(signed, item.signature):
            return _Problem(field, f"the signature of {item.authorizer_id} does not verify")
        present.add(item.authorizer_id)
    missing = sorted(required - present)
    return _Problem("authorizer_signatures", f"missing {', '.join(missing)}") if missing else None


def _summary(authorizers: tuple[str, ...], checked: bool) -> str:
    if not authorizers:
        return "signed by the initiator"
    if not checked:
        return "signed by the initiator; the signatures of its authorizers were not checked"
    return f"signed by the initiator, authorized by {', '.join(authorizers)}"
