"""Events for tests of the record."""

from __future__ import annotations

import secrets
import time
from typing import Any

from initiator.core.events import Event, State
from initiator.core.model import ContentType, Operation


def event_of(operation_id: str, state: State = State.ACCEPTED, **changes: Any) -> Event:
    """One event of a sign operation of alice's, with an event_id of its own."""
    now = round(time.time(), 3)  # events keep milliseconds
    fields: dict[str, Any] = {
        "operation": Operation.SIGN,
        "operation_id": operation_id,
        "client": "alice",
        "state": state,
        "attempt": 1,
        "time": now,
        "request_seq": 1,
        "request_digest": "00" * 32,
        "expires_at": now + 900,
        "event_id": secrets.token_hex(8),
        "content_type": ContentType.MSGPACK,
        "body": {},
    }
    return Event(**(fields | changes))
