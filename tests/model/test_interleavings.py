"""Every interleaving of two replicas: the design's invariants hold in every state, and each guard is there for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from initiator.core import lifecycle
from initiator.core.events import Outcome, State
from initiator.core.lifecycle import Step
from initiator.core.model import Operation
from tests.model.machine import DUPLICATE, ERROR, NOT_READY, SUCCESS, Explorer, Rules

CASES = {
    "a repeated request, success against error": Rules(),
    "another payload under the id": Rules(owners=("alice", "mallory"), answers=(SUCCESS,)),
    "a second attempt": Rules(owners=("alice",), answers=(SUCCESS, NOT_READY, ERROR), answers_at_most=2),
    "a provisional answer": Rules(owners=("alice",), answers=(SUCCESS, DUPLICATE, ERROR), answers_at_most=3),
    "two replicas with results": Rules(owners=("alice",), settling=2),
    "two deaths": Rules(owners=("alice",), answers=(SUCCESS, ERROR), deaths=2),
    "a reshare": Rules(operation=Operation.RESHARE, owners=("alice",), answers=(SUCCESS, ERROR)),
    "a reshare, repeated": Rules(operation=Operation.RESHARE, answers=(SUCCESS,), deaths=1),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_the_invariants_hold_in_every_state(name: str) -> None:
    explorer = Explorer(CASES[name])
    assert explorer.explore() is None
    assert explorer.states > 1_000
    # it must have been somewhere: a success, a failure, and an expiry before anything was recorded
    ends = {ending[-1] if ending else "nothing" for ending in explorer.endings}
    assert {"completed", "failed", "nothing"} <= ends


def publish_again(last: Any, claimant: Any) -> Step:
    step = lifecycle.next_step(last, claimant)
    if step is Step.AWAIT and last.operation is Operation.RESHARE and last.state is State.PUBLISHING:
        return Step.SEND_ONCE
    return step


def no_conflict(last: Any, claimant: Any) -> Step:
    if last is not None:
        claimant = replace(claimant, client=last.client, request_digest=last.request_digest)
    return lifecycle.next_step(last, claimant)


def always_none(_event: Any) -> Outcome:
    return Outcome.NONE


def believe_first(last: Any, result: Any, answered_at: float, skew_s: float) -> lifecycle.Verdict:
    """Whatever comes is recorded, as if nothing had been before."""
    del last, answered_at, skew_s
    return lifecycle.Verdict.COMPLETE if result.success else lifecycle.Verdict.FAIL


RESHARE = Rules(operation=Operation.RESHARE, owners=("alice",), answers=(SUCCESS,))


@pytest.mark.parametrize(
    ("rules", "violation"),
    [
        (Rules(compare_and_set=False), "claimed or signed twice"),
        (Rules(fence=False), "published twice"),
        (Rules(outcome=always_none), "outcome none, and the nodes have it"),
        (Rules(ack_after_final=False), "acked without a final event"),
        (Rules(judge=believe_first), "final event"),
        (Rules(owners=("alice",), look_before_refusing=False), "rejected, and its operation ended"),
        (replace(RESHARE, next_step=publish_again), "more publications than attempts"),
        (Rules(owners=("alice", "mallory"), next_step=no_conflict, compare_and_set=False), ""),
    ],
    ids=["compare-and-set", "fence", "outcome", "ack", "judgement", "look", "publishing", "both"],
)
def test_without_a_guard_something_goes_wrong(rules: Rules, violation: str) -> None:
    found = Explorer(rules).explore()
    assert found is not None
    assert violation in found
