"""Every way this product can say no, in one place.

An `InitiatorError` carries a stable `code` (documented one by one in `docs/runbook.md`) and belongs to one of
three reactions: `RejectError` (the request is wrong; never retried), `RetryError` (a back end is away; try again
later) and `HaltError` (a person has to act; nothing is signed meanwhile).

Messages are lower case, say what was expected and what came, and never hold payload, key or signature bytes.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Stable error codes: part of the contract with clients, dashboards and the runbook."""

    # the request is wrong
    UNDECODABLE = "UNDECODABLE"
    UNSUPPORTED_CONTENT_TYPE = "UNSUPPORTED_CONTENT_TYPE"
    TOO_LARGE = "TOO_LARGE"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    MISSING_FIELD = "MISSING_FIELD"
    INVALID_FIELD = "INVALID_FIELD"
    INVALID_SUBJECT = "INVALID_SUBJECT"
    AMBIGUOUS_MESSAGE = "AMBIGUOUS_MESSAGE"
    AUDIT_INVALID = "AUDIT_INVALID"
    EXPIRED = "EXPIRED"
    CONFLICT = "CONFLICT"
    POLICY_DENIED = "POLICY_DENIED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    REQUESTER_SIGNATURE_INVALID = "REQUESTER_SIGNATURE_INVALID"
    NOT_FOUND = "NOT_FOUND"
    TOO_LATE = "TOO_LATE"
    EXHAUSTED = "EXHAUSTED"
    # an accepted operation ended badly
    AUTHORIZATION_DENIED = "AUTHORIZATION_DENIED"
    AUTHORIZERS_MISSING = "AUTHORIZERS_MISSING"
    CANCELLED = "CANCELLED"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    FROZEN = "FROZEN"
    NODES_ERROR = "NODES_ERROR"
    NODES_NOT_READY = "NODES_NOT_READY"
    NODES_ABSENT = "NODES_ABSENT"
    PUBLISH_UNCERTAIN = "PUBLISH_UNCERTAIN"
    RECORD_LOST = "RECORD_LOST"
    RESULT_INVALID = "RESULT_INVALID"
    RESULT_ORPHANED = "RESULT_ORPHANED"
    RESULT_TIMEOUT = "RESULT_TIMEOUT"
    # a back end is away: retried
    AUDIT_BEHIND = "AUDIT_BEHIND"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    BUS_UNAVAILABLE = "BUS_UNAVAILABLE"
    KMS_CREDENTIALS = "KMS_CREDENTIALS"
    KMS_THROTTLED = "KMS_THROTTLED"
    KMS_UNAVAILABLE = "KMS_UNAVAILABLE"
    QUERY_BUSY = "QUERY_BUSY"
    RECORD_BUSY = "RECORD_BUSY"
    RECORD_FULL = "RECORD_FULL"
    STALLED = "STALLED"
    STOP_LINE = "STOP_LINE"
    STREAM_FULL = "STREAM_FULL"
    # a person has to act
    BUS_DENIED = "BUS_DENIED"
    CONFIG_INVALID = "CONFIG_INVALID"
    KEY_FILE_INVALID = "KEY_FILE_INVALID"
    KEY_MISMATCH = "KEY_MISMATCH"
    KEY_UNSUITABLE = "KEY_UNSUITABLE"
    KMS_ACCESS_DENIED = "KMS_ACCESS_DENIED"
    KMS_KEY_UNUSABLE = "KMS_KEY_UNUSABLE"
    KMS_PROTOCOL = "KMS_PROTOCOL"
    POLICY_INVALID = "POLICY_INVALID"
    PUBLIC_KEY_INVALID = "PUBLIC_KEY_INVALID"
    ROUTING_MISMATCH = "ROUTING_MISMATCH"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    STREAM_FORM = "STREAM_FORM"


class InitiatorError(Exception):
    """Base of all errors of this package.

    Args:
        code: stable identifier.
        reason: lower-case sentence, expected against got; safe to log and to send to the requester.
        field: name of the offending field, setting or part, if there is one.
        hint: what the reader can do about it.
    """

    def __init__(self, code: Code, reason: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{code}: {field + ': ' if field else ''}{reason}")
        self.code = code
        self.reason = reason
        self.field = field
        self.hint = hint


class RejectError(InitiatorError):
    """The input is wrong and stays wrong: reject it once, never retry."""


class RetryError(InitiatorError):
    """A back end cannot serve now; the same call may succeed after `delay_s` seconds.

    `maybe_done` is true where the attempt may have taken effect although no confirmation came.
    """

    def __init__(self, code: Code, reason: str, *, field: str | None = None, hint: str | None = None,
                 delay_s: float = 0.5, maybe_done: bool = False) -> None:  # fmt: skip
        super().__init__(code, reason, field=field, hint=hint)
        self.delay_s = delay_s
        self.maybe_done = maybe_done


class HaltError(InitiatorError):
    """Nothing can be signed until a person acts (a wrong key, missing permission, a foreign stream)."""
