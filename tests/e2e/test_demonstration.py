"""`initiator dev --once`, as a user types it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("kms", ["moto", "local", pytest.param("localstack", marks=pytest.mark.slow)])
@pytest.mark.parametrize("nodes", ["scoped", "unscoped"])
def test_the_main_job_is_shown_and_every_check_holds(kms: str, nodes: str) -> None:
    command = [sys.executable, "-m", "initiator", "dev", "--once", "--kms", kms, "--nodes", nodes]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for promised in (
        "secp256k1 signature verifies under the wallet's child key",
        "ed25519 signature verifies under the wallet's child key",
        "the wallet's public key is unchanged",
        "refused by the nodes: invalid signature",
        "all checks passed",
    ):
        assert promised in shown.stdout
