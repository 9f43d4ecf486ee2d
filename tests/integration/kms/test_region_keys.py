"""Several Regions of one key: false answers, other keys, and those that were down at the start."""

from __future__ import annotations

import asyncio
import socket

import pytest

from initiator.core.spki import fingerprint, p256_public_key
from initiator.errors import Code, HaltError, RetryError
from initiator.kms import KmsSigner
from tests.support.kms_pair import DOWN, FALSE, FIRST, MRK, SECOND, Moves, Pair
from tests.support.kms_stub import Change, kms_stub


def in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


# --- false answers and other keys


async def test_a_false_signature_is_told_and_not_gone_round(pair: Pair, told: Moves) -> None:
    async with pair.signer() as signer:
        pair.first.standing = FALSE
        for _ in range(5):
            with pytest.raises(HaltError) as error:
                await signer.sign(b"m", deadline=in_s(5))
            assert error.value.code is Code.SIGNATURE_INVALID
            assert error.value.reason.startswith(f"{FIRST}: kms:Sign: the signature does not verify")
            health = signer.health()
            assert (health.ok, health.code) == (False, Code.SIGNATURE_INVALID)
            assert health.reason.startswith(f"{FIRST} is suspect")
        assert pair.asked() == (5, 0)
        pair.first.standing = None
        assert (await signer.sign(b"m")).key_id == pair.keys[0].arn
        assert signer.health().ok
    assert [line for line in told if line[1] == FIRST][1:] == [
        ("error", FIRST, "suspect", "SIGNATURE_INVALID"),
        ("info", FIRST, "pinned", ""),
    ]


async def test_one_that_signed_falsely_stays_in_doubt_while_others_sign(pair: Pair) -> None:
    """Found in the second while the first was down: the first's return is no reason to forget it."""
    async with pair.signer() as signer:
        pair.first.standing, pair.second.standing = DOWN, FALSE
        with pytest.raises(HaltError):
            await signer.sign(b"m", deadline=in_s(5))
        pair.first.standing = None
        await signer.sign(b"m", deadline=in_s(5))
        assert signer.health().code is Code.SIGNATURE_INVALID
        pair.second.standing, pair.first.standing = None, DOWN
        await signer.sign(b"m", deadline=in_s(5))
        assert signer.health().ok


async def test_an_answer_in_another_keys_name_is_not_gone_round_either(pair: Pair) -> None:
    async with pair.signer() as signer:
        pair.first.standing = Change({"KeyId": pair.keys[0].arn.replace("mrk-", "mrk-0")})
        with pytest.raises(HaltError) as error:
            await signer.sign(b"m", deadline=in_s(5))
        assert error.value.code is Code.KEY_MISMATCH
    assert pair.asked() == (1, 0)


@pytest.mark.parametrize("which", [0, 1])
async def test_a_region_with_another_key_is_never_asked_and_stops_nobody(pair: Pair, which: int, told: Moves) -> None:
    stub = (pair.first, pair.second)[which]
    other = stub.add(key_id=MRK)
    async with pair.signer() as signer:
        for _ in range(3):
            assert (await signer.sign(b"m")).key_id == pair.keys[1 - which].arn
        assert pair.asked()[which] == 0
        health = signer.health()
        assert health.ok
        assert health.note.startswith(f"{stub.region} is barred: KEY_MISMATCH ")
        assert fingerprint(p256_public_key(other.private.public_key())) in health.note
        # nor is it the reason where the others were not asked in time
        with pytest.raises(RetryError):
            await signer.sign(b"m", deadline=in_s(-1))
        # the others' trouble makes it no better
        (pair.second, pair.first)[which].standing = DOWN
        with pytest.raises(RetryError):
            await signer.sign(b"m", deadline=in_s(1))
        assert pair.asked()[which] == 0
    assert ("error", stub.region, "barred", "KEY_MISMATCH") in told


async def test_without_the_pinned_key_anywhere_nothing_starts(pair: Pair) -> None:
    for stub in (pair.first, pair.second):
        stub.add(key_id=MRK)
    with pytest.raises(HaltError) as error:
        async with pair.signer():
            pass
    assert (error.value.code, error.value.field) == (Code.KEY_MISMATCH, "mpcium.event_initiator_pubkey")
    assert error.value.reason.count("SHA256:") == 4


async def test_without_a_pin_the_first_regions_key_is_the_one(pair: Pair) -> None:
    pair.second.add(key_id=MRK)
    signer = await KmsSigner.connect(pair.settings())
    try:
        assert signer.public_key == pair.pin
        assert f"{SECOND} is barred" in signer.health().note
    finally:
        await signer.close()


async def test_an_unsuitable_key_bars_its_region_alone(pair: Pair) -> None:
    pair.first.add(key_id=MRK, spec="ECC_NIST_P384")
    async with pair.signer() as signer:
        assert (await signer.sign(b"m")).key_id == pair.keys[1].arn
        assert f"{FIRST} is barred: KEY_UNSUITABLE" in signer.health().note


# --- down at the start


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("same", [True, False])
async def test_one_that_was_down_at_the_start_is_compared_with_the_pin_before_it_is_used(
    pair: Pair, same: bool
) -> None:
    port = free_port()
    regions = [
        {"region": "eu-north-1", "endpoint_url": f"http://127.0.0.1:{port}"},
        {"region": SECOND, "endpoint_url": pair.second.url},
    ]
    async with pair.signer(regions=regions) as signer:
        assert (await signer.sign(b"m")).key_id == pair.keys[1].arn
        assert signer.health().note.startswith("eu-north-1 is open: KMS_UNAVAILABLE kms:GetPublicKey")
        with kms_stub("eu-north-1", port) as late:
            key = late.add(key_id=MRK, **({"private": pair.keys[0].private} if same else {}))
            async with asyncio.timeout(10):
                while "eu-north-1 is open" in signer.health().note or "half_open" in signer.health().note:
                    assert (await signer.sign(b"m")).key_id == pair.keys[1].arn
                    await asyncio.sleep(0.02)
            signed = await signer.sign(b"m")
            assert signed.key_id == (key.arn if same else pair.keys[1].arn)
            assert [operation for operation, _ in late.calls] == ["GetPublicKey", "Sign"][: 1 + same]
            assert signer.health().ok
            assert ("barred: KEY_MISMATCH" in signer.health().note) is not same


async def test_while_all_are_down_the_start_waits(pair: Pair) -> None:
    pair.first.standing = pair.second.standing = DOWN
    with pytest.raises(RetryError) as error:
        async with pair.signer():
            pass
    assert error.value.code is Code.KMS_UNAVAILABLE
    assert error.value.reason.count("kms:GetPublicKey") == 2


async def test_a_wrong_key_here_and_nobody_there_is_waited_for(pair: Pair) -> None:
    pair.first.add(key_id=MRK)
    pair.second.standing = DOWN
    with pytest.raises(RetryError) as error:
        async with pair.signer():
            pass
    assert "but the pin is" in error.value.reason


async def test_a_bad_endpoint_is_named_by_its_place_in_the_list(pair: Pair) -> None:
    regions = [{"region": FIRST, "endpoint_url": pair.first.url}, {"region": SECOND, "endpoint_url": "nonsense"}]
    with pytest.raises(HaltError) as error:
        async with pair.signer(regions=regions):
            pass
    assert (error.value.code, error.value.field) == (Code.CONFIG_INVALID, "signer.kms.regions.1.endpoint_url")
