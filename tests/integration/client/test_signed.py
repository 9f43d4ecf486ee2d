"""The client under a policy that wants its signature, in Python and from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
import pytest_asyncio

from initiator.client import InitiatorClient, RejectedError, RequestSigner, SyncInitiatorClient
from initiator.client.signing import new_seed
from tests.support import command
from tests.support.governed import KEYGEN, Governed
from tests.support.harness import Bench, bench, running


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("signed")) as ready:
        yield ready


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "alice.nk"
    path.touch(mode=0o600)
    path.write_text(new_seed())
    return path


async def answer_all(server: Bench) -> None:
    """A node that makes every wallet it hears of."""
    done: set[str] = set()
    while True:
        for event in list(server.seen):
            if event["state"] == "published" and event["id"] not in done:
                done.add(event["id"])
                await server.answer("keygen", event["id"], server.keygen_success(event["id"]))
        await asyncio.sleep(0.01)


async def test_a_client_that_signs_is_served_and_one_that_does_not_is_told(
    server: Bench, tmp_path: Path, key: Path
) -> None:
    governed, signer = Governed(server, tmp_path), RequestSigner.from_file(key)
    governed.write([KEYGEN | {"signed": True}], clients={"alice": {"keys": [signer.public_key]}})
    async with running(governed.app()):
        nodes = asyncio.create_task(answer_all(server))
        try:
            async with InitiatorClient.connect(server.url, client="alice", signer=signer) as client:
                wallet = await client.keygen(f"w{secrets.token_hex(5)}", labels={"for": "test"})
                assert wallet.ed25519
            nc = await nats.connect(server.url)
            async with InitiatorClient(nc, client="alice", signer=signer) as client:
                assert await client.keygen(wallet.wallet_id) == wallet  # joins, with a signature of its own
            await nc.close()
            async with InitiatorClient.connect(server.url, client="alice") as client:
                with pytest.raises(RejectedError) as refused:
                    await client.keygen(f"w{secrets.token_hex(5)}")
            assert (refused.value.code, refused.value.field) == ("POLICY_DENIED", "policy.rules.keygen")
            await asyncio.to_thread(synchronously, server.url, signer)
            await from_the_command_line(server, tmp_path, key)
        finally:
            nodes.cancel()


def synchronously(url: str, signer: RequestSigner) -> None:
    with SyncInitiatorClient.connect(url, client="alice", signer=signer) as client:
        client.keygen(f"w{secrets.token_hex(5)}")


async def from_the_command_line(server: Bench, folder: Path, key: Path) -> None:
    context = folder / "client.yaml"
    context.write_text(json.dumps({"client": "alice", "nats": {"servers": [server.url]}, "signing_key_file": str(key)}))

    async def request(*options: str) -> subprocess.CompletedProcess[str]:
        words = ["request", "keygen", "--wait", *options, "--wallet-id", f"w{secrets.token_hex(5)}"]
        return await asyncio.to_thread(command.run, *words)

    assert (await request("--context", str(context))).returncode == 0
    plain = ("--server", server.url, "--client", "alice")
    assert (await request(*plain, "--signing-key", str(key))).returncode == 0
    assert (await request(*plain)).returncode == 3
    os.chmod(key, 0o644)
    refused = await request(*plain, "--signing-key", str(key))
    assert refused.returncode == 3
    assert "others cannot read" in refused.stdout + refused.stderr
