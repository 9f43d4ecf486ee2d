"""What trust costs a request: `python -m benchmarks.trust_cost`; one JSON object.

The daemon's CPU time for one wallet, from its request to its verified result, with a local key: without a policy, with
one of a hundred rules, with limits, with signed requests, and with an authorizer who answers at once. Each variant has
a stack of its own; they take turns, so that a slow moment of the machine is nobody's alone.

What is always on, or beside the daemon, is measured by itself in the same run: the audit chain for each event that is
written (an operation writes three to five), and the exporter, from the record's stream to files.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import nats
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.msg import Msg

from initiator import log
from initiator.audit.exporter import Exporter
from initiator.audit.store import FileStore
from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.client import InitiatorClient, RequestSigner
from initiator.client.signing import new_seed
from initiator.config.schema import LogSettings, NatsSettings
from initiator.core import subjects
from initiator.core.authorization import Answer, decode_asking, encode_answer
from initiator.core.chain import Chain
from initiator.dev import accounts
from initiator.dev.stack import CHAIN_CODE, StackOptions, running_stack

ROUNDS, WALLETS, AT_ONCE, WARM_UP, EVENTS = 3, 400, 8, 40, 50_000
EXPORTED: list[float] = []
AUTHORIZER = Ed25519PrivateKey.generate()
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def variants(key: str) -> dict[str, dict[str, Any] | None]:
    """Policies by name."""
    others = [{"id": f"r{n}", "effect": "allow", "clients": ["bob"], "wallets": [f"o{n}-*"]} for n in range(98)]
    denied = {"id": "no", "effect": "deny", "wallets": ["test-*"]}
    rule: dict[str, Any] = {"id": "yes", "effect": "allow", "clients": ["bob"], "operations": ["keygen"]}
    rules = [denied, *others, rule]
    limits = [
        {"id": "a-day", "clients": ["bob"], "most": 1_000_000, "period": "day"},
        {"id": "a-minute", "clients": ["bob"], "most": 1_000_000, "period": "minute"},
    ]
    public = AUTHORIZER.public_key().public_bytes_raw().hex()
    authorizers = {"risk": {"algorithm": "ed25519", "public_key": public}}
    signed = [denied, *others, rule | {"signed": True}]
    return {
        "no policy": None,
        "100 rules": {"rules": rules},
        "100 rules and 2 limits": {"rules": rules, "limits": limits},
        "signed requests": {"rules": signed, "limits": limits, "clients": {"bob": {"keys": [key]}}},
        "an authorizer": {
            "rules": [denied, *others, rule | {"authorizers": ["risk"]}], "limits": limits, "authorizers": authorizers,
        },
    }  # fmt: skip


def cpu_s(pid: int) -> float:
    """The CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


async def measure(policy: dict[str, Any] | None, signer: RequestSigner, folder: Path) -> float:
    """Microseconds of the daemon's CPU for a wallet."""
    settings: dict[str, Any] = {"mpcium": {"keygen": {"in_flight": 50}}}
    if policy is not None:
        path = folder / "policy.json"
        path.write_text(json.dumps({"version": 1, **policy}))
        settings["policy"] = {"file": str(path)}
    async with running_stack(StackOptions(kms="local", settings=settings)) as stack:
        authorizer = await nats.connect(stack.nats_url, user=accounts.DAEMON, password=stack.password(accounts.DAEMON))

        async def on_asking(message: Msg) -> None:
            asking = decode_asking(message.data)
            answer = encode_answer(Answer("risk", AUTHORIZER.sign(asking.to_sign())))
            subject = subjects.authorized("risk", asking.operation, asking.operation_id)
            await authorizer.publish(subject, answer)

        await authorizer.subscribe("initiator.authorize.risk.>", cb=on_asking)
        login = {"user": "bob", "password": stack.password("bob")}
        chosen = signer if policy and "clients" in policy else None
        async with InitiatorClient.connect(
            stack.nats_url, client="bob", chain_code=CHAIN_CODE, signer=chosen, **login
        ) as bob:
            await make(bob, WARM_UP)
            assert stack.daemon is not None  # noqa: S101 - it runs
            before = cpu_s(stack.daemon.pid)
            await make(bob, WALLETS)
            spent = cpu_s(stack.daemon.pid) - before
        await authorizer.close()
        if policy is None:
            EXPORTED.append(await exported_us(stack.nats_url, stack.password(accounts.DAEMON), folder))
    return spent / WALLETS * 1e6


async def exported_us(url: str, password: str, folder: Path) -> float:
    """Microseconds of CPU for an event of the record that is exported into files."""
    path = folder / "nats.password"
    path.touch(mode=0o600)
    path.write_text(password)
    settings = NatsSettings(servers=(url,), user=accounts.DAEMON, password_file=str(path))
    connection = Connection(settings, "benchmark")
    await connection.open()
    exporter = Exporter(
        JetStream(connection), FileStore(folder / secrets.token_hex(8)), Ed25519PrivateKey.generate(), "b"
    )
    before = time.process_time()
    while await exporter.export():
        pass
    spent = time.process_time() - before
    await connection.close()
    return spent / exporter.size * 1e6


def chained_us() -> float:
    """Microseconds for the chain's part of one write of 600 bytes."""
    chain, data, subject = Chain("0" * 16), secrets.token_bytes(600), "initiator.event.bob.keygen.w123456.published"
    before = time.process_time()
    for sequence in range(1, EVENTS + 1):
        chain.stored(chain.link(), subject, data, sequence)
    return (time.process_time() - before) / EVENTS * 1e6


async def make(bob: InitiatorClient, count: int) -> None:
    left = iter(range(count))

    async def maker() -> None:
        for _ in left:
            await bob.keygen(f"w{secrets.token_hex(6)}", timeout=60)

    await asyncio.gather(*(maker() for _ in range(AT_ONCE)))


async def main() -> None:
    log.configure(LogSettings(level="error"))  # the only output is the last one
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seed = folder / "bob.nk"
        seed.touch(mode=0o600)
        seed.write_text(new_seed())
        signer = RequestSigner.from_file(seed)
        found: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for variant, policy in variants(signer.public_key).items():
                found.setdefault(variant, []).append(await measure(policy, signer, folder))
    least = statistics.median(found["no policy"])
    told: dict[str, Any] = {
        variant: {
            "cpu_us": [round(one) for one in all_],
            "median_us": round(statistics.median(all_)),
            "ratio": round(statistics.median(all_) / least, 2),
        }
        for variant, all_ in found.items()
    }
    told["the audit chain, an event"] = {"cpu_us": round(chained_us(), 1)}
    told["the audit exporter, an event"] = {"cpu_us": [round(one) for one in EXPORTED]}
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
