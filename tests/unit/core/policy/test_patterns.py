"""Text with wildcards, derivation paths and hours of the week."""

from __future__ import annotations

import fnmatch
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core.policy import patterns

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("pattern", "text", "holds"),
    [
        ("pay-*", "pay-1", True),
        ("pay-*", "pay-", True),
        ("pay-*", "xpay-1", False),
        ("pay-?", "pay-12", False),
        ("*", "", True),
        ("a.c", "abc", False),
        ("a+", "aa", False),
        ("eip155:*", "eip155:1", True),
        ("{client}-*", "alice-7", True),
        ("{client}-*", "bob-7", False),
        ("a*", "a\nb", True),
        ("[ab]", "a", False),
    ],
)
def test_text(pattern: str, text: str, holds: bool) -> None:
    compiled = patterns.compile_texts([patterns.check_text(pattern)], "alice")
    assert (compiled.fullmatch(text) is not None) is holds


def test_a_clients_name_is_text_and_no_pattern() -> None:
    assert patterns.compile_texts(["{client}"], "*").fullmatch("anything") is None
    assert patterns.compile_texts(["{client}"], ".*").fullmatch("anything") is None


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_pattern_without_wildcards_holds_for_itself_alone(one: str, other: str) -> None:
    plain = one.translate({ord(character): "x" for character in "*?{}"})
    compiled = patterns.compile_texts([plain], "alice")
    assert compiled.fullmatch(plain) is not None
    assert (compiled.fullmatch(other) is not None) is (other == plain)


@given(st.text("ab", max_size=8), st.text("ab*?", min_size=1, max_size=6))
def test_wildcards_mean_what_fnmatch_means(text: str, pattern: str) -> None:
    compiled = patterns.compile_texts([pattern], "alice")
    assert (compiled.fullmatch(text) is not None) is fnmatch.fnmatchcase(text, pattern)


def test_no_text_makes_a_pattern_slow() -> None:
    """Each star multiplies the work of a matcher that tries all places: twenty would never end."""
    compiled = patterns.compile_texts(["*-" * 20 + "hot"], "alice")
    assert compiled.fullmatch("-" * 10_000) is None


@pytest.mark.parametrize("pattern", ["", "{Client}", "{client", "x}", "{wallet}", "{}"])
def test_text_that_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        patterns.check_text(pattern)


@pytest.mark.parametrize(
    ("text", "path", "holds"),
    [
        ("m", None, True),
        ("m", (), True),
        ("m", (0,), False),
        ("44/60/0/0/*", (44, 60, 0, 0, 7), True),
        ("m/44/60/0/0/*", (44, 60, 0, 0, 2**31 - 1), True),
        ("44/60/0/0/*", (44, 60, 0, 0), False),
        ("44/60/0/0/*", (44, 60, 0, 0, 7, 1), False),
        ("44/60/0/0/*", None, False),
        ("44/60/0-9/**", (44, 60, 9), True),
        ("44/60/0-9/**", (44, 60, 9, 1, 2, 3), True),
        ("44/60/0-9/**", (44, 60, 10), False),
        ("44/60/0-9/**", (44, 60), False),
        ("**", None, True),
        ("**", (1, 2), True),
        ("*", (5,), True),
    ],
)
def test_paths(text: str, path: tuple[int, ...] | None, holds: bool) -> None:
    assert patterns.parse_path(text).holds(path) is holds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("44'/60", "hardened levels fail on the nodes"),
        ("44h", "hardened levels fail on the nodes"),
        ("", "expected levels"),
        ("44//0", "expected levels"),
        ("**/44", "expected levels"),
        ("2147483648", r"below 2\*\*31"),
        ("9-3", "from low to high"),
        ("-1", "expected levels"),
        ("044", "expected levels"),
        ("m/m", "expected levels"),
    ],
)
def test_paths_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        patterns.parse_path(text)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2026-11-26 06:59", False),  # a Thursday, 07:59 in Berlin
        ("2026-11-26 07:00", True),
        ("2026-11-26 16:59:59", True),
        ("2026-11-26 17:00", False),
        ("2026-11-28 10:00", False),  # Saturday
        ("2026-07-02 06:00", True),  # summer time: 08:00
        ("2026-07-02 16:00", False),
    ],
)
def test_hours_go_by_the_wall_clock_of_their_zone(moment: str, holds: bool) -> None:
    hours = patterns.TimeWindow(patterns.parse_days(["mon-fri"]), 8 * 60, 18 * 60, BERLIN)
    assert hours.holds(at(moment)) is holds


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2026-11-27 21:59", False),  # Friday
        ("2026-11-27 22:00", True),
        ("2026-11-28 05:59", True),  # still Friday's
        ("2026-11-28 06:00", False),
        ("2026-11-28 23:00", False),
        ("2026-11-27 03:00", False),  # Thursday's night
    ],
)
def test_a_night_belongs_to_the_day_it_begins_on(moment: str, holds: bool) -> None:
    night = patterns.TimeWindow(patterns.parse_days(["fri"]), 22 * 60, 6 * 60, UTC)
    assert night.holds(at(moment)) is holds


def test_days() -> None:
    assert patterns.parse_days(["mon", "Wed-fri"]) == {0, 2, 3, 4}
    assert patterns.parse_days(["sat-mon"]) == {5, 6, 0}
    for wrong in (["monday"], ["mon-"], ["mon-x"], [""], []):
        with pytest.raises(ValueError, match="expected"):
            patterns.parse_days(wrong)


@pytest.mark.parametrize(("value", "minutes"), [("08:00", 480), ("24:00", 1440), ("00:00", 0), (1080, 1080)])
def test_a_time_of_day(value: str | int, minutes: int) -> None:
    assert patterns.parse_clock(value) == minutes


@pytest.mark.parametrize("value", ["8:00", "24:01", "12:60", "noon", -1, 1441, True, 20])
def test_no_time_of_day(value: str | int) -> None:
    with pytest.raises(ValueError, match="expected a time of day"):
        patterns.parse_clock(value)
