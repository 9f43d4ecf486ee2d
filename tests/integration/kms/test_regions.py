"""One key in several Regions: who signs when one is down, hangs, lies or holds another key, and how it comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from initiator.config.schema import KmsRegion
from initiator.core.signature import Verifier
from initiator.core.spki import p256_public_key
from initiator.errors import Code, HaltError, RetryError
from initiator.kms import RegionalSigner, breaker
from tests.contract.test_signer import kms_settings
from tests.support.kms_stub import Change, Error, Fault, Key, KmsStub, Slow, kms_stub

QUICK = {"connect_timeout_s": 0.5, "read_timeout_s": 0.3, "retry_base_s": 0.01, "retry_max_s": 0.02}
REGIONS = ("eu-central-1", "eu-west-1", "us-east-1")
DOWN = Error("KMSInternalException", 500)
THROTTLED = Error("ThrottlingException", 400)


class Planet:
    """A stub for each Region, and one key in all of them."""

    def __init__(self, stubs: list[KmsStub]) -> None:
        self.stubs = stubs
        first = stubs[0].add(key_id="mrk-1", region=REGIONS[0])
        self.keys = [first]
        for stub, region in zip(stubs[1:], REGIONS[1:], strict=True):
            self.keys.append(stub.add(key_id="mrk-1", region=region, private=first.private))
        self.told: list[tuple[str, bool]] = []

    def connect(self) -> Any:
        fallbacks = [
            KmsRegion(region=region, endpoint_url=stub.url)
            for stub, region in zip(self.stubs[1:], REGIONS[1:], strict=True)
        ]
        settings = kms_settings(self.stubs[0].url, self.keys[0].arn, **QUICK)
        settings = settings.model_copy(update={"region": REGIONS[0], "fallbacks": fallbacks})
        return RegionalSigner.connect(settings, told=lambda name, up: self.told.append((name, up)))

    def fail(self, index: int, *faults: Fault, times: int = 1) -> None:
        self.stubs[index].script.extend([*faults] * times)

    @property
    def signed(self) -> list[int]:
        return [sum(name == "Sign" for name, _ in stub.calls) for stub in self.stubs]


@pytest.fixture
def planet() -> Iterator[Planet]:
    with contextlib.ExitStack() as exits:
        yield Planet([exits.enter_context(kms_stub()) for _ in REGIONS])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "OPEN_S", 0.3)


@contextlib.asynccontextmanager
async def connected(planet: Planet) -> AsyncIterator[RegionalSigner]:
    signer = await planet.connect()
    try:
        yield signer
    finally:
        await signer.close()


async def sign(signer: RegionalSigner, seconds: float = 5.0) -> str:
    """Sign something; returns the Region that did."""
    deadline = asyncio.get_running_loop().time() + seconds
    signed = await signer.sign(b"message", deadline=deadline)
    assert Verifier(signer.public_key).verify(b"message", signed.signature)
    return signed.key_id.split(":")[3]


async def test_the_first_region_signs_while_it_can(planet: Planet) -> None:
    async with connected(planet) as signer:
        assert {await sign(signer) for _ in range(3)} == {REGIONS[0]}
        assert planet.signed == [3, 0, 0]
        assert signer.health().ok


async def test_a_region_that_is_down_is_passed_over_and_then_left_alone(
    planet: Planet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "OPEN_S", 60.0)  # no probe in this test, however slow the machine
    async with connected(planet) as signer:
        planet.fail(0, DOWN, times=100)
        assert {await sign(signer) for _ in range(10)} == {REGIONS[1]}
        assert planet.signed == [breaker.FAILURES, 10, 0]
        assert planet.told == [(REGIONS[0], False)]
        assert signer.health().ok


async def test_a_region_that_comes_back_is_used_again(planet: Planet) -> None:
    async with connected(planet) as signer:
        planet.fail(0, DOWN, times=breaker.FAILURES)
        assert {await sign(signer) for _ in range(breaker.FAILURES)} == {REGIONS[1]}
        await asyncio.sleep(0.4)
        assert await sign(signer) == REGIONS[0]
        assert planet.told == [(REGIONS[0], False), (REGIONS[0], True)]


async def test_a_region_that_hangs_costs_its_read_timeout_a_few_times_only(planet: Planet) -> None:
    async with connected(planet) as signer:
        planet.fail(0, Slow(1.0), times=20)
        began = asyncio.get_running_loop().time()
        assert {await sign(signer) for _ in range(20)} == {REGIONS[1]}
        assert planet.signed[0] <= breaker.FAILURES + 2  # and a probe or two
        assert asyncio.get_running_loop().time() - began < 20 * QUICK["read_timeout_s"]


async def test_throttling_moves_on_and_opens_nothing(planet: Planet) -> None:
    async with connected(planet) as signer:
        planet.fail(0, THROTTLED, times=10)
        assert {await sign(signer) for _ in range(10)} == {REGIONS[1]}
        assert await sign(signer) == REGIONS[0]
        assert planet.told == []


async def test_a_region_that_signs_wrongly_is_left_alone_at_once_and_is_no_secret(planet: Planet) -> None:
    async with connected(planet) as signer:
        planet.fail(0, Change({"Signature": "MAYCAQECAQE="}))
        assert await sign(signer) == REGIONS[1]
        health = signer.health()
        assert (health.ok, health.code) == (False, Code.SIGNATURE_INVALID)
        assert REGIONS[0] in health.reason
        await asyncio.sleep(0.4)
        assert await sign(signer) == REGIONS[0]
        assert signer.health().ok


async def test_a_region_with_another_key_never_signs(planet: Planet) -> None:
    stranger = Key(key_id="mrk-1", region=REGIONS[0])
    async with connected(planet) as healthy:
        pinned = healthy.public_key
    planet.stubs[1].keys.clear()
    planet.stubs[1].add(key_id="mrk-1", region=REGIONS[1], private=stranger.private)
    async with connected(planet) as signer:
        assert signer.public_key == pinned
        planet.fail(0, DOWN, times=10)
        assert {await sign(signer) for _ in range(4)} == {REGIONS[2]}
        assert planet.signed[1] == 0
        assert signer.health().code is Code.KEY_MISMATCH


async def test_regions_that_are_away_at_the_start_are_used_when_they_are_back(planet: Planet) -> None:
    planet.fail(0, DOWN)
    planet.fail(1, DOWN)
    async with connected(planet) as signer:
        assert signer.public_key == p256_public_key(planet.keys[0].private.public_key())
        assert await sign(signer) == REGIONS[0]


async def test_the_start_waits_while_all_are_away_and_stops_at_another_key_everywhere(planet: Planet) -> None:
    for index in range(3):
        planet.fail(index, DOWN)
    with pytest.raises(RetryError) as caught:
        await planet.connect()
    assert caught.value.code is Code.KMS_UNAVAILABLE
    pin = p256_public_key(Key().private.public_key())
    settings = kms_settings(planet.stubs[0].url, planet.keys[0].arn, **QUICK)
    with pytest.raises(HaltError) as mismatch:
        await RegionalSigner.connect(settings, pin=pin)
    assert mismatch.value.code is Code.KEY_MISMATCH


async def test_all_down_is_told_and_waits_for_a_probe_without_hammering(planet: Planet) -> None:
    async with connected(planet) as signer:
        for index in range(3):
            planet.fail(index, DOWN, times=breaker.FAILURES)
        began = asyncio.get_running_loop().time()
        assert await sign(signer) == REGIONS[0]
        assert asyncio.get_running_loop().time() - began >= 0.3
        assert planet.signed == [breaker.FAILURES + 1, breaker.FAILURES, breaker.FAILURES]
        assert planet.told[:3] == [(region, False) for region in REGIONS]


async def test_no_deadline_means_one_round(planet: Planet) -> None:
    async with connected(planet) as signer:
        for index in range(3):
            planet.fail(index, DOWN)
        with pytest.raises(RetryError):
            await signer.sign(b"message")
        assert planet.signed == [1, 1, 1]


async def test_denied_everywhere_is_for_a_person(planet: Planet) -> None:
    async with connected(planet) as signer:
        for index in range(3):
            planet.fail(index, Error("AccessDeniedException", 400))
        with pytest.raises(HaltError) as caught:
            await signer.sign(b"message")
        assert caught.value.code is Code.KMS_ACCESS_DENIED
        assert signer.health().code is Code.KMS_ACCESS_DENIED
