"""`python -m initiator.dev.nodes` as a process: its lines, its login, its ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from .bench import desk, nats_server, spki_hex


@asynccontextmanager
async def nodes(*options: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "initiator.dev.nodes", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line(process: asyncio.subprocess.Process, event: str, **wanted: Any) -> dict[str, Any]:
    """The next line of one event with the wanted values."""
    assert process.stdout is not None
    while True:
        told: dict[str, Any] = json.loads(await process.stdout.readline())
        if told["event"] == event and wanted.items() <= told.items():
            return told


async def test_the_process_tells_what_its_nodes_do_and_ends_on_sigterm(
    url: str, key: ec.EllipticCurvePrivateKey
) -> None:
    async with (
        nodes("--servers", url, "--pubkey", spki_hex(key), "--forward-wait-s", "0.2") as process,
        desk(url, key) as requester,
    ):
        assert (await line(process, "cluster.started"))["nodes"] == ["node0", "node1", "node2"]
        await requester.send_keygen("w1")
        await line(process, "node.verified", op="keygen", id="w1")
        await line(process, "node.answered", op="keygen", id="w1", result="success", first=True)
        await requester.send_keygen("w2", tamper={"wallet_id": "w3"})
        refused = await line(process, "node.refused", op="keygen", id="w3")
        assert refused["reason"] == "invalid signature"
        process.send_signal(signal.SIGTERM)
        await line(process, "cluster.stopped")
        assert await process.wait() == 0


@pytest.mark.parametrize("way", ["environment", "file"])
async def test_the_nodes_log_in_with_a_password_that_no_process_list_shows(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey, way: str
) -> None:
    (tmp_path / "password").write_text("secret\n")
    given = ["--password-file", str(tmp_path / "password")] if way == "file" else []
    environment = {} if way == "file" else {"NODES_PASSWORD": "secret"}
    async with nats_server(tmp_path, "--user", "nodes", "--pass", "secret") as url:
        options = ("--servers", url, "--pubkey", spki_hex(key), "--user", "nodes", *given)
        async with nodes(*options, **environment) as process:
            await line(process, "cluster.started")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--pubkey", "zz"), "expected hex or base64"),
        (("--pubkey", "00", "--algorithm", "ed25519"), "An Ed25519 public key is 32 bytes long"),
        (("--pubkey", "GOOD", "--chain-code", "00"), "chain_code: expected 64 hex digits"),
        (("--pubkey", "GOOD", "--threshold", "3"), "threshold: expected 1 to 2, got 3"),
        (("--pubkey", "GOOD", "--password-file", "/nowhere/at/all"), "No such file"),
        (("--pubkey", "GOOD", "--authorizer", "a:rsa:00"), "expected ID:ALGORITHM:HEX"),
        ((), "--pubkey"),
    ],
)
async def test_options_that_make_no_sense_end_it_with_2(
    key: ec.EllipticCurvePrivateKey, options: tuple[str, ...], words: str
) -> None:
    given = [spki_hex(key) if option == "GOOD" else option for option in options]
    async with nodes(*given) as process:
        _, told = await process.communicate()
    assert process.returncode == 2
    assert words in told.decode()
    assert "Traceback" not in told.decode()


async def test_a_foreign_stream_ends_it_with_1_and_the_servers_words(url: str, key: ec.EllipticCurvePrivateKey) -> None:
    async with desk(url, key) as requester:
        await requester.js.add_stream(name="mpc", subjects=["mpc.mpc_keygen_result.>"])
    async with nodes("--servers", url, "--pubkey", spki_hex(key)) as process:
        _, told = await process.communicate()
    assert process.returncode == 1
    assert "10052" in told.decode()
    assert "Traceback" not in told.decode()
