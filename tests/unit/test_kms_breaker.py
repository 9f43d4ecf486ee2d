"""The circuit breaker, with a clock of its own."""

from __future__ import annotations

from initiator.kms.breaker import FAILURES, OPEN_MAX_S, OPEN_S, Breaker


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    assert [breaker.failed(now) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    return breaker


def test_it_opens_after_some_failures_in_a_row() -> None:
    breaker = opened()
    assert not breaker.closed
    assert not breaker.admits(100.0 + OPEN_S - 0.1)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed(0)
    assert breaker.succeeded() is False
    for _ in range(FAILURES - 1):
        assert breaker.failed(0) is False
    assert breaker.closed


def test_one_probe_at_a_time() -> None:
    breaker = opened()
    due = breaker.probe_at
    assert due == 100.0 + OPEN_S
    assert [breaker.admits(due), breaker.admits(due)] == [True, False]
    breaker.left()  # it said nothing about the back end
    assert breaker.admits(due)
    assert breaker.succeeded() is True
    assert breaker.closed


def test_each_failed_probe_doubles_the_wait_up_to_a_limit() -> None:
    breaker = opened(0.0)
    waits = []
    for _ in range(6):
        now = breaker.probe_at
        assert breaker.admits(now)
        assert breaker.failed(now) is False  # it was open before
        waits.append(breaker.probe_at - now)
    assert waits == [10.0, 20.0, 40.0, OPEN_MAX_S, OPEN_MAX_S, OPEN_MAX_S]


def test_a_lie_opens_it_at_once() -> None:
    assert Breaker().failed(0.0, at_once=True) is True
