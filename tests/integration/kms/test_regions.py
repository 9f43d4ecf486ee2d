"""Several Regions of one key, each a KMS of its own on loopback: who signs, and who is left alone."""

from __future__ import annotations

import asyncio

import pytest

from initiator.core.signature import Verifier
from initiator.errors import Code, RetryError
from initiator.kms import KmsSigner
from tests.support.kms_pair import DOWN, FIRST, QUICK, SECOND, Moves, Pair
from tests.support.kms_stub import Change, Drip, Error, Fault, Reset, Slow


def in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def until_first_signs(signer: KmsSigner, pair: Pair) -> None:
    async with asyncio.timeout(10):
        while (await signer.sign(b"m", deadline=in_s(5))).key_id != pair.keys[0].arn:
            await asyncio.sleep(0.02)


# --- in order


async def test_the_first_signs_and_what_is_recorded_names_it(pair: Pair) -> None:
    async with pair.signer() as signer:
        signed = await signer.sign(b"m")
        assert signed.key_id == pair.keys[0].arn
        assert (signer.health().ok, signer.health().note) == (True, "")
    assert pair.asked() == (1, 0)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (DOWN, Code.KMS_UNAVAILABLE),
        (Reset(), Code.KMS_UNAVAILABLE),
        (Error("SomethingNew", 503), Code.KMS_UNAVAILABLE),
        (Change({"Signature": None}), Code.KMS_PROTOCOL),
    ],
    ids=str,
)
async def test_the_second_signs_while_the_first_is_down_and_after_a_few_calls_the_first_is_left_alone(
    pair: Pair, fault: Fault, code: Code, told: Moves
) -> None:
    async with pair.signer(breaker_pause_s=60.0, breaker_pause_max_s=60.0) as signer:
        pair.first.standing = fault
        for _ in range(6):
            signed = await signer.sign(b"m", deadline=in_s(5))
            assert signed.key_id == pair.keys[1].arn
            assert signed.request_id
            assert Verifier(pair.pin).verify(b"m", signed.signature)
        assert pair.asked() == (QUICK["breaker_failures"], 6)
        health = signer.health()
        assert health.ok
        assert health.note.startswith(f"{FIRST} is open: {code} kms:Sign")
    assert told == [
        ("info", FIRST, "pinned", ""),
        ("info", SECOND, "pinned", ""),
        ("warning", FIRST, "open", code),
    ]
    assert pair.moves(FIRST) == {("pinned", ""): 1, ("open", code): 1}


async def test_one_that_hangs_costs_its_timeout_once_and_the_others_none_of_their_threads(pair: Pair) -> None:
    async with pair.signer(breaker_pause_s=60.0, breaker_pause_max_s=60.0) as signer:
        pair.first.standing = Slow(1.5)
        started = in_s(0)
        # far more than the first Region's threads: whoever waits for one there goes on elsewhere
        signed = await asyncio.gather(*(signer.sign(b"m", deadline=in_s(5)) for _ in range(40)))
        assert {one.key_id for one in signed} == {pair.keys[1].arn}
        assert in_s(0) - started < 6 * 0.5  # in turns of as many as there are threads it would be ten times
        assert pair.asked() == (QUICK["threads"], 40)
        await signer.sign(b"m", deadline=in_s(5))
        assert pair.asked() == (0, 1)


async def test_one_that_comes_back_is_tried_by_one_call_and_then_used_again(pair: Pair, told: Moves) -> None:
    async with pair.signer() as signer:
        pair.first.standing = DOWN
        for _ in range(3):
            await signer.sign(b"m", deadline=in_s(5))
        pair.asked()
        pair.first.standing = Slow(0.2)
        await asyncio.sleep(0.35)
        signed = await asyncio.gather(*(signer.sign(b"m", deadline=in_s(5)) for _ in range(12)))
        assert sum(one.key_id == pair.keys[0].arn for one in signed) == 1
        assert pair.asked() == (1, 11)
        pair.first.standing = None
        assert (await signer.sign(b"m")).key_id == pair.keys[0].arn
        assert signer.health().note == ""
    states = [(state, code) for _, region, state, code in told if region == FIRST]
    assert states == [("pinned", ""), ("open", "KMS_UNAVAILABLE"), ("half_open", "KMS_UNAVAILABLE"), ("closed", "")]


@pytest.mark.parametrize("code", ["ThrottlingException", "TooManyRequestsException"])
async def test_a_throttled_one_is_passed_over_for_this_call_and_asked_by_the_next(pair: Pair, code: str) -> None:
    async with pair.signer() as signer:
        pair.first.standing = Error(code)
        for _ in range(10):
            assert (await signer.sign(b"m")).key_id == pair.keys[1].arn
        assert pair.asked() == (10, 10)
        pair.first.standing = None
        assert (await signer.sign(b"m")).key_id == pair.keys[0].arn


