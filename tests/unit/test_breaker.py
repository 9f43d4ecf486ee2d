"""The circuit breaker, with hands that a test turns: when it opens, whom it lets through, how long it waits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.kms.breaker import Breaker, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@dataclass
class Hands:
    """A clock and a chance; a chance of 1 leaves a pause as it is."""

    time: float = 100.0
    luck: float = 1.0

    def breaker(self, failures: int = 3) -> Breaker:
        return Breaker(failures=failures, pause_s=1.0, pause_max_s=5.0, now=lambda: self.time, chance=lambda: self.luck)


@pytest.fixture
def hands() -> Hands:
    return Hands()


def ticket(breaker: Breaker) -> int:
    found = breaker.admit()
    assert found is not None
    return found


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(ticket(breaker))


def test_it_opens_after_so_many_failures_in_a_row(hands: Hands) -> None:
    breaker = hands.breaker(failures=3)
    fail(breaker, 2)
    breaker.succeeded(ticket(breaker))
    fail(breaker, 2)
    assert (breaker.state, breaker.wait_s) == (CLOSED, 0.0)
    fail(breaker)
    assert (breaker.state, breaker.wait_s) == (OPEN, 1.0)
    assert breaker.admit() is None


def test_a_failure_that_cost_a_timeout_opens_it_at_once(hands: Hands) -> None:
    breaker = hands.breaker(failures=3)
    breaker.failed(ticket(breaker), at_once=True)
    assert breaker.state is OPEN


def test_after_the_pause_one_call_is_let_through_and_nobody_else(hands: Hands) -> None:
    breaker = hands.breaker(failures=1)
    fail(breaker)
    hands.time += 0.99
    assert breaker.admit() is None
    hands.time += 0.01
    probe = ticket(breaker)
    assert breaker.state is HALF_OPEN
    assert [breaker.admit() for _ in range(10)] == [None] * 10
    assert breaker.wait_s > 0
    breaker.succeeded(probe)
    assert breaker.state is CLOSED
    assert breaker.admits


def test_pauses_double_up_to_the_longest_and_begin_anew_once_it_closed(hands: Hands) -> None:
    breaker = hands.breaker(failures=1)
    waits = []
    for _ in range(5):
        fail(breaker)
        waits.append(breaker.wait_s)
        hands.time += breaker.wait_s
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    breaker.succeeded(ticket(breaker))
    fail(breaker)
    assert breaker.wait_s == 1.0


@pytest.mark.parametrize(("luck", "wait_s"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_pauses_are_shortened_by_chance_to_no_less_than_half(hands: Hands, luck: float, wait_s: float) -> None:
    hands.luck = luck
    breaker = hands.breaker(failures=1)
    fail(breaker)
    assert breaker.wait_s == wait_s


def test_stragglers_from_before_neither_close_it_nor_make_its_pause_longer(hands: Hands) -> None:
    breaker = hands.breaker(failures=1)
    early = [ticket(breaker) for _ in range(4)]
    breaker.failed(early[0])
    breaker.failed(early[1])
    breaker.succeeded(early[2])
    assert (breaker.state, breaker.wait_s) == (OPEN, 1.0)
    hands.time += 1.0
    probe = ticket(breaker)
    breaker.succeeded(early[3])
    assert breaker.state is HALF_OPEN
    breaker.succeeded(probe)
    breaker.failed(early[0])
    assert breaker.state is CLOSED


def test_a_probe_that_says_nothing_leaves_the_next_one_free(hands: Hands) -> None:
    breaker = hands.breaker(failures=1)
    fail(breaker)
    hands.time += 1.0
    breaker.forget(ticket(breaker))
    assert breaker.state is OPEN
    breaker.succeeded(ticket(breaker))
    assert breaker.state is CLOSED
    breaker.forget(ticket(breaker))
    assert breaker.state is CLOSED


STEPS = st.lists(st.sampled_from(["ask", "good", "bad", "hung", "forget", "wait"]), max_size=80)


@given(STEPS)
def test_whatever_happens_an_open_one_has_one_probe_at_most_and_never_sticks(steps: list[str]) -> None:
    hands = Hands()
    breaker = hands.breaker(failures=2)
    probes: list[int] = []
    held: list[int] = []
    for step in steps:
        if step == "wait":
            hands.time += 1.0
        elif step == "ask":
            open_before = breaker.state is OPEN
            if (found := breaker.admit()) is not None:
                held.append(found)
                probes = [*probes, found] if open_before else probes
        elif held:
            mine = held.pop(0)
            probes = [probe for probe in probes if probe != mine]
            end = {"good": breaker.succeeded, "bad": breaker.failed, "forget": breaker.forget}
            if step == "hung":
                breaker.failed(mine, at_once=True)
            else:
                end[step](mine)
        assert len(probes) <= 1
    for mine in held:
        breaker.failed(mine)
    hands.time += 5.0
    assert breaker.admits
