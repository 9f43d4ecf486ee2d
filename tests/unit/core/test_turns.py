"""Weighted turns: shares as configured, nobody starves, nobody saves up turns."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from initiator.core.turns import Turns

WEIGHTS = {"a": 1, "b": 3}


def turns(weights: dict[str, int] = WEIGHTS) -> Turns[str]:
    return Turns(lambda client: weights.get(client, 1))


def taken(queue: Turns[str], count: int) -> list[str]:
    return [item for item in (queue.pop() for _ in range(count)) if item is not None]


def test_an_empty_queue_gives_nothing() -> None:
    queue = turns()
    assert queue.pop() is None
    assert len(queue) == 0


def test_one_client_is_served_in_its_order() -> None:
    queue = turns()
    for number in range(5):
        queue.add("a", str(number))
    assert taken(queue, 9) == ["0", "1", "2", "3", "4"]


def test_shares_follow_the_weights_while_both_wait() -> None:
    queue = turns()
    for _ in range(100):
        queue.add("a", "a")
        queue.add("b", "b")
    shares = Counter(taken(queue, 80))
    assert shares["b"] == 60
    assert shares["a"] == 20


def test_a_newcomer_waits_behind_no_backlog() -> None:
    queue = turns({})
    for _ in range(1000):
        queue.add("a", "a")
    taken(queue, 500)
    queue.add("b", "b")
    assert "b" in taken(queue, 2)


def test_whoever_was_away_saved_up_no_turns() -> None:
    queue = turns({})
    for _ in range(1000):
        queue.add("a", "a")
    taken(queue, 500)
    for _ in range(100):
        queue.add("b", "b")
    assert Counter(taken(queue, 100))["b"] <= 51


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=200))
def test_everything_comes_out_once_and_in_its_clients_order(moves: list[tuple[str, bool]]) -> None:
    queue: Turns[tuple[str, int]] = Turns(lambda client: ord(client) - 96)
    added: list[tuple[str, int]] = []
    out: list[tuple[str, int]] = []
    for number, (client, add) in enumerate(moves):
        if add:
            queue.add(client, (client, number))
            added.append((client, number))
        elif (item := queue.pop()) is not None:
            out.append(item)
        assert len(queue) == len(added) - len(out)
    while (item := queue.pop()) is not None:
        out.append(item)
    assert sorted(out, key=lambda item: item[1]) == added
    for client in "abcde":
        numbers = [number for name, number in out if name == client]
        assert numbers == sorted(numbers)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 50), min_size=2))
def test_nobody_waits_longer_than_the_others_weights_allow(weights: dict[str, int]) -> None:
    queue = turns(weights)
    rounds = sum(weights.values()) * 3
    for client in weights:
        for _ in range(rounds):
            queue.add(client, client)
    shares = Counter(taken(queue, rounds))
    for client, weight in weights.items():
        assert abs(shares[client] - 3 * weight) <= len(weights)
