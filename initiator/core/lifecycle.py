"""What may follow what: the one place that decides the next step of an operation.

Pure decisions over the last recorded event. The server's compare-and-set makes each of them safe: a decision made
on a stale event cannot be written.

Order of states, per attempt:
    accepted → [authorizing, as often as one answers] → signed → [publishing, reshare only] → published
             → completed | failed | retrying
`retrying` opens the next attempt with the same recorded signature. After `failed` at most one `completed` that
supersedes it; or, where its outcome is `none`, `accepted` again, if a request asks for it by the event's id, or
`failed` again, if its client cancels it. Nothing follows `completed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from initiator.core.events import Event, Outcome, State, parse_time
from initiator.core.model import Operation
from initiator.core.result import ErrorClass, NodeResult, classify
from initiator.errors import Code

# The header of a request that opens a failed operation again; its value is the `event_id` of the `failed` event.
REOPEN = "Initiator-Reopen"

# The nodes' stream delivers again after 30 s at the earliest (three backoffs of 30 s). Only an answer to the first
# delivery proves that no session was begun, so what comes later than that, less a margin, proves nothing.
REDELIVERY_S, LEAST_MARGIN_S = 30.0, 5.0

# How long a success may still follow a SESSION_DUPLICATE or KEY_ALREADY_EXISTS of the same id.
PROVISIONAL_WAIT_S = {Operation.KEYGEN: 45.0, Operation.SIGN: 60.0, Operation.RESHARE: 60.0}

# The failures that are somebody's answer.
_ANSWERS = frozenset({Code.AUTHORIZATION_DENIED, Code.CANCELLED, Code.NODES_ERROR, Code.RESULT_INVALID})


# No complete bytes are recorded yet: nothing can be published, and a failure means that nothing will be.
BEFORE_NO_RETURN = frozenset({State.ACCEPTED, State.AUTHORIZING})

_STAGES = {
    State.ACCEPTED: 0,
    State.RETRYING: 0,
    State.AUTHORIZING: 1,
    State.SIGNED: 2,
    State.PUBLISHING: 3,
    State.PUBLISHED: 4,
    State.COMPLETED: 5,
    State.FAILED: 5,
}


def progress(last: Event | None) -> tuple[int, int]:
    """How far an operation is, by attempt and stage: it only grows, unless the record itself goes back."""
    return (last.attempt, _STAGES[last.state]) if last else (0, 0)


class Step(Enum):
    """What the holder of a request does next."""

    CLAIM = auto()  # nobody has this id
    SIGN = auto()  # accepted, no signature recorded
    AUTHORIZE = auto()  # our signature is recorded, those of authorizers are missing: nothing can be published yet
    PUBLISH = auto()  # complete bytes are recorded: only those may be published
    SEND_ONCE = auto()  # reshare: record `publishing`, then send
    AWAIT = auto()  # at the nodes; for a reshare in `publishing`: perhaps, and never sent again
    FOLLOW = auto()  # another request holds this operation
    SETTLE = auto()  # a final event is recorded
    REOPEN = auto()  # failed, and surely nothing was signed: this request asks for a further attempt
    CONFLICT = auto()  # the id belongs to another payload or client


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """The request that asks for its next step.

    Attributes:
        reopens: the `failed` event that it asks to go on after.
        stalled: the record has not moved for so long that its holder must be gone.
    """

    client: str
    request_digest: str
    request_seq: int
    reopens: str | None = None
    stalled: bool = False


def next_step(last: Event | None, claimant: Claimant) -> Step:
    """The step that follows the last recorded event, seen from one request."""
    if last is None:
        return Step.CLAIM
    # equivocation: one id never gets two payloads; another client's use of an id looks just the same from outside
    if (last.client, last.request_digest) != (claimant.client, claimant.request_digest):
        return Step.CONFLICT
    if last.final:
        return Step.REOPEN if _reopens(last, claimant) else Step.SETTLE
    if last.state in (State.PUBLISHED, State.PUBLISHING):
        return Step.AWAIT
    # a repeated request does not work beside the one that holds the id (it would cost a second KMS call)
    if last.request_seq != claimant.request_seq and not claimant.stalled:
        return Step.FOLLOW
    if last.state is State.ACCEPTED:
        return Step.SIGN
    if last.state is State.AUTHORIZING:
        return Step.AUTHORIZE
    return Step.SEND_ONCE if last.operation is Operation.RESHARE else Step.PUBLISH


def _reopens(last: Event, claimant: Claimant) -> bool:
    """Named by its event, a failure is reopened once: another copy of the same request finds another last event.

    What was cancelled is not: whoever cancelled may have asked under another id since.
    """
    asked = claimant.reopens is not None and claimant.reopens == last.event_id
    if not asked or claimant.request_seq == last.request_seq:
        return False
    return last.outcome is Outcome.NONE and last.body["code"] != Code.CANCELLED


def gave_out(last: Event) -> bool:
    """Whether an operation failed for want of time, tries or a back end: its request becomes a dead letter.

    Not where somebody answered: its client, by cancelling it, or the nodes, whose answer is in the record.
    """
    return last.state is State.FAILED and last.body["code"] not in _ANSWERS


class Verdict(Enum):
    """What a node's result does to the record."""

    COMPLETE = "completed"
    FAIL = "failed"
    RETRY = "retried"  # surely no session was begun: a further attempt
    HOLD = "held"  # provisional: noted, a success can still come
    IGNORE = "ignored"  # repeats what is known
    CONTRADICTION = "contradicted"  # nothing follows a success, but it must be seen
    LATER = "deferred"  # the publication it answers is not recorded yet: look again in a moment
    ORPHAN = "orphaned"  # nothing of ours was published under this id


