"""A wallet and a signature on every form that `initiator nats-config` writes: the files as they are, every party."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from initiator.client import InitiatorClient
from tests.support.deployment import CHAIN_CODE, KINDS, Deployment, deployed
from tests.support.environment import environment


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wallet_and_a_signature(kind: str, tmp_path: Path) -> None:
    async with deployed(tmp_path, kind, {"payments": {}, "treasury": {"operations": ["sign"]}}) as one:
        options = one.options("payments")
        servers = options.pop("servers")
        async with InitiatorClient.connect(servers, client="payments", chain_code=CHAIN_CODE, **options) as client:
            wallet = await client.keygen(wallet_id="w-1")
            signature = await client.sign("w-1", b"pay", tx_id="tx_1", key_type="ed25519")
        assert wallet.wallet_id == "w-1"
        assert signature.tx_id == "tx_1"  # verified by the client, or it would have raised
        await operators_commands_work(one)


async def operators_commands_work(one: Deployment) -> None:
    """With a login of the operator's own, in the place of the daemon's."""
    path = one.write_settings(nats=one.login("operator-ann"))
    for words in (["top", "--once", "--json"], ["dlq", "ls"], ["check"]):
        command = [sys.executable, "-m", "initiator", "--config", str(path), *words]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False, env=environment()
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert "violation" not in done.stderr.lower(), (words, done.stderr)
        if words[0] == "top":
            assert len(json.loads(done.stdout)["replicas"]) == 1
