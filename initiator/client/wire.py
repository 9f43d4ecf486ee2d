"""Requests and events as they travel: what is published, what comes back, and what makes two requests the same."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from initiator.client.errors import RejectedError
from initiator.core import codec, events, identity, message, validate
from initiator.core.model import (
    ContentType,
    KeygenRequest,
    KeyType,
    Operation,
    Request,
    ReshareRequest,
    SignRequest,
)
from initiator.errors import Code, InitiatorError, RejectError

CONTENT_TYPE = "Content-Type"
_BYTES = frozenset({"ecdsa_pub_key", "eddsa_pub_key", "r", "s", "signature", "pub_key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of one operation, or the refusal of one request. Fields that are not known here stay in `body`.

    Attributes:
        id: the operation's id; of a refusal what the request named, if that could be read.
        state: `accepted`, `signed`, `publishing`, `published`, `retrying`, `completed`, `failed` or `rejected`.
        attempt: which publication to the nodes it belongs to; 0 for a refusal.
        time: when it was recorded, by the daemon's clock.
        event_id: unique to it; empty for a refusal.
        sequence: its place in the record, where it was read from there; else None.
        body: all that it says, bytes as bytes.
    """

    op: Operation
    id: str
    client: str
    state: str
    attempt: int
    time: datetime
    event_id: str
    sequence: int | None
    body: Mapping[str, Any] = field(repr=False)

    @property
    def final(self) -> bool:
        """Whether nothing but a late success can follow."""
        return self.state in ("completed", "failed", "rejected")

    @property
    def code(self) -> str:
        """Why it failed or was refused; empty else."""
        return str(self.body.get("code") or "")

    @property
    def reason(self) -> str:
        return str(self.body.get("reason") or "")

    @property
    def outcome(self) -> str:
        """`none` (a failure, and surely nothing was signed), `unknown` (a failure), or empty."""
        return str(self.body.get("outcome") or "")

    @property
    def verification(self) -> str:
        """How far the daemon has checked a result, `verified` or `unverified`; empty else."""
        return str(self.body.get("verification") or "")

    @property
    def request_digest(self) -> str:
        """What was asked for; the same for the same request."""
        return str(self.body.get("request_digest") or "")

    @property
    def request_seq(self) -> int:
        """The sequence, in its client's queue, of the request that it answers."""
        return int(self.body.get("request_seq") or 0)

    def result(self, name: str) -> bytes:
        """A part of a completed operation's result; raises KeyError or ValueError where it is not there."""
        value = self.body["result"][name]
        if not isinstance(value, bytes):
            raise ValueError(f"{name}: expected bytes")  # noqa: TRY004 - what the daemon sent, not what we were passed
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """An operation that was asked for: enough to pick it up again, also in another process.

    Attributes:
        request: what was asked for.
        digest: what makes it this request: the same for the same fields of the same client.
        sequence: of the request in the queue; 0 where it is not known.
        reopens: the event of the failure that it goes on after, if it does.
    """

    request: Request = field(repr=False)
    digest: str
    sequence: int = 0
    reopens: str | None = None

    @property
    def op(self) -> Operation:
        return self.request.operation

    @property
    def id(self) -> str:
        return self.request.operation_id


def keygen(wallet_id: str, **common: Any) -> KeygenRequest:
    """A request for a new wallet."""
    return KeygenRequest(wallet_id=wallet_id, **_common(**common))


def sign(
    *,
    wallet_id: str,
    tx_id: str,
    tx: bytes,
    key_type: KeyType | str,
    network_internal_code: str,
    derivation_path: Sequence[int] | None,
    **common: Any,
) -> SignRequest:
    """A request for a signature. Raises RejectedError for a key type that does not exist, or a tx of another type."""
    if not isinstance(tx, bytes | bytearray | memoryview):
        raise RejectedError(Code.INVALID_FIELD, f"expected bytes, got {type(tx).__name__}", field="tx")
    return SignRequest(
        key_type=key_type_of(key_type),
        wallet_id=wallet_id,
        network_internal_code=network_internal_code,
        tx_id=tx_id,
        tx=bytes(tx),
        derivation_path=tuple(derivation_path) if derivation_path else None,
        **_common(**common),
    )


def reshare(
    *,
    session_id: str,
    wallet_id: str,
    key_type: KeyType | str,
    node_ids: Sequence[str],
    new_threshold: int,
    **common: Any,
) -> ReshareRequest:
    """A request to move a key's shares. Raises RejectedError for a key type that does not exist, or text for nodes."""
    if isinstance(node_ids, str):
        raise RejectedError(Code.INVALID_FIELD, "expected a list of ids, got text", field="node_ids")
    return ReshareRequest(
        session_id=session_id,
        node_ids=tuple(node_ids),
        new_threshold=new_threshold,
        key_type=key_type_of(key_type),
        wallet_id=wallet_id,
        **_common(**common),
    )