@pytest.mark.parametrize(
    ("fault", "code"),
    [("AccessDeniedException", Code.KMS_ACCESS_DENIED), ("DisabledException", Code.KMS_KEY_UNUSABLE)],
)
async def test_one_that_refuses_is_passed_over_and_reported(pair: Pair, fault: str, code: Code, told: Moves) -> None:
    async with pair.signer() as signer:
        pair.first.standing = Error(fault)
        for _ in range(5):
            assert (await signer.sign(b"m")).key_id == pair.keys[1].arn
        assert signer.health().ok
        assert signer.health().note.startswith(f"{FIRST} is refused: {code} ")
        pair.second.standing = Error("KMSInternalException", 500)
        with pytest.raises(RetryError) as error:  # what may pass by itself is told before what a person must mend
            await signer.sign(b"m")
        assert error.value.code is Code.KMS_UNAVAILABLE
        assert error.value.reason.startswith(f"{FIRST}: kms:Sign")
        assert f"; {SECOND}: kms:Sign" in error.value.reason
        pair.first.standing = None
        assert (await signer.sign(b"m")).key_id == pair.keys[0].arn
        assert signer.health().note == ""
    assert [line for line in told if line[1] == FIRST] == [
        ("info", FIRST, "pinned", ""),
        ("warning", FIRST, "refused", code),
        ("info", FIRST, "pinned", ""),
    ]


async def test_credentials_that_one_region_refuses_may_hold_in_another(pair: Pair) -> None:
    """As in a Region that the account has not opted in to."""
    async with pair.signer() as signer:
        pair.first.standing = Error("UnrecognizedClientException")
        assert (await signer.sign(b"m")).key_id == pair.keys[1].arn
        assert f"{FIRST} is refused: KMS_CREDENTIALS" in signer.health().note
        pair.second.standing = Error("UnrecognizedClientException")
        with pytest.raises(RetryError) as error:
            await signer.sign(b"m", deadline=in_s(10))
        assert (error.value.code, signer.health().code) == (Code.KMS_CREDENTIALS, Code.KMS_CREDENTIALS)


# --- all of them


async def test_while_all_are_down_nobody_is_hammered_and_signing_goes_on_when_one_is_back(pair: Pair) -> None:
    async with pair.signer() as signer:
        pair.first.standing = pair.second.standing = DOWN
        waiting = [asyncio.create_task(signer.sign(b"m", deadline=in_s(10))) for _ in range(20)]
        await asyncio.sleep(1.0)
        health = signer.health()
        assert (health.ok, health.code) == (False, Code.KMS_UNAVAILABLE)
        assert f"{FIRST}: " in health.reason
        assert f"; {SECOND}: " in health.reason
        first, second = pair.asked()
        # the calls under way when it opened, and a probe for each pause since
        assert first <= QUICK["threads"] * 2 + 1.0 / 0.15
        assert second <= QUICK["threads"] * 2 + 1.0 / 0.15
        pair.second.standing = None
        signed = await asyncio.gather(*waiting)
        assert {one.key_id for one in signed} == {pair.keys[1].arn}
        assert signer.health().ok


async def test_without_time_to_wait_the_caller_is_told_how_long(pair: Pair) -> None:
    async with pair.signer(breaker_pause_s=60.0, breaker_pause_max_s=60.0) as signer:
        pair.first.standing = pair.second.standing = DOWN
        with pytest.raises(RetryError):
            await signer.sign(b"m", deadline=in_s(1))
        pair.asked()
        started = in_s(0)
        with pytest.raises(RetryError) as error:
            await signer.sign(b"m", deadline=in_s(5))
        assert in_s(0) - started < 2.0
        assert 25 < error.value.delay_s <= 60
        assert error.value.reason.count("left alone for") == 2
        assert pair.asked() == (0, 0)


async def test_an_attempt_ends_with_its_deadline_and_what_hangs_is_noted_all_the_same(pair: Pair) -> None:
    async with pair.signer(read_timeout_s=1.5) as signer:
        pair.first.standing = Slow(2.0)
        started = in_s(0)
        with pytest.raises(RetryError) as error:
            await signer.sign(b"m", deadline=in_s(0.2))
        assert in_s(0) - started < 1.2
        assert error.value.code is Code.KMS_UNAVAILABLE
        async with asyncio.timeout(10):
            while FIRST not in signer.health().note:
                await asyncio.sleep(0.05)
        assert (signer.health().ok, FIRST in signer.health().note) == (True, True)
        assert pair.moves(FIRST)[("open", "KMS_UNAVAILABLE")] == 1
        assert (await signer.sign(b"m", deadline=in_s(5))).key_id == pair.keys[1].arn


