"""What a call can end with besides its result: one class for each way to react.

Every error carries the daemon's stable `code` (explained one by one in `docs/runbook.md`), a `reason`, and where there
is one the `field` that is wrong and a `hint`. Messages never hold payloads, signatures or keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from initiator.client.wire import Event, Handle


class ClientError(Exception):
    """Base of all errors of this package.

    Args:
        code: stable identifier, such as `CONFLICT` or `NODES_ERROR`.
        reason: what was expected, and what came.
        field: the request's field that is wrong, if it is one.
        hint: what to do about it.
    """

    def __init__(self, code: str, reason: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{code}: {field + ': ' if field else ''}{reason}{f' ({hint})' if hint else ''}")
        self.code = code
        self.reason = reason
        self.field = field
        self.hint = hint


class RejectedError(ClientError):
    """The request is wrong and stays wrong: mend it. It was not taken, and the same one ends the same way.

    What was begun under its id before, by an earlier request, is not touched by that: see `status`.
    """


class NothingSignedError(ClientError):
    """The operation failed, and surely nothing was signed, nor will be unless somebody asks to go on.

    Safe to ask again: under the same id by `retry=error.event`. Or under another id, once `cancel` has succeeded: until
    then a `retry` that was asked before (by a call that timed out, or another process) may still begin.

    Attributes:
        event: the final event.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event.code, event.reason)
        self.event = event


class OutcomeUnknownError(ClientError):
    """The operation failed, and the nodes may have signed or may yet: never ask for it under another id.

    A late success is still recorded: ask for the `result` again, or look at `status`, before anything else.

    Attributes:
        event: the final event.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event.code, event.reason, hint="never ask again under another id; a late success may come")
        self.event = event


class StillRunningError(ClientError):
    """Your timeout has passed, and the operation goes on: pick it up again with `result(error.handle)`.

    Attributes:
        handle: the operation.
        state: what was last heard of it; empty where it waits in the queue, or nothing was heard.
    """

    def __init__(self, handle: Handle, state: str, reason: str, hint: str | None = None) -> None:
        super().__init__("STILL_RUNNING", reason, hint=hint)
        self.handle = handle
        self.state = state


class UnavailableError(ClientError):
    """NATS, the queue or the daemon cannot take it now. The same call again is always safe: it joins what there is.

    Attributes:
        maybe_queued: whether the request may have reached the queue all the same.
    """

    def __init__(self, code: str, reason: str, *, hint: str | None = None, maybe_queued: bool = False) -> None:
        super().__init__(code, reason, hint=hint)
        self.maybe_queued = maybe_queued


class DeniedError(ClientError):
    """NATS refuses the login, or does not let it do what a client must. Again is no help: mend the login first."""


class TooLateError(ClientError):
    """It cannot be cancelled any more: complete signed bytes are on record, or were. Wait for its result."""


class UntrustedResultError(ClientError):
    """The result does not verify, or nobody could verify it. Do not use it; this may be an attack.

    Attributes:
        event: the final event.
    """

    def __init__(self, event: Event, reason: str, hint: str | None = None) -> None:
        super().__init__("RESULT_INVALID", reason, hint=hint)
        self.event = event
