"""A valid request in hand, and what was learnt about it on the way."""

from __future__ import annotations

from dataclasses import dataclass

from initiator.core import events
from initiator.core.lifecycle import Claimant
from initiator.core.model import ContentType, Operation, Request
from initiator.core.requester import RequesterSignature
from initiator.errors import InitiatorError, RejectError
from initiator.flow.held import Held
from initiator.record import Entry, Seen

WENT_BACK = "the record went back to before this was signed, and the nodes may have it"
FRESH_S = 5.0
"""After this long a holder may have been frozen and overtaken: it looks before it publishes."""


@dataclass(slots=True)
class Work:
    """One request on its way through the pipeline.

    Attributes:
        recorded_at: loop time at which we began to record the signed bytes; None if we did not.
        admitted: holds one of the lane's places for requests in preparation.
        counted: its takeover has left its mark.
        holds_slot: took (or found) the slot of its id.
        refusal: why the rules refuse it now, although it was claimed under others.
        signature: its client's own, verified; None: it has none.
        seen: the record as it was when a claim was refused by one who may have been overtaken.
        problem: what the signer last said no with; why the deadline passed, if it does.
        went_back: the record says less than it did: the nodes may have signed bytes, whatever it says now.
    """

    held: Held
    request: Request
    encoding: ContentType
    claimant: Claimant
    signature: RequesterSignature | None = None
    refusal: RejectError | None = None
    recorded_at: float | None = None
    admitted: bool = False
    counted: bool = False
    holds_slot: bool = False
    problem: InitiatorError | None = None
    seen: Seen | None = None
    went_back: bool = False

    @property
    def operation(self) -> Operation:
        return self.request.operation

    @property
    def operation_id(self) -> str:
        return self.request.operation_id

    def fresh(self, loop_time: float) -> bool:
        """Nobody can have published yet: the bytes were recorded by us, moments ago."""
        return self.recorded_at is not None and loop_time - self.recorded_at < FRESH_S and not self.went_back


def expired(last: Entry, now: float) -> str:
    """Why the operation's deadline has passed, or an empty string."""
    expires_at = last.event.expires_at
    return f"expired at {events.format_time(expires_at)}" if now >= expires_at else ""
