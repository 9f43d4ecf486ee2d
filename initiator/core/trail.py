"""Entries of the audit log: what the record's stream holds, message by message, and what it does not hold any more.

An entry is canonical JSON: a message with its place, or a gap: sequences that were not in the stream when it was
exported, which is said instead of passed over. Large data lies beside the log under its digest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from initiator.core import codec, events
from initiator.core.events import Event
from initiator.core.model import ContentType
from initiator.errors import Code, RejectError

VERSION = 1
MOST_BYTES = 65_535
"""The largest entry that a bundle of the tile format can hold."""
_INLINE_BYTES = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A message of the record.

    Attributes:
        sequence: its place in the stream.
        stored_at: when the server stored it, as the server says it (RFC 3339, with all its digits).
        chain: its header of `initiator.core.chain`; empty without one.
        data: its bytes.
    """

    sequence: int
    stored_at: str
    subject: str
    content_type: str
    chain: str
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def inline(self) -> bool:
        """Whether its data is in the entry itself."""
        return len(self.data) <= _INLINE_BYTES

    def event(self) -> Event | None:
        """The event that it is; None for what is none (refusals, operators' orders). Raises RejectError."""
        if not self.subject.startswith("initiator.event."):
            return None
        return events.decode(codec.content_type(self.content_type or None), self.data)


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences that the stream did not hold: expired, or deleted."""

    first: int
    last: int


def encode(entry: Recorded | Gap) -> bytes:
    """The bytes of an entry: one form for one entry."""
    if isinstance(entry, Gap):
        fields: dict[str, Any] = {"v": VERSION, "gap": [entry.first, entry.last]}
    else:
        fields = {
            "v": VERSION,
            "seq": entry.sequence,
            "stored_at": entry.stored_at,
            "subject": entry.subject,
            "content_type": entry.content_type,
            "chain": entry.chain,
        }
        if entry.inline:
            fields["data"] = base64.b64encode(entry.data).decode()
        else:
            fields["data_sha256"] = entry.sha256
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def decode(raw: bytes, blob: Callable[[str], bytes | None]) -> Recorded | Gap:
    """Read an entry back, strictly: what would be written otherwise is refused.

    Args:
        blob: data that lies beside the log, by its digest.

    Raises:
        RejectError: `AUDIT_INVALID`.
    """
    try:
        fields = codec.decode(ContentType.JSON, raw)
        if "gap" in fields:
            first, last = fields["gap"]
            entry: Recorded | Gap = Gap(int(first), int(last))
        else:
            entry = Recorded(
                sequence=fields["seq"],
                stored_at=fields["stored_at"],
                subject=fields["subject"],
                content_type=fields["content_type"],
                chain=fields["chain"],
                data=_data(fields, blob),
            )
    except RejectError as error:
        raise _bad(error.reason) from error
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _bad(f"not an entry of this log: {type(error).__name__}") from error
    if encode(entry) != raw:
        raise _bad("not in the one form of an entry")
    return entry


def _data(fields: dict[str, Any], blob: Callable[[str], bytes | None]) -> bytes:
    if "data" in fields:
        return base64.b64decode(fields["data"], validate=True)
    digest = str(fields["data_sha256"])
    data = blob(digest)
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        raise _bad(f"its data ({digest[:16]}…) is missing beside the log, or is other data")
    return data


def _bad(reason: str) -> RejectError:
    return RejectError(Code.AUDIT_INVALID, reason, field="entry")
