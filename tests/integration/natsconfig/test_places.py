"""What was written is at work wherever it is: under any folder's name, at an IPv6 address, in a JetStream domain."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from initiator.client import InitiatorClient
from tests.support.deployment import CHAIN_CODE, Deployment

FOLDER = 'Zürich "東京" 🦀\\'


def has_v6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", ["plain-nkey", "jwt-tls"])
async def test_an_odd_folder_version_6_and_a_domain(kind: str, tmp_path: Path) -> None:
    host = "[::1]" if has_v6() else "127.0.0.1"
    one = Deployment(tmp_path / FOLDER, kind, {"payments": {}}, host=host, domain="hub")
    one.generate()
    async with one.serving(), one.nodes(), one.daemon_here():
        options = one.options("payments")
        servers = options.pop("servers")
        assert host in servers[0]
        async with InitiatorClient.connect(servers, client="payments", chain_code=CHAIN_CODE, **options) as client:
            assert (await client.keygen("w-1")).wallet_id == "w-1"
        for who, prefix in (
            ("initiator", "$JS.hub.API"), ("operator-ann", "$JS.hub.API"), ("auditor-max", "$JS.initiator.API"),
        ):  # fmt: skip
            nc = await one.connect(who, inbox_prefix="_INBOX_initiator" if who != "auditor-max" else "_INBOX")
            answer = json.loads((await nc.request(f"{prefix}.STREAM.INFO.INITIATOR_EVENTS", b"", timeout=10)).data)
            assert answer["state"]["messages"] > 0, answer
            await nc.close()
