"""Two Regions, and what the log is told of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.kms_pair import FIRST, SECOND, Moves, Pair
from tests.support.kms_stub import kms_stub


@pytest.fixture
def pair() -> Iterator[Pair]:
    with kms_stub(FIRST) as first, kms_stub(SECOND) as second:
        yield Pair(first, second)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Moves:
    """What the log was told: level, Region, state, code."""
    lines: Moves = []

    class Log:
        def __getattr__(self, level: str) -> Any:
            def tell(event: str, *, region: str, state: str, code: str, reason: str) -> None:
                assert event == "signer.region_changed"
                assert bool(reason) == bool(code)
                lines.append((level, region, state, code))

            return tell

    monkeypatch.setattr("initiator.kms.region.log", Log())
    return lines
