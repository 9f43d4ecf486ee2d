"""Our share of the quota: calls are spaced, and no place before the deadline is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from initiator.core.signer import Signer
from initiator.errors import Code, RetryError
from initiator.kms import KmsSigner
from initiator.metrics import Metrics
from tests.contract.test_signer import kms_settings
from tests.support.kms_stub import Error, KmsStub, kms_stub

SPACED = {"burst_signs": 1, "retry_base_s": 0.01, "retry_max_s": 0.02}


@pytest.fixture
def stub() -> Iterator[KmsStub]:
    with kms_stub() as running:
        yield running


async def connected(stub: KmsStub, rate: float = 20.0, metrics: Metrics | None = None) -> Signer:
    settings = kms_settings(stub.url, stub.add().arn, **SPACED, max_signs_per_s=rate)
    return await KmsSigner.connect(settings, metrics=metrics)


async def test_calls_are_spaced_and_their_waits_told(stub: KmsStub) -> None:
    metrics = Metrics()
    signer = await connected(stub, metrics=metrics)
    try:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(signer.sign(b"message", deadline=began + 10) for _ in range(7)))
        assert asyncio.get_running_loop().time() - began >= 6 / 20
        value = metrics.registry.get_sample_value
        assert value("initiator_signer_limiter_seconds_count") == 7
        assert (value("initiator_signer_limiter_seconds_sum") or 0) > sum(range(6)) / 20
    finally:
        await signer.close()


async def test_every_try_takes_a_place(stub: KmsStub) -> None:
    signer = await connected(stub)
    try:
        stub.script.extend([Error("ThrottlingException", 400)] * 4)
        began = asyncio.get_running_loop().time()
        await signer.sign(b"message", deadline=began + 10)
        assert asyncio.get_running_loop().time() - began >= 4 / 20
    finally:
        await signer.close()


async def test_no_place_before_the_deadline_is_told_and_makes_nobody_unwell(stub: KmsStub) -> None:
    signer = await connected(stub, rate=0.1)
    try:
        await signer.sign(b"message")
        stub.calls.clear()
        with pytest.raises(RetryError) as caught:
            await signer.sign(b"message", deadline=asyncio.get_running_loop().time() + 0.01)
        assert caught.value.code is Code.KMS_THROTTLED
        assert stub.calls == []
        assert signer.health().ok
    finally:
        await signer.close()