async def test_a_caller_that_is_cancelled_leaves_no_probe_behind(pair: Pair) -> None:
    async with pair.signer() as signer:
        pair.first.standing = DOWN
        for _ in range(3):
            await signer.sign(b"m", deadline=in_s(5))
        pair.first.standing = Slow(0.2)
        await asyncio.sleep(0.35)
        probe = asyncio.create_task(signer.sign(b"m", deadline=in_s(5)))
        await asyncio.sleep(0.05)
        probe.cancel()
        pair.first.standing = None
        await until_first_signs(signer, pair)


async def test_a_region_that_answers_drop_by_drop_is_passed_over(pair: Pair) -> None:
    """No timeout of the library's ends such a call: each drop comes in time."""
    async with pair.signer() as signer:
        pair.first.standing = Drip(8.0)
        signed = await asyncio.gather(*(signer.sign(b"m", deadline=in_s(10)) for _ in range(6)))
        assert {one.key_id for one in signed} == {pair.keys[1].arn}
        assert pair.moves(FIRST)[("open", "KMS_UNAVAILABLE")] >= 1
        assert (signer.health().ok, FIRST in signer.health().note) == (True, True)


async def test_what_waited_for_a_region_that_hangs_goes_to_the_next_no_faster_than_the_limit(pair: Pair) -> None:
    async with pair.signer(max_signs_per_s=20.0, burst_signs=1, threads=64) as signer:
        pair.first.standing = Slow(3.0)
        began = in_s(0)
        await asyncio.gather(*(signer.sign(b"m", deadline=in_s(20)) for _ in range(15)))
        # the first ones time out after half a second; from then on the second signs at the limit's pace
        assert in_s(0) - began >= 0.5 + 14 / 20 - 0.1


async def test_a_deadline_that_passes_says_nothing_of_kms(pair: Pair) -> None:
    for regions in (pair.settings().regions, pair.settings().regions[:1]):
        async with pair.signer(regions=regions) as signer:
            await signer.sign(b"m", deadline=in_s(5))
            pair.first.standing = Slow(0.2)
            with pytest.raises(RetryError):
                await signer.sign(b"m", deadline=in_s(0.05))
            assert signer.health().ok
            pair.first.standing = None


async def test_a_lone_region_that_stumbles_is_asked_again_at_once(pair: Pair) -> None:
    async with pair.signer(regions=pair.settings().regions[:1]) as signer:
        pair.first.script.extend([Reset()] * 12)
        began = in_s(0)
        await asyncio.gather(*(signer.sign(b"m", deadline=in_s(10)) for _ in range(12)))
        assert in_s(0) - began < 2.0


# --- the limit, the check


async def test_no_region_gets_more_than_our_share_and_waiting_is_no_failure(pair: Pair) -> None:
    async with pair.signer(max_signs_per_s=20.0, burst_signs=2) as signer:
        started = in_s(0)
        await asyncio.gather(*(signer.sign(b"m", deadline=in_s(10)) for _ in range(12)))
        assert in_s(0) - started >= 10 / 20 - 0.02
        assert pair.asked() == (12, 0)
        with pytest.raises(RetryError) as error:
            await asyncio.gather(*(signer.sign(b"m", deadline=in_s(0.1)) for _ in range(12)))
        assert error.value.code is Code.KMS_THROTTLED
        assert signer.health().ok


async def test_a_limiter_of_another_kind_can_be_put_in_its_place(pair: Pair) -> None:
    class Shared:
        deadlines: list[float | None]

        async def acquire(self, deadline: float | None = None) -> None:
            self.deadlines.append(deadline)

    shared = Shared()
    shared.deadlines = []
    signer = await KmsSigner.connect(pair.settings(), pin=pair.pin, limiter=shared)
    try:
        pair.first.standing = DOWN
        until = in_s(5)
        await signer.sign(b"m", deadline=until)
        assert shared.deadlines == [until] * 2  # one place for each Region that was asked
    finally:
        await signer.close()


async def test_each_region_can_be_tried_by_itself(pair: Pair) -> None:
    async with pair.signer() as signer:
        pair.second.standing = Error("AccessDeniedException")
        found = await signer.sign_everywhere(b"probe", deadline=in_s(5))
    assert found[FIRST] is None
    refused = found[SECOND]
    assert refused is not None
    assert refused.code is Code.KMS_ACCESS_DENIED
