"""What `initiator nats-config` writes, at work: the files as they are, every party with its own login.

Here the whole story, in the two forms that have the most to go wrong, with daemon and authorizer as processes. What
each login may in each form, and who is refused: tests/integration/natsconfig.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from initiator import keyfile
from initiator.client import InitiatorClient
from initiator.core.signer import PublicKey
from tests.support import command
from tests.support.deployment import CHAIN_CODE, Deployment

ORDERS: tuple[tuple[str, ...], ...] = (
    ("freeze", "--all", "--reason", "a drill"),
    ("freeze", "--list"),
    ("unfreeze", "--all"),
    ("stopline", "set", "100", "--reason", "a drill"),
    ("stopline", "show"),
    ("stopline", "raise", "200", "--reason", "a drill"),
    ("stopline", "clear", "--reason", "a drill"),
)


@pytest.mark.parametrize("kind", ["plain-mtls", "jwt-tls"])
async def test_every_party_does_its_part(kind: str, tmp_path: Path) -> None:
    one = Deployment(tmp_path, kind, {"payments": {}, "treasury": {"operations": ["sign"]}})
    one.generate()
    risk, policy = authorized(one)
    settings = {"policy": {"file": policy}, "audit": {"exporter": "max"}}
    async with one.serving(), one.nodes({"risk": risk}), one.daemon(**settings), one.authorizer("risk", one_key(one)):
        options = one.options("payments")
        servers = options.pop("servers")
        async with InitiatorClient.connect(servers, client="payments", chain_code=CHAIN_CODE, **options) as client:
            wallet = await client.keygen(wallet_id="w-1")
            signature = await client.sign("w-1", b"pay", tx_id="tx_1", key_type="ed25519")
        assert wallet.wallet_id == "w-1"
        assert signature.tx_id == "tx_1"  # verified by the client, or it would have raised
        await operators_commands_work(one, settings)
        await an_auditor_exports_and_verifies(one)


def authorized(one: Deployment) -> tuple[PublicKey, str]:
    """An authorizer's key, and a policy file that wants its signature for everything."""
    content, public = keyfile.generate("ed25519")
    path = one_key(one)
    path.touch(mode=0o600)
    path.write_text(content)
    policy = one.folder / "policy.yaml"
    rules = [{"id": "everything", "effect": "allow", "authorizers": ["risk"]}]
    known = {"risk": {"algorithm": public.algorithm, "public_key": public.hex}}
    policy.write_text(yaml.safe_dump({"version": 1, "authorizers": known, "rules": rules}))
    return public, str(policy)


def one_key(one: Deployment) -> Path:
    return one.folder / "risk.key"


async def operators_commands_work(one: Deployment, settings: dict[str, Any]) -> None:
    """With a login of the operator's own, in the place of the daemon's."""
    path = one.write_settings(nats=one.login("operator-ann"), **settings)
    for words in (("top", "--once", "--json"), ("dlq", "ls"), ("check",), *ORDERS):
        done = await typed(path, *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert "violation" not in done.stderr.lower(), (words, done.stderr)
        if words[0] == "top":
            assert len(json.loads(done.stdout)["replicas"]) == 1
        if words[0] == "freeze" and words[1] == "--all":
            assert "1 replica confirmed" in done.stdout


async def an_auditor_exports_and_verifies(one: Deployment) -> None:
    """With the file that was written for it, and nothing else."""
    path, log, key = one.out / "auditor-max.yaml", one.folder / "log", str(one.folder / "audit.key")
    made = await typed(path, "audit", "key", key, "--name", "audit.example.com/initiator")
    exported = await typed(path, "audit", "export", str(log), "--key-file", key, "--json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["size"] >= 8
    daemon = await one.connect("initiator")
    told = await daemon.jetstream().get_last_msg("INITIATOR_EXPORTED", "initiator.exported.max")
    assert json.loads(told.data or b"")["sequence"] == json.loads(exported.stdout)["sequence"]
    await daemon.close()
    keys = ("--key", made.stdout.strip().splitlines()[-1], "--initiator-key", one.pin())
    verified = await typed(path, "audit", "verify", str(log), *keys)
    assert verified.returncode == 0, verified.stdout + verified.stderr


async def typed(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(command.run, "--config", str(path), *words)


async def test_the_policys_authorizers_have_accounts_without_being_named(tmp_path: Path) -> None:
    one = Deployment(tmp_path, "plain-nkey", {"payments": {}})
    _, policy = authorized(one)
    one.config.write_text(json.dumps({"clients": {"payments": {}}, "policy": {"file": policy}}))
    done = await typed(one.config, "nats-config", str(one.out), "--json")
    assert done.returncode == 0, done.stderr
    assert "logins/authorizer-risk.nk" in json.loads(done.stdout)["made"]
    assert "authorizer-risk.yaml" in json.loads(done.stdout)["changed"]
