"""The files that the documentation points a reader at do what it says; its own code: tests/docs."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from initiator.dev.servers import NatsHost, NatsProcess
from initiator.dev.stack import Stack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def nats_host() -> NatsHost:
    """One is enough: what is tested is what a reader types."""
    return NatsProcess()


def shell(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("INITIATOR_")} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


def login(stack: Stack) -> dict[str, str]:
    return {"NATS_URL": stack.nats_url, "ALICE_USER": "alice", "ALICE_PASSWORD": stack.password("alice")}


async def test_the_first_signature_over_plain_nats(stack: Stack) -> None:
    script = str(ROOT / "docs" / "examples" / "plain_nats.py")
    shown = await asyncio.to_thread(shell, sys.executable, script, **login(stack))
    assert shown.returncode == 0, shown.stderr
    assert re.fullmatch(
        r"keygen w_\w{6}: accepted published completed \n  ed25519 public key [0-9a-f]{64}\n"
        r"sign tx_\w{6}: accepted published completed \n  signature [0-9a-f]{128}\n",
        shown.stdout,
    ), shown.stdout


def test_the_shipped_accounts_are_a_configuration_that_nats_server_takes(tmp_path: Path) -> None:
    accounts = ROOT / "deploy" / "nats" / "accounts.conf"
    names = set(re.findall(r"\$([A-Z_]+_PASSWORD)", accounts.read_text()))
    config = tmp_path / "nats.conf"
    config.write_text(f'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "{tmp_path}" }}\ninclude {accounts.name}\n')
    (tmp_path / accounts.name).write_text(accounts.read_text())
    binary = str(Path(sys.executable).parent / "nats-server")
    checked = shell(binary, "-t", "-c", str(config), **dict.fromkeys(names, "x"))
    assert checked.returncode == 0, checked.stderr


def test_the_shipped_accounts_are_those_that_the_code_grants() -> None:
    """One list of who may do what: in `initiator dev`, in these tests and in production."""
    from initiator.natsconfig import __main__ as example

    folder = ROOT / "deploy" / "nats"
    again = "run `python -m initiator.natsconfig deploy/nats`"
    assert (folder / "accounts.conf").read_text() == example.accounts_conf(), again
    assert (folder / "claims.json").read_text() == example.claims_json(), again
