"""So many a second for each client, in any order of questions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from initiator.flow.pace import BURST_S, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(
    st.floats(1, 1000),
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), min_size=1, max_size=200),
)
def test_no_client_gets_more_than_its_rate_and_one_burst(per_s: float, asked: list[tuple[str, float]]) -> None:
    clock = Clock()
    pace = Pace(per_s, clock)
    due: dict[str, list[float]] = {"a": [], "b": []}
    for client, pause in asked:
        clock.now += pause / per_s
        due[client].append(clock.now + pace.take(client))
    for times in due.values():
        assert times == sorted(times)
        for first, at in enumerate(times):
            in_a_second = sum(at <= other < at + 1.0 for other in times[first:])
            assert in_a_second <= per_s * (1.0 + BURST_S) + 1.5


def test_one_clients_questions_take_no_place_of_anothers() -> None:
    pace = Pace(10, Clock())
    waits = [round(pace.take("a"), 6) for _ in range(30)]
    assert waits[:11] == [0.0] * 11
    assert waits[-1] == 1.9
    assert pace.take("b") == 0.0


def test_what_is_not_due_now_is_not_taken() -> None:
    clock = Clock()
    pace = Pace(2, clock)
    assert [pace.take_if_due("a") for _ in range(5)] == [True, True, True, False, False]
    clock.now += 0.5
    assert [pace.take_if_due("a") for _ in range(2)] == [True, False]


def test_it_remembers_no_client_for_ever() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    for number in range(3000):
        clock.now += 0.2
        pace.take(f"c{number}")
    assert len(pace._until) <= 1024
