"""Two replicas under one share of KMS's quota."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator

import pytest

from initiator.app import App
from tests.support.harness import Bench, running, settings_for
from tests.support.kms_stub import REGION, Fault, KmsStub, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
RATE, BURST, COUNT = 20.0, 2, 30


class TimedStub(KmsStub):
    """Knows when it was asked to sign."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_at: list[float] = []

    def next_fault(self, operation: str) -> Fault | None:
        if operation == "Sign":
            self.asked_at.append(time.monotonic())
        return super().next_fault(operation)


@pytest.fixture
def stub() -> Iterator[TimedStub]:
    one = TimedStub()
    with serving(one):
        yield one


async def test_all_replicas_together_stay_under_the_limit(server: Bench, stub: TimedStub) -> None:
    key = stub.add()
    kms = {
        "region": REGION, "key_id": key.arn, "endpoint_url": stub.url, "access_key_id": "a", "secret_access_key": "s",
        "max_signs_per_s": RATE, "burst_signs": BURST, "limit_over": "all",
    }  # fmt: skip
    settings = settings_for(server.url, signer={"kms": kms}, worker={"prefetch_per_client": 2})
    wallets = [f"w{secrets.token_hex(6)}" for _ in range(COUNT)]
    async with running(App(settings)), running(App(settings)):
        await asyncio.gather(*(server.submit("keygen", {"wallet_id": wallet}) for wallet in wallets))
        for wallet in wallets:
            await server.until("keygen", wallet, "published")
    asked = sorted(stub.asked_at)
    assert len(asked) == COUNT
    assert asked[-1] - asked[0] >= (COUNT - BURST) / RATE - 0.1
    for start, first in enumerate(asked):  # 0.1 s: how late a call can be that was let through in time
        assert sum(when < first + 0.5 for when in asked[start:]) <= BURST + RATE * 0.6


async def test_a_limit_whose_stream_is_gone_is_made_anew(server: Bench, stub: TimedStub) -> None:
    kms = {
        "region": REGION, "key_id": stub.add().arn, "endpoint_url": stub.url, "access_key_id": "a",
        "secret_access_key": "s", "max_signs_per_s": RATE, "limit_over": "all",
    }  # fmt: skip
    async with running(App(settings_for(server.url, signer={"kms": kms}))):
        await server.js.delete_stream("INITIATOR_LIMITS")
        wallet = f"w{secrets.token_hex(6)}"
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
