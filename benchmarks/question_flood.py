"""What one client's flood of questions costs another's work: `python -m benchmarks.question_flood`; one JSON object.

The whole system on this machine, one replica: bob makes wallets and asks for states, while alice, in a process of her
own, has so many questions under way, always. Beside it, as a control, the same flood where no daemon listens: what it
costs the machine and its nats-server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import secrets
import statistics
import time
from multiprocessing.process import BaseProcess

import nats

from initiator.client import ClientError, InitiatorClient
from initiator.dev.stack import CHAIN_CODE, Stack, StackOptions, running_stack

MEASURED_S, WARM_UP_S, MAKERS = 5.0, 1.5, 8
STATUS = b'{"op":"keygen","id":"w1"}'
LARGE = b"[" + b"{}," * 333_000 + b"{}]"
FLOODS = {
    "control": ("nowhere", STATUS, 3000),
    "20 questions": ("initiator.query.alice.status", STATUS, 20),
    "200 questions": ("initiator.query.alice.status", STATUS, 200),
    "3000 questions": ("initiator.query.alice.status", STATUS, 3000),
    "10000 questions": ("initiator.query.alice.status", STATUS, 10_000),
    "3000 pages of events": ("initiator.query.alice.events", b"{}", 3000),
    "4 of a megabyte": ("initiator.query.alice.status", LARGE, 4),
}


def flood(url: str, password: str, subject: str, body: bytes, under_way: int, seconds: float) -> None:
    """Keep so many questions under way; a question that is not answered within a second is given up."""

    async def go() -> None:
        nc = await nats.connect(url, user="alice", password=password)
        end = time.monotonic() + seconds

        async def ask() -> None:
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    await nc.request(subject, body, timeout=1.0)
                except nats.errors.Error:
                    await asyncio.sleep(max(0.0, 0.05 - (time.monotonic() - began)))

        await asyncio.gather(*(ask() for _ in range(under_way)))
        await nc.close()

    asyncio.run(go())


async def bobs(bob: InitiatorClient) -> dict[str, float]:
    """Wallets a second, and how long a question takes, in the middle and at the worst."""
    end, made, took = time.monotonic() + MEASURED_S, 0, []

    async def make() -> None:
        nonlocal made
        while time.monotonic() < end:
            try:
                await bob.keygen(f"w{secrets.token_hex(6)}", timeout=20)
                made += 1
            except ClientError:
                await asyncio.sleep(0.1)

    async def ask() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            with contextlib.suppress(ClientError):
                await bob.status("keygen", "nobody")
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.05)

    await asyncio.gather(ask(), *(make() for _ in range(MAKERS)))
    return {
        "keygens_per_s": round(made / MEASURED_S, 1),
        "status_p50_ms": round(statistics.median(took) * 1000, 1),
        "status_max_ms": round(max(took) * 1000, 1),
    }


def start_flood(stack: Stack, subject: str, body: bytes, under_way: int) -> BaseProcess:
    seconds = WARM_UP_S + MEASURED_S + 1.0
    arguments = (stack.nats_url, stack.password("alice"), subject, body, under_way, seconds)
    process = multiprocessing.get_context("spawn").Process(target=flood, args=arguments, daemon=True)
    process.start()
    return process


async def main() -> None:
    settings = {"mpcium": {"keygen": {"in_flight": 50}}}
    async with running_stack(StackOptions(kms="local", settings=settings)) as stack:
        login = {"user": "bob", "password": stack.password("bob")}
        async with InitiatorClient.connect(stack.nats_url, client="bob", chain_code=CHAIN_CODE, **login) as bob:
            found = {"nothing": await bobs(bob)}
            for name, (subject, body, under_way) in FLOODS.items():
                process = start_flood(stack, subject, body, under_way)
                await asyncio.sleep(WARM_UP_S)
                found[name] = await bobs(bob)
                await asyncio.to_thread(process.join, 60)
                await asyncio.sleep(1.0)
            found["afterwards"] = await bobs(bob)
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
