"""What may follow what: every state, every claimant, every kind of answer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from initiator.core.events import FINAL, Event, Outcome, State, format_time
from initiator.core.lifecycle import (
    LEAST_MARGIN_S,
    REDELIVERY_S,
    Claimant,
    Step,
    Verdict,
    gave_out,
    judge_result,
    next_step,
    outcome_before_publishing,
)
from initiator.core.model import Operation
from initiator.core.result import NodeResult
from initiator.errors import Code
from tests.support.events import event_of

RECORDED = [state for state in State if state is not State.REJECTED]
PUBLISHED_AT = 1_000_000.0
SKEW_S = 2.0
FIRST_DELIVERY_S = REDELIVERY_S - LEAST_MARGIN_S


def recorded(state: State, operation: Operation = Operation.SIGN, **changes: Any) -> Event:
    return event_of("id", state, operation=operation, request_digest="aa", request_seq=7, **changes)


def claimant(**changes: Any) -> Claimant:
    fields: dict[str, Any] = {"client": "alice", "request_digest": "aa", "request_seq": 7}
    return Claimant(**(fields | changes))


def answer(operation: Operation, code: str = "", reason: str = "") -> NodeResult:
    return NodeResult(
        operation=operation,
        success=not code,
        error_code=code,
        error_reason=reason,
        wallet_id="w",
        operation_id="id",
    )


# --- what becomes a dead letter


@pytest.mark.parametrize("code", sorted(Code))
def test_a_failure_without_an_answer_makes_a_dead_letter(code: Code) -> None:
    answered = code in (Code.AUTHORIZATION_DENIED, Code.CANCELLED, Code.NODES_ERROR, Code.RESULT_INVALID)
    assert gave_out(recorded(State.FAILED, body={"code": code.value})) is not answered


@pytest.mark.parametrize("state", [state for state in RECORDED if state is not State.FAILED])
def test_what_has_not_failed_makes_none(state: State) -> None:
    assert not gave_out(recorded(state, body={"code": "NODES_NOT_READY"}))


# --- the next step


def test_an_id_that_nobody_has_is_claimed() -> None:
    assert next_step(None, claimant()) is Step.CLAIM


HOLDERS_STEPS = {
    State.ACCEPTED: Step.SIGN,
    State.AUTHORIZING: Step.AUTHORIZE,
    State.SIGNED: Step.PUBLISH,
    State.PUBLISHING: Step.AWAIT,
    State.PUBLISHED: Step.AWAIT,
    State.RETRYING: Step.PUBLISH,
    State.COMPLETED: Step.SETTLE,
    State.FAILED: Step.SETTLE,
}


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("state", RECORDED)
def test_the_request_that_holds_the_id_goes_on_from_its_last_event(state: State, operation: Operation) -> None:
    expected = HOLDERS_STEPS[state]
    if operation is Operation.RESHARE and expected is Step.PUBLISH:
        expected = Step.SEND_ONCE
    assert next_step(recorded(state, operation), claimant()) is expected
    # also where nothing moved for long: it is its own holder
    assert next_step(recorded(state, operation), claimant(stalled=True)) is expected


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("state", RECORDED)
@pytest.mark.parametrize(
    "stranger", [{"client": "bob"}, {"request_digest": "bb"}, {"client": "bob", "request_digest": "bb"}]
)
@pytest.mark.parametrize("stalled", [True, False])
def test_another_payload_or_client_conflicts_in_every_state(
    state: State, operation: Operation, stranger: dict[str, str], stalled: bool
) -> None:
    assert next_step(recorded(state, operation), claimant(stalled=stalled, **stranger)) is Step.CONFLICT


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("state", RECORDED)
def test_a_repeated_request_never_works_beside_its_holder_and_takes_over_a_stalled_one(
    state: State, operation: Operation
) -> None:
    last = recorded(state, operation)
    beside = next_step(last, claimant(request_seq=8))
    working = state in (State.ACCEPTED, State.AUTHORIZING, State.SIGNED, State.RETRYING)
    assert beside is (Step.FOLLOW if working else next_step(last, claimant()))
    assert next_step(last, claimant(request_seq=8, stalled=True)) is next_step(last, claimant())


def test_nothing_is_signed_after_a_signature_and_nothing_is_published_after_a_publication() -> None:
    """The step that costs a signature, and those that reach the nodes, stand in the states that allow them alone."""
    allowed = {
        Step.SIGN: {State.ACCEPTED},
        Step.AUTHORIZE: {State.AUTHORIZING},
        Step.PUBLISH: {State.SIGNED, State.RETRYING},
        Step.SEND_ONCE: {State.SIGNED, State.RETRYING},
    }
    for state, operation, seq, stalled in itertools.product(RECORDED, Operation, (7, 8), (True, False)):
        step = next_step(recorded(state, operation), claimant(request_seq=seq, stalled=stalled))
        assert state in allowed.get(step, {state})


# --- a node's result

SUCCESS: dict[State, Verdict] = {
    State.ACCEPTED: Verdict.ORPHAN,
    State.AUTHORIZING: Verdict.ORPHAN,
    State.SIGNED: Verdict.COMPLETE,
    State.PUBLISHING: Verdict.COMPLETE,
    State.PUBLISHED: Verdict.COMPLETE,
    State.RETRYING: Verdict.COMPLETE,
    State.FAILED: Verdict.COMPLETE,
    State.COMPLETED: Verdict.IGNORE,
}


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("state", RECORDED)
def test_a_success_overrides_all_but_a_success_and_what_was_never_signed(state: State, operation: Operation) -> None:
    assert judge_result(recorded(state, operation), answer(operation), PUBLISHED_AT, SKEW_S) is SUCCESS[state]


FAILURE: dict[State, Verdict] = {
    State.ACCEPTED: Verdict.ORPHAN,
    State.AUTHORIZING: Verdict.ORPHAN,
    State.SIGNED: Verdict.LATER,
    State.PUBLISHING: Verdict.FAIL,
    State.PUBLISHED: Verdict.FAIL,
    State.RETRYING: Verdict.IGNORE,
    State.FAILED: Verdict.IGNORE,
    State.COMPLETED: Verdict.CONTRADICTION,
}


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("state", RECORDED)
@pytest.mark.parametrize("code", ["ERROR_UNKNOWN", "ERROR_KEY_NOT_FOUND", "ERROR_MAX_DELIVERY_ATTEMPTS", "ERROR_NEW"])
def test_a_failure_fails_what_is_at_the_nodes_and_nothing_else(state: State, operation: Operation, code: str) -> None:
    assert judge_result(recorded(state, operation), answer(operation, code), PUBLISHED_AT, SKEW_S) is FAILURE[state]


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("code", ["", "ERROR_UNKNOWN", "ERROR_NOT_MAJORITY", "ERROR_SESSION_DUPLICATE"])
@pytest.mark.parametrize("at", [0.0, PUBLISHED_AT, PUBLISHED_AT * 2])
def test_only_one_success_may_follow_a_final_event(operation: Operation, code: str, at: float) -> None:
    follows = {Verdict.COMPLETE, Verdict.FAIL, Verdict.RETRY, Verdict.HOLD}
    for state in FINAL:
        verdict = judge_result(recorded(state, operation), answer(operation, code), at, SKEW_S)
        assert (verdict in follows) == (state is State.FAILED and not code)


def published(attempt: int = 1, **body: Any) -> Event:
    return recorded(State.PUBLISHED, attempt=attempt, body={"published_at": format_time(PUBLISHED_AT), **body})


NOT_READY = ["ERROR_NOT_MAJORITY", "ERROR_CLUSTER_NOT_READY"]


@pytest.mark.parametrize("code", NOT_READY)
@pytest.mark.parametrize(
    ("attempt", "after_s", "verdict"),
    [
        (1, 0.1, Verdict.RETRY),
        (1, FIRST_DELIVERY_S - 0.1, Verdict.RETRY),
        # a redelivery may have come after a session that was begun
        (1, FIRST_DELIVERY_S, Verdict.FAIL),
        (1, 180.0, Verdict.FAIL),
        # clocks that differ: there was no earlier attempt that it could answer
        (1, -10.0, Verdict.RETRY),
        (2, 0.1, Verdict.RETRY),
        (2, -SKEW_S + 0.1, Verdict.RETRY),
        (2, -SKEW_S - 0.1, Verdict.IGNORE),
        (2, FIRST_DELIVERY_S, Verdict.FAIL),
    ],
)
def test_a_further_attempt_needs_an_answer_to_the_first_delivery(
    code: str, attempt: int, after_s: float, verdict: Verdict
) -> None:
    assert judge_result(published(attempt), answer(Operation.SIGN, code), PUBLISHED_AT + after_s, SKEW_S) is verdict


def test_clocks_that_may_differ_by_much_leave_less_time_for_a_first_answer() -> None:
    result, at = answer(Operation.SIGN, NOT_READY[0]), PUBLISHED_AT + 11
    found = [judge_result(published(), result, at, skew_s) for skew_s in (15.0, 20.0)]
    assert found == [Verdict.RETRY, Verdict.FAIL]


@pytest.mark.parametrize("code", NOT_READY)
def test_without_the_time_of_publication_there_is_no_further_attempt(code: str) -> None:
    """Recorded late by whoever took over, `published` alone would make a redelivery's answer look like the first's."""
    last = recorded(State.PUBLISHED)
    assert judge_result(last, answer(Operation.SIGN, code), last.time + 0.1, SKEW_S) is Verdict.FAIL


@pytest.mark.parametrize("code", NOT_READY)
@pytest.mark.parametrize("state", [State.PUBLISHED, State.PUBLISHING])
def test_a_reshare_is_never_tried_again_for_a_nodes_word(code: str, state: State) -> None:
    last = recorded(state, Operation.RESHARE, body={"published_at": format_time(PUBLISHED_AT)})
    assert judge_result(last, answer(Operation.RESHARE, code), PUBLISHED_AT + 0.1, SKEW_S) is Verdict.FAIL


PROVISIONAL = [
    ("ERROR_SESSION_DUPLICATE", ""),
    ("ERROR_KEY_ALREADY_EXISTS", ""),
    # the nodes guess codes from texts that hold ids: their own words before the id say more
    ("ERROR_STORAGE_WRITE", "Duplicate session: output-1"),
]


@pytest.mark.parametrize(("code", "reason"), PROVISIONAL)
def test_a_duplicate_is_noted_once_while_a_success_can_still_come(code: str, reason: str) -> None:
    result = answer(Operation.SIGN, code, reason)
    assert judge_result(published(), result, PUBLISHED_AT + 1, SKEW_S) is Verdict.HOLD
    assert judge_result(published(provisional_code=code), result, PUBLISHED_AT + 1, SKEW_S) is Verdict.IGNORE
    success = answer(Operation.SIGN)
    assert judge_result(published(provisional_code=code), success, PUBLISHED_AT + 2, SKEW_S) is Verdict.COMPLETE
    final = answer(Operation.SIGN, "ERROR_UNKNOWN")
    assert judge_result(published(provisional_code=code), final, PUBLISHED_AT + 2, SKEW_S) is Verdict.FAIL


@pytest.mark.parametrize("state", RECORDED)
def test_only_what_was_never_signed_surely_came_to_nothing(state: State) -> None:
    expected = Outcome.NONE if state in (State.ACCEPTED, State.AUTHORIZING) else Outcome.UNKNOWN
    assert outcome_before_publishing(recorded(state)) is expected
