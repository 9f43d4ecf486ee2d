"""Each call to KMS asks for leave, wherever it is made from, and a call that gets none is nobody's fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from initiator.core.signer import HeldBackError
from initiator.errors import Code, InitiatorError
from initiator.kms import KmsSigner
from tests.support.kms_pair import DOWN, Pair
from tests.support.kms_stub import Error


class Allowance:
    """So many calls."""

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.asked = 0

    async def spend(self, deadline: float | None = None) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.calls:
            raise HeldBackError(Code.STOP_LINE, "the line is reached", delay_s=0.0)
        self.calls -= 1


@pytest.fixture
def allowance() -> Allowance:
    return Allowance(3)


@pytest.fixture
async def signer(pair: Pair, allowance: Allowance) -> AsyncIterator[KmsSigner]:
    made = await KmsSigner.connect(pair.settings(threads=1), pin=pair.pin, permit=allowance)
    pair.asked()
    yield made
    await made.close()


def deadline() -> float:
    return asyncio.get_running_loop().time() + 5.0


async def held_back(signer: KmsSigner) -> InitiatorError:
    with pytest.raises(HeldBackError) as refused:
        await signer.sign(b"message", deadline=deadline())
    return refused.value


async def test_at_the_line_nobody_is_asked_and_the_signer_is_well(
    pair: Pair, allowance: Allowance, signer: KmsSigner
) -> None:
    for _ in range(3):
        await signer.sign(b"message", deadline=deadline())
    for _ in range(3):  # one thread: a place that was kept would be missed
        assert (await held_back(signer)).code is Code.STOP_LINE
    assert pair.asked() == (3, 0)
    assert signer.health().ok
    allowance.calls = 1
    await signer.sign(b"message", deadline=deadline())


async def test_retries_and_further_regions_are_spent_too(pair: Pair, allowance: Allowance, signer: KmsSigner) -> None:
    pair.first.standing = pair.second.standing = DOWN
    await held_back(signer)
    assert sum(pair.asked()) == 3
    assert allowance.asked == 4


async def test_what_a_renewed_credential_asks_again_is_spent_too(
    pair: Pair, allowance: Allowance, signer: KmsSigner
) -> None:
    pair.first.script.append(Error("ExpiredTokenException"))
    await signer.sign(b"message", deadline=deadline())
    assert pair.asked() == (2, 0)
    assert allowance.calls == 1


async def test_a_breaker_that_tries_a_region_again_is_not_kept_open_by_a_call_that_got_no_leave(
    pair: Pair, allowance: Allowance, signer: KmsSigner
) -> None:
    pair.first.standing = pair.second.standing = DOWN
    allowance.calls = 6
    await held_back(signer)
    pair.first.standing = pair.second.standing = None
    await asyncio.sleep(0.5)  # both try one call
    await held_back(signer)
    allowance.calls = 1
    await signer.sign(b"message", deadline=deadline())
