"""What can come back from a publish or a JetStream call, as errors of ours.

The three outcomes of a guarded publish are kept apart, since only one of them proves that nothing was stored:

- `SequenceConflictError`: the server refused it, the guard had moved (or the message is already there);
- `StreamFullError`: the server refused it, there is no room;
- `RetryError` with `maybe_done=True`: no usable answer came. It may be stored, now or later: read back.
"""

from __future__ import annotations

from initiator.errors import Code, HaltError, InitiatorError, RejectError, RetryError

# JetStream error codes (nats-server's errors.json).
WRONG_LAST_SEQUENCE = 10071
SEQUENCE_IN_FLIGHT = 10164  # expected last sequence per subject: another proposal is under way (R3)
DUPLICATE_IN_FLIGHT = 10158  # same Nats-Msg-Id: another proposal is under way (R3)
STREAM_STORE_FAILED = 10077  # maximum messages, bytes or messages per subject exceeded
MESSAGE_TOO_LARGE = 10054
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE_FOUND = 10037
DELETE_FAILED = 10057  # with the store's own text: that the message is not there, or trouble
INSUFFICIENT_RESOURCES = (10023, 10028, 10047)


class SequenceConflictError(InitiatorError):
    """The guard did not hold: somebody wrote to these subjects since, or this very message is stored already."""

    def __init__(self) -> None:
        super().__init__(Code.RECORD_BUSY, "the record moved on: another write came first")


class StreamFullError(RetryError):
    """The stream has no room; nothing was stored."""

    def __init__(self, stream_hint: str) -> None:
        super().__init__(Code.STREAM_FULL, f"no room: {stream_hint}", delay_s=1.0)


class NotFoundError(InitiatorError):
    """The stream, consumer or message that was asked for is not there."""

    def __init__(self, reason: str) -> None:
        super().__init__(Code.RECORD_LOST, reason)


def unknown_outcome(reason: str, delay_s: float = 0.25) -> RetryError:
    """An attempt that may have taken effect although no usable answer came."""
    return RetryError(Code.BUS_UNAVAILABLE, reason, delay_s=delay_s, maybe_done=True)


def from_api(error: dict[str, object], what: str) -> InitiatorError:
    """Our error for the `error` object of a JetStream answer.

    Args:
        error: `{"code": …, "err_code": …, "description": …}` as the server sends it.
        what: the subject or API call, for the reader.
    """
    code = error.get("err_code", 0)
    text = f"{what}: {error.get('description', 'no description')} ({code})"
    if code == WRONG_LAST_SEQUENCE:
        return SequenceConflictError()
    if code == STREAM_STORE_FAILED or code in INSUFFICIENT_RESOURCES:
        return StreamFullError(text)
    if code == MESSAGE_TOO_LARGE:
        return RejectError(Code.TOO_LARGE, text)
    if code in (STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, NO_MESSAGE_FOUND) or (
        code == DELETE_FAILED and error.get("description") == "no message found"
    ):
        return NotFoundError(text)
    if code in (SEQUENCE_IN_FLIGHT, DUPLICATE_IN_FLIGHT) or error.get("code") in (503, 504, 408):
        # Another proposal is being decided, or nobody leads: no proof that anything is stored, so ask again.
        return unknown_outcome(text, delay_s=0.05)
    return HaltError(Code.STREAM_FORM, text, hint="compare the stream with `initiator check`")
