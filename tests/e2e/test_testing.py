"""The test kit, as another project's tests use it: in a pytest of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from initiator.client import StillRunningError
from initiator.testing import run_stack

THEIR_TESTS = """
import asyncio
import hashlib
import pytest


def test_a_wallet_and_a_signature(initiator_client):
    wallet = initiator_client.keygen("w-1")
    signed = initiator_client.sign("w-1", hashlib.sha256(b"pay").digest(), tx_id="tx1", key_type="secp256k1")
    assert signed.verified_by == "client"
    assert wallet.derive([44, 60]).secp256k1 != wallet.secp256k1


def test_the_same_with_an_event_loop(initiator_stack):
    async def ask():
        async with initiator_stack.connect_async("bob") as bob:
            return await bob.keygen("w-2")

    assert asyncio.run(ask()).wallet_id == "w-2"


def test_a_daemon_that_dies(initiator_stack, initiator_client):
    initiator_stack.kill_daemon()
    initiator_stack.start_daemon()
    assert initiator_client.keygen("w-3").wallet_id == "w-3"
    assert "daemon.started" in initiator_stack.daemon_log()
"""


@pytest.mark.parametrize("kms", ["local", "moto"])
def test_another_projects_tests_get_a_whole_system(tmp_path: Path, kms: str) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["initiator.testing"]\n')
    (tmp_path / "pytest.ini").write_text(f"[pytest]\ninitiator_kms = {kms}\n")
    (tmp_path / "test_theirs.py").write_text(THEIR_TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_faults_on_demand() -> None:
    with run_stack(settings={"worker": {"ack_wait_s": 1.5, "heartbeat_s": 0.5}}) as stack:
        assert len(bytes.fromhex(stack.public_key)) == 91
        with stack.connect() as alice:
            stack.stop_daemon()
            with pytest.raises(StillRunningError) as error:
                alice.keygen("w-1", timeout=1)
            stack.start_daemon()
            assert alice.result(error.value.handle, 20) == alice.keygen("w-1")
        assert stack.folder.is_dir()
    assert not stack.folder.exists()
