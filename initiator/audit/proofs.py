"""A proof of one operation, for somebody who has neither log nor stream: its entries, and their way to the root."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from initiator.audit.reading import LogReader
from initiator.core import tlog, trail
from initiator.core.model import Operation
from initiator.core.tlog import Checkpoint, LogKey
from initiator.core.trail import Recorded
from initiator.errors import Code, RejectError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof proves: these messages are in the log of this checkpoint, at these places."""

    checkpoint: Checkpoint
    entries: list[tuple[int, Recorded]]


def prove(reader: LogReader, operation: Operation, operation_id: str) -> str:
    """The proof of all that the log has of an operation, as JSON.

    Raises:
        RejectError: `NOT_FOUND`; or the log is damaged, and events might be left out.
    """
    found, frontier = [], tlog.Frontier()
    for index, raw in enumerate(reader.entries()):
        frontier.append(tlog.leaf_hash(raw))
        entry = reader.read(raw)
        if isinstance(entry, Recorded) and _is_of(entry, operation, operation_id):
            path = tlog.prove_inclusion(index, reader.checkpoint.size, reader.hashes)
            one = {"entry": base64.b64encode(raw).decode(), "proof": tlog.format_proof(index, path, reader.signed)}
            if not entry.inline:
                one["data"] = base64.b64encode(entry.data).decode()
            found.append(one)
    if frontier.root != reader.checkpoint.root:
        reason = "its entries are not those that its checkpoint signs: `initiator audit verify` says which"
        raise RejectError(Code.AUDIT_INVALID, reason, field="log")
    if not found:
        raise RejectError(Code.NOT_FOUND, f"the log has nothing of {operation} {operation_id}", field="id")
    return json.dumps({"version": VERSION, "op": operation.value, "id": operation_id, "entries": found}, indent=2)


def _is_of(entry: Recorded, operation: Operation, operation_id: str) -> bool:
    match entry.subject.split("."):
        case ["initiator", "event", _, op, id_, *_]:
            return (op, id_) == (operation.value, operation_id)
        case _:
            return False


def check(text: str, key: LogKey) -> Proven:
    """Verify a proof with nothing but the log's public key.

    Raises:
        RejectError: `AUDIT_INVALID`, saying which entry is not proven.
    """
    entries: list[tuple[int, Recorded]] = []
    checkpoint: Checkpoint | None = None
    try:
        fields = json.loads(text)
        operation, operation_id = Operation(fields["op"]), str(fields["id"])
        for one in fields["entries"]:
            raw = base64.b64decode(one["entry"], validate=True)
            data = base64.b64decode(one["data"], validate=True) if "data" in one else None
            index, path, signed = tlog.parse_proof(one["proof"])
            checkpoint = tlog.open_checkpoint(signed, key)
            if not tlog.verify_inclusion(tlog.leaf_hash(raw), index, checkpoint.size, path, checkpoint.root):
                raise _bad(f"entry {index} is not in the log of this checkpoint")
            entry = trail.decode(raw, lambda _digest, data=data: data)  # type: ignore[misc]
            if not isinstance(entry, Recorded) or not _is_of(entry, operation, operation_id):
                raise _bad(f"entry {index} is not of {operation} {operation_id}")
            entries.append((index, entry))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise _bad(f"not a proof: {type(error).__name__}") from error
    if checkpoint is None:
        raise _bad("it proves nothing")
    return Proven(checkpoint, entries)


def _bad(reason: str) -> RejectError:
    return RejectError(Code.AUDIT_INVALID, reason, field="proof")
