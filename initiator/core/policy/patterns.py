"""What a policy compares with: text with wildcards, derivation paths, times of the week.

Each is parsed once, from the text of a policy file, and raises ValueError with what was expected; each then only says
whether it holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

CLIENT = "{client}"
"""Stands in a pattern for the name of whoever asks."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|[{}]")
_LEVEL = re.compile(r"(0|[1-9][0-9]{0,9})(?:-(0|[1-9][0-9]{0,9}))?")
_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
MAX_LEVEL = 2**31


def check_text(pattern: str) -> str:
    """The pattern, if it is one: any text, `*` for any characters, `?` for one, `{client}` for who asks.

    Raises:
        ValueError: empty, or with braces around something else.
    """
    if not pattern:
        raise ValueError("expected a pattern, got an empty one")
    for found in _PLACEHOLDER.findall(pattern):
        if found != CLIENT:
            raise ValueError(f"expected only {CLIENT} in braces, got {found[:32]!a}")
    return pattern


def compile_texts(patterns: Sequence[str], client: str) -> re.Pattern[str]:
    """One expression that a text matches in full if any of the patterns holds for `client`."""
    alternatives = (_expression(pattern, client) for pattern in patterns)
    return re.compile("|".join(f"(?:{one})" for one in alternatives), re.DOTALL)


def _expression(pattern: str, client: str) -> str:
    first, *others = [_fixed(part, client) for part in re.split(r"\*+", pattern)]
    if not others:
        return first
    *middle, last = others
    # backtracking: a text with many places to try would stall everybody; the first that fits is as good as any
    return first + "".join(f"(?>.*?{part})" for part in middle) + f".*{last}"


def _fixed(part: str, client: str) -> str:
    # injection: a client's name is put in as text, never as a pattern
    special = {"?": ".", CLIENT: re.escape(client)}
    return "".join(special.get(one, re.escape(one)) for one in re.split(r"(\?|\{client\})", part))


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A derivation path level by level: a number, a range `0-99`, `*` for any; at the end `**` for any further levels.

    Attributes:
        levels: lowest and highest value of each level.
        open_ended: any number of levels may follow.
    """

    text: str
    levels: tuple[tuple[int, int], ...]
    open_ended: bool

    def holds(self, path: tuple[int, ...] | None) -> bool:
        """Whether a request's path (None: the wallet's own key) is one of these."""
        levels = path or ()
        if len(levels) < len(self.levels) or (len(levels) > len(self.levels) and not self.open_ended):
            return False
        return all(low <= level <= high for level, (low, high) in zip(levels, self.levels, strict=False))


def parse_path(text: str) -> PathPattern:
    """Read `m/44/60/0/*`, with or without `m/`; `m` alone is the wallet's own key, without a path.

    Raises:
        ValueError: with the level that is wrong.
    """
    parts = text.removeprefix("m/").split("/") if text not in ("m", "m/") else []
    open_ended = bool(parts) and parts[-1] == "**"
    levels = tuple(_level(part, text) for part in (parts[:-1] if open_ended else parts))
    return PathPattern(text, levels, open_ended)


def _level(part: str, path: str) -> tuple[int, int]:
    if part == "*":
        return 0, MAX_LEVEL - 1
    found = _LEVEL.fullmatch(part)
    if found is None:
        hint = ": hardened levels fail on the nodes" if part.endswith(("'", "h", "H")) else ""
        raise ValueError(
            f"expected levels such as 44, 0-99 or * (at the end **), got {part[:16]!a} in {path[:64]!a}{hint}"
        )
    low = int(found[1])
    high = int(found[2]) if found[2] else low
    if not low <= high < MAX_LEVEL:
        raise ValueError(f"expected a level below 2**31, a range from low to high, got {part[:32]!a} in {path[:64]!a}")
    return low, high


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Hours of some days of the week, by the wall clock of a zone; one over midnight belongs to the day it begins on.

    Attributes:
        days: 0 for Monday to 6.
        start, end: minutes of the day; the end is not part of it.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: tzinfo

    def holds(self, at: float) -> bool:
        """Whether a moment (Unix seconds) is within."""
        local = datetime.fromtimestamp(at, self.zone)
        minute, today = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return today in self.days and self.start <= minute < self.end
        yesterday = (local - timedelta(days=1)).weekday()
        return (today in self.days and minute >= self.start) or (yesterday in self.days and minute < self.end)


def parse_days(names: Sequence[str]) -> frozenset[int]:
    """Days by name: `mon`, or a range `mon-fri`, `sat-mon`.

    Raises:
        ValueError: no such day, or none at all.
    """
    found: set[int] = set()
    for name in names:
        first, dash, last = name.lower().partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise ValueError(f"expected days such as mon or mon-fri, got {name[:32]!a}")
        begin, length = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7
        found |= {(begin + step) % 7 for step in range(length + 1)}
    if not found:
        raise ValueError("expected at least one day")
    return frozenset(found)


def parse_clock(value: str | int) -> int:
    """Minutes of the day from `08:00`; `24:00` is the day's end.

    YAML reads an unquoted 18:00 as the number 1080, which is its minutes: the same.

    Raises:
        ValueError: no time of day.
    """
    if isinstance(value, str):
        found = _CLOCK.fullmatch(value)
        minutes = int(found[1]) * 60 + int(found[2]) if found else -1
    else:
        minutes = value
    # 20 is no hour: as a number it would be twenty minutes past midnight
    if isinstance(value, bool) or not 0 <= minutes <= DAY_MINUTES or (isinstance(value, int) and value < 60):
        raise ValueError(f"expected a time of day from 00:00 to 24:00, got {str(value)[:16]!a}")
    return minutes