def _common(*, expires_at: datetime | None, labels: Mapping[str, str] | None) -> dict[str, Any]:
    if expires_at is not None and (not isinstance(expires_at, datetime) or expires_at.tzinfo is None):
        raise RejectedError(Code.INVALID_FIELD, "expected a datetime with a zone", field="expires_at")
    try:
        at = expires_at.timestamp() if expires_at else None
        events.format_time(at or 0.0)
    except (ValueError, OverflowError):
        raise RejectedError(Code.INVALID_FIELD, "expected a time before the year 9999", field="expires_at") from None
    return {"expires_at": at, "labels": dict(labels or {})}


def key_type_of(value: KeyType | str) -> KeyType:
    """A key type by its name; raises RejectedError."""
    try:
        return KeyType(value)
    except ValueError:
        reason = f"expected {' or '.join(KeyType)}, got {str(value)[:32]!a}"
        raise RejectedError(Code.INVALID_FIELD, reason, field="key_type") from None


def operation_of(value: Operation | str) -> Operation:
    """An operation by its name; raises RejectedError."""
    try:
        return Operation(value)
    except ValueError:
        reason = f"expected {', '.join(Operation)}, got {str(value)[:32]!a}"
        raise RejectedError(Code.INVALID_FIELD, reason, field="op") from None


def handle_of(client: str, request: Request, retry: Event | str | None) -> Handle:
    """What a request of this client is followed by; raises RejectedError for what no daemon takes."""
    try:
        # what no daemon takes is refused here, and fills no dead letters
        validate.parse_by_any(request.operation, _fields(request), ContentType.MSGPACK)
        message.check_unambiguous(request)
        digest = identity.request_digest(client, request)
    except RejectError as error:
        raise RejectedError(error.code, error.reason, field=error.field, hint=error.hint) from None
    except (ValueError, TypeError, AttributeError, OverflowError, InitiatorError) as error:
        raise RejectedError(Code.INVALID_FIELD, f"the request cannot be encoded: {type(error).__name__}") from error
    return Handle(request=request, digest=digest, reopens=_reopens(retry))


def _reopens(retry: Event | str | None) -> str | None:
    """The failure that a request goes on after; raises RejectedError for what is none."""
    if isinstance(retry, Event) and retry.outcome != "none":
        reason = f"expected a failure with outcome none, got {retry.state} {retry.outcome}".rstrip()
        raise RejectedError(Code.INVALID_FIELD, reason, field="retry")
    event_id = retry.event_id if isinstance(retry, Event) else retry
    if event_id is not None and not (isinstance(event_id, str) and events.is_id(event_id)):
        raise RejectedError(Code.INVALID_FIELD, "expected a failure, or its event_id", field="retry")
    return event_id


def encode(request: Request) -> bytes:
    """A request's payload, in msgpack."""
    return codec.encode(ContentType.MSGPACK, _fields(request))


def _fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    match request:
        case KeygenRequest():
            fields = {"wallet_id": request.wallet_id}
        case SignRequest():
            names = ("wallet_id", "network_internal_code", "tx_id", "tx")
            fields = {"key_type": request.key_type.value} | {name: getattr(request, name) for name in names}
            if request.derivation_path:
                fields["derivation_path"] = list(request.derivation_path)
        case ReshareRequest():
            fields = {"key_type": request.key_type.value, "node_ids": list(request.node_ids)}
            fields |= {name: getattr(request, name) for name in ("session_id", "new_threshold", "wallet_id")}
    if request.expires_at is not None:
        fields["expires_at"] = events.format_time(request.expires_at)
    if request.labels:
        fields["labels"] = dict(request.labels)
    return fields


def read_message(subject: str, headers: Mapping[str, str], data: bytes) -> Event | None:
    """The event in a message on `initiator.out.…`; None where it is none that this version can read."""
    try:
        body = codec.decode(codec.content_type(headers.get(CONTENT_TYPE)), data)
        sequence = headers.get("Nats-Sequence")
        return read_event(body | ({"sequence": int(sequence)} if sequence else {}))
    except (InitiatorError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_event(fields: Mapping[str, Any]) -> Event:
    """An event as the daemon sends or answers it.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none.
    """
    body = dict(fields)
    sequence = body.pop("sequence", None)
    if isinstance(body.get("result"), dict):
        body["result"] = {name: _plain(name, value) for name, value in body["result"].items()}
    return Event(
        op=Operation(body["op"]),
        id=str(body.get("id") or ""),
        client=str(body["client"]),
        state=str(body["state"]),
        attempt=int(body.get("attempt") or 0),
        time=datetime.fromtimestamp(events.parse_time(body["time"]), UTC),
        event_id=str(body.get("event_id") or ""),
        sequence=sequence if isinstance(sequence, int) else None,
        body=body,
    )


def read_event_or_none(fields: Any) -> Event | None:
    """An event in an answer; None where there is none that this version can read."""
    if isinstance(fields, dict):
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            return read_event(fields)
    return None


def read_page(answer: Mapping[str, Any]) -> list[Event]:
    """The events of one page; what this version cannot read is left out."""
    return [event for one in answer.get("events") or () if (event := read_event_or_none(one))]


def _plain(name: str, value: Any) -> Any:
    if name in _BYTES and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name}: expected base64") from error
    return value
