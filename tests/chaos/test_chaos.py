"""The whole system under faults, and daemons that deserve to be caught."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.chaos.judge import ZEROS
from tests.chaos.profile import Profile
from tests.chaos.run import failures, run

# every seed that ever failed stays here
SEEDS = [1]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
async def test_faults_lose_nothing_repeat_nothing_and_leave_nothing_stuck(tmp_path: Path, seed: int) -> None:
    profile = Profile(duration_s=60, seed=seed, rate=12)
    verdict, findings = await run(profile, tmp_path)
    assert failures(profile, verdict) == [], json.dumps(findings)
    assert verdict["requests"] > 400
    assert sum(verdict["faults"].values()) >= 30


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "layers", "found"),
    [
        ("ack_early", ("replicas", "bus", "kms"), "lost"),
        ("skip_claim", (), "twice"),
        ("skip_verification", ("kms", "nodes"), "invalid"),
    ],
)
async def test_a_sabotaged_daemon_is_caught(tmp_path: Path, kind: str, layers: tuple[str, ...], found: str) -> None:
    command = (sys.executable, "-m", "tests.chaos.sabotage", kind)
    verdict, _ = await run(
        Profile(duration_s=10, seed=3, rate=30, expiry_s=15, result_timeout_s=5), tmp_path, command, layers
    )
    assert verdict[found] > 0, {name: verdict[name] for name in ZEROS}
