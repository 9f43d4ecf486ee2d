"""A back end that is gone for a while, and the checks of those runs that last an hour."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.outage import PARTS, failures, outage

MISSING = {"kms": ["signer"], "nats": ["nats", "nodes", "orders"]}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", PARTS)
async def test_the_daemons_wait_say_why_and_go_on(tmp_path: Path, part: str) -> None:
    seen = await outage(part, 12, tmp_path, rate=2)
    assert failures(seen) == [], json.dumps(seen)
    missing = [line.split()[0][3:] for line in seen["readiness"].splitlines() if line.startswith("[-]")]
    assert missing == MISSING[part]
    assert seen["ready_after_s"] < 10
    assert seen["requests"] > 12
