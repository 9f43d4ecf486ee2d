"""The runbook has a heading for every code, and no heading for a code that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from initiator.errors import Code

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"


def test_every_code_has_its_heading_and_every_heading_its_code() -> None:
    headings = re.findall(r"^### ([A-Z_]+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == {code.value for code in Code}