def judge_result(last: Event, result: NodeResult, answered_at: float, clock_skew_s: float) -> Verdict:
    """What to do with a result that belongs to the operation of `last`.

    Args:
        last: the operation's last event.
        answered_at: when the result was stored, Unix seconds by the clock of the nodes' server.
        clock_skew_s: how far that clock and those of our replicas may differ.

    A success overrides every failure, and only a success may follow a final event.
    """
    if last.state in BEFORE_NO_RETURN:
        return Verdict.ORPHAN  # forgery: no signed bytes exist that a node could have answered
    if last.state is State.COMPLETED:
        return Verdict.IGNORE if result.success else Verdict.CONTRADICTION
    if result.success:
        return Verdict.COMPLETE
    if last.state is State.FAILED:
        return Verdict.IGNORE
    if last.state is State.RETRYING:
        return Verdict.IGNORE  # the failure that this attempt was opened for
    if last.state is State.SIGNED:
        return Verdict.LATER
    return _judge_error(last, result, answered_at, clock_skew_s)


def _judge_error(last: Event, result: NodeResult, answered_at: float, clock_skew_s: float) -> Verdict:
    kind = classify(result.operation, result.error_code, result.error_reason)
    if kind is ErrorClass.PROVISIONAL:
        return Verdict.IGNORE if "provisional_code" in last.body else Verdict.HOLD
    if kind is ErrorClass.RETRY_BEFORE_SESSION:
        published_at = parse_time(last.body["published_at"]) if "published_at" in last.body else 0.0
        if last.attempt > 1 and answered_at < published_at - clock_skew_s:
            return Verdict.IGNORE  # an answer to an earlier attempt
        if answered_at - published_at < REDELIVERY_S - max(LEAST_MARGIN_S, clock_skew_s):
            return Verdict.RETRY
    return Verdict.FAIL


def outcome_before_publishing(last: Event) -> Outcome:
    """What a failure means while nothing was published.

    Complete bytes that are recorded are the point of no return: a holder that was frozen may still publish them.
    After `retrying` the same holds, since the signature is on record; but not where nobody heard a reshare: whoever
    sends one records that before, and cannot after us.
    """
    unheard = last.state is State.RETRYING and last.body.get("code") == Code.NODES_ABSENT
    return Outcome.NONE if last.state in BEFORE_NO_RETURN or unheard else Outcome.UNKNOWN
