"""The table of attacks: each row names tests, and each of these is there."""

from __future__ import annotations

import re

from tests.support.pages import ROOT

ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
LEAST = 40


def rows() -> list[tuple[int, str, list[str]]]:
    """Number, attack and tests of each row."""
    text = (ROOT / "docs" / "security.md").read_text()
    return [(int(number), attack, re.findall(r"`([^`]+)`", tests)) for number, attack, _, tests in ROW.findall(text)]


def test_there_are_enough_and_they_are_numbered() -> None:
    found = rows()
    assert len(found) >= LEAST
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))


def test_every_attack_has_a_test_that_is_there() -> None:
    missing = []
    for number, attack, tests in rows():
        assert tests, f"{number}: {attack}"
        for name in tests:
            path, _, function = name.partition("::")
            file = ROOT / "tests" / path
            there = file.is_file() and re.search(rf"^(async )?def {function}\(", file.read_text(), re.MULTILINE)
            if not there:
                missing.append(f"{number}: {name}")
    assert missing == []
