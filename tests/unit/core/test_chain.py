"""Each acknowledged event is named by one later event, whatever is refused in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import chain
from initiator.core.chain import Chain, Link

WRITER = "0123456789abcdef"


def test_the_first_names_nobody_and_the_next_the_first() -> None:
    one = Chain(WRITER)
    first = one.link()
    assert first == Link(WRITER, ())
    one.stored(first, "a.b", b"data", 7)
    second = one.link()
    assert second.header == f"{WRITER} 7:{chain.digest('a.b', WRITER, b'data')}"
    parsed = chain.parse(second.header)
    assert parsed is not None
    assert (parsed.writer, parsed.names) == (WRITER, {7: chain.digest("a.b", WRITER, b"data")})
    assert one.link().names == ()


def test_names_of_a_lost_write_are_given_to_the_next_in_their_order() -> None:
    one = Chain(WRITER)
    for sequence in (1, 2, 3):
        one.stored(Link(WRITER, ()), "s", b"", sequence)
    lost = one.link()
    one.stored(Link(WRITER, ()), "s", b"", 4)
    one.lost(lost)
    assert [name.partition(":")[0] for name in one.link().names] == ["1", "2", "3", "4"]


def test_too_many_names_wait() -> None:
    one = Chain(WRITER)
    for sequence in range(1, chain.MOST_NAMES + 6):
        one.stored(Link(WRITER, ()), "s", b"", sequence)
    assert len(one.link().names) == chain.MOST_NAMES
    assert len(one.link().names) == 5


def test_a_digest_covers_every_part_and_where_it_ends() -> None:
    made = {chain.digest(*parts) for parts in (("a", "b", b"c"), ("ab", "", b"c"), ("a", "", b"bc"), ("", "ab", b"c"))}
    assert len(made) == 4


@pytest.mark.parametrize(
    "header",
    [
        "", "x", WRITER.upper(), f"{WRITER} ", f"{WRITER} 0:{'0' * 64}", f"{WRITER} 1:{'0' * 63}", f"{WRITER}  x",
        f"{WRITER} 1:{'0' * 64} 1:{'1' * 64}", " ".join([WRITER, *(f"{n}:{'0' * 64}" for n in range(1, 34))]),
    ],
)  # fmt: skip
def test_what_is_no_chain(header: str) -> None:
    assert chain.parse(header) is None


@given(st.lists(st.sampled_from(["begin", "store", "lose"]), max_size=60))
def test_every_stored_event_is_named_exactly_once_by_those_that_are_stored(steps: list[str]) -> None:
    one, under_way, sequence = Chain(WRITER), list[Link](), 0
    stored: dict[int, Link] = {}
    for step in steps:
        if step == "begin":
            under_way.append(one.link())
        elif under_way and step == "store":
            link, sequence = under_way.pop(0), sequence + 1
            one.stored(link, "s", b"", sequence)
            stored[sequence] = link
        elif under_way:
            one.lost(under_way.pop(0))
    for link in under_way:
        one.lost(link)
    while (last := one.link()).names:
        stored[max(stored) + 1] = last  # later ones, which nobody has named yet
    named = [int(name.partition(":")[0]) for link in stored.values() for name in link.names]
    assert sorted(named) == list(range(1, sequence + 1))
