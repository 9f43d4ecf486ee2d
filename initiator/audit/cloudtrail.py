"""KMS's own log against ours: each signature that AWS says it made is one that we recorded, and the other way round.

Source: AWS's documentation of CloudTrail records (`eventSource`, `eventName`, `requestID`, `resources`) and of KMS's
log entries; a Sign event holds no digest, so the request id is what both have.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from initiator.audit.reading import LogReader
from initiator.core.events import State
from initiator.core.trail import Recorded
from initiator.errors import Code, HaltError, InitiatorError

MAX_FILE_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class KmsCall:
    """One use of a key, as AWS tells it."""

    request_id: str
    time: str
    key_arn: str
    principal: str
    source: str
    error: str


@dataclass(frozen=True, slots=True)
class TrailSignature:
    """One signature on our record."""

    request_id: str
    key_id: str
    subject: str
    stored_at: str
    index: int


@dataclass(slots=True)
class Reconciliation:
    """What either side lacks.

    Attributes:
        matched: calls that both sides have.
        only_kms: KMS signed, and the record does not have it: a crash or an overtaken holder between the two, or
            somebody else.
        only_trail: on our record, and not in these files of KMS's log, though they reach beyond its time.
        later: on our record, after the last call in the files: these may not be delivered yet.
        failed: calls that KMS refused.
        local: signatures of a local key, which no log of KMS has.
        nothing: why nothing was compared; empty where something was.
    """

    matched: int = 0
    only_kms: list[KmsCall] = field(default_factory=list)
    only_trail: list[TrailSignature] = field(default_factory=list)
    later: int = 0
    failed: int = 0
    local: int = 0
    nothing: str = ""

    @property
    def ok(self) -> bool:
        return not self.nothing and not self.only_kms and not self.only_trail


def calls(paths: Iterable[Path]) -> Iterator[KmsCall]:
    """The calls of Sign in CloudTrail's files, as they are delivered (`.json.gz`) or unpacked.

    Raises:
        HaltError: a file that is none.
    """
    for path in paths:
        for record in _records(path):
            if (record.get("eventSource"), record.get("eventName")) == ("kms.amazonaws.com", "Sign"):
                call = _call(record)
                if not (call.request_id and call.time and (call.key_arn or call.error)):
                    reason = "expected requestID, eventTime and a key in each call of Sign"
                    raise HaltError(Code.CONFIG_INVALID, f"{path}: {reason}", field="cloudtrail")
                yield call


def _records(path: Path) -> list[Mapping[str, Any]]:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ValueError("too large")  # noqa: TRY301 - all that is wrong with a file is told below
        records = json.loads(raw)["Records"]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise TypeError("Records")  # noqa: TRY301
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "expected CloudTrail's JSON with `Records`"
        raise HaltError(Code.CONFIG_INVALID, f"{path}: {reason}", field="cloudtrail") from error
    else:
        return records


def _call(record: Mapping[str, Any]) -> KmsCall:
    resources = record.get("resources") or []
    arns = [str(one.get("ARN")) for one in resources if isinstance(one, dict) and one.get("type") == "AWS::KMS::Key"]
    identity = record.get("userIdentity") or {}
    return KmsCall(
        request_id=str(record.get("requestID") or ""),
        time=str(record.get("eventTime") or ""),
        key_arn=arns[0] if arns else str((record.get("requestParameters") or {}).get("keyId") or ""),
        principal=str(identity.get("arn") or identity.get("principalId") or "unknown"),
        source=str(record.get("sourceIPAddress") or "unknown"),
        error=str(record.get("errorCode") or ""),
    )


def signatures(reader: LogReader) -> Iterator[TrailSignature]:
    """Every signature that the log has, once; raises RejectError where it is damaged."""
    seen: set[tuple[str, str]] = set()
    for index, raw in enumerate(reader.entries()):
        entry = reader.read(raw)
        if not isinstance(entry, Recorded) or not entry.subject.endswith(".sealed"):
            continue
        try:
            event = entry.event()
        except InitiatorError:
            continue  # `audit verify` says so
        if event is None or event.state not in (State.SIGNED, State.AUTHORIZING):
            continue
        request_id = str(event.body.get("kms_request_id") or "")
        one = (request_id, f"{event.operation} {event.operation_id}")
        if one not in seen:  # authorizers sign over one signature of ours, event by event
            seen.add(one)
            key_id = str(event.body.get("key_id") or "")
            yield TrailSignature(request_id, key_id, entry.subject, entry.stored_at, index)


def reconcile(kms: Iterable[KmsCall], trail: Iterable[TrailSignature], keys: frozenset[str]) -> Reconciliation:
    """Hold both sides against each other.

    Args:
        keys: ARNs that count; empty: those that the trail names.
    """
    found = Reconciliation()
    ours = list(trail)
    keys = keys or frozenset(one.key_id for one in ours if one.key_id.startswith("arn:"))
    every = list(kms)
    theirs = [call for call in every if not keys or call.key_arn in keys]
    found.failed = sum(bool(call.error) for call in theirs)
    made = {call.request_id: call for call in theirs if not call.error}
    last = max((call.time for call in theirs), default="")
    recorded = {one.request_id for one in ours}
    for one in ours:
        if not one.request_id:
            found.local += 1
        elif one.request_id in made:
            found.matched += 1
        elif one.stored_at[:19] > last[:19]:
            found.later += 1
        else:
            found.only_trail.append(one)
    found.only_kms = [call for request_id, call in made.items() if request_id not in recorded]
    if not made and not found.only_trail:  # what the log has may be newer; or these are not its files
        found.nothing = _nothing(every, theirs, keys)
    return found


def _nothing(every: list[KmsCall], theirs: list[KmsCall], keys: frozenset[str]) -> str:
    """Why there was nothing to compare."""
    if not every:
        return "no call of Sign in the files"
    if theirs:
        return f"KMS refused all {len(theirs)} calls of Sign in the files"
    return f"none of the {len(every)} calls of Sign in the files is of {', '.join(sorted(keys))}"
