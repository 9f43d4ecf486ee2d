"""`initiator dev --once`, as a user types it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("kms", ["moto", "local", pytest.param("localstack", marks=pytest.mark.slow)])
@pytest.mark.parametrize("nodes", ["scoped", "unscoped"])
def test_the_main_job_is_shown_and_every_check_holds(kms: str, nodes: str) -> None:
    command = [sys.executable, "-m", "initiator", "dev", "--once", "--kms", kms, "--nodes", nodes]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for promised in (
        "secp256k1 signature verifies under the wallet's child key",
        "ed25519 signature verifies under the wallet's child key",
        "the wallet's public key is unchanged",
        "refused by the nodes: invalid signature",
        "all checks passed",
    ):
        assert promised in shown.stdout


@pytest.mark.timeout(240)
def test_signed_requests_authorizers_a_strict_policy_and_an_audit_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "initiator", "dev", "--once", "--kms", "local", "--authorizers", "2"]
    command += ["--policy", "strict", "--audit-log", str(log)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for promised in (
        "signed by authorizer1, authorizer2, too",
        "without signature: refused by policy.rules.new-wallets",
        "a test wallet: refused by policy.rules.no-tests",
        "another path: refused by policy.rules.own-wallets",
        "verify with the files alone",
        "is proved to whoever has the log's public key",
        "all checks passed",
    ):
        assert promised in shown.stdout
    assert re.search(r"one changed byte is found: .*hash \d+ is not that of the entries below it", shown.stdout)
    [typed] = re.findall(r"verify it yourself: initiator (.*)", shown.stdout)
    again = [sys.executable, "-m", "initiator", *shlex.split(typed)]
    verified = subprocess.run(again, capture_output=True, text=True, timeout=30, check=False)
    assert verified.returncode == 0, verified.stdout
    bundle = next(path for path in (log / "tile" / "entries").rglob("*") if path.is_file())
    data = bytearray(bundle.read_bytes())
    data[-10] ^= 1
    bundle.write_bytes(data)
    broken = subprocess.run(again, capture_output=True, text=True, timeout=30, check=False)
    assert broken.returncode == 1
    assert re.search(r"^FAIL (entry \d+|tile/)", broken.stdout, re.MULTILINE)
