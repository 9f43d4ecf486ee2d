"""One request through faults of the signer, deadlines, repeats and other replicas."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import pytest

from initiator.core.events import format_time
from initiator.errors import Code, HaltError, RetryError
from tests.support.harness import Bench, ScriptedSigner, daemon, settings_for, sign_request

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(autouse=True)
def of_this_test_alone(server: Bench) -> None:
    server.submitted.clear()


def soon(seconds: float) -> str:
    return format_time(time.time() + seconds)


def new_wallet() -> str:
    return f"w{secrets.token_hex(6)}"


THROTTLED = RetryError(Code.KMS_THROTTLED, "slow down", delay_s=0.01)
DENIED = HaltError(Code.KMS_ACCESS_DENIED, "no permission")


# --- the signer


@pytest.mark.parametrize("problem", [THROTTLED, DENIED, HaltError(Code.SIGNATURE_INVALID, "does not verify")])
async def test_a_signer_that_comes_back_is_asked_again(server: Bench, problem: Exception) -> None:
    signer, wallet = ScriptedSigner(problem, problem), new_wallet()
    async with daemon(settings_for(server.url), signer):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
    assert signer.calls == 3
    assert server.states("keygen", wallet) == ["accepted", "published"]


@pytest.mark.parametrize("problem", [THROTTLED, DENIED])
async def test_a_signer_that_stays_away_past_the_deadline_fails_with_its_code_and_outcome_none(
    server: Bench, problem: RetryError | HaltError
) -> None:
    signer, wallet = ScriptedSigner(*[problem] * 100), new_wallet()
    before = await server.published("keygen")
    async with daemon(settings_for(server.url), signer):
        await server.submit("keygen", {"wallet_id": wallet, "expires_at": soon(0.6)})
        failed = await server.until("keygen", wallet)
    assert (failed["code"], failed["outcome"]) == (problem.code, "none")
    assert problem.reason in failed["reason"]
    assert await server.published("keygen") == before


async def test_a_signature_that_comes_too_late_is_neither_recorded_nor_published(server: Bench) -> None:
    signer, wallet = ScriptedSigner(1.0), new_wallet()
    async with daemon(settings_for(server.url), signer):
        before = await server.published("keygen")
        await server.submit("keygen", {"wallet_id": wallet, "expires_at": soon(0.5)})
        failed = await server.until("keygen", wallet)
        assert (failed["code"], failed["outcome"]) == ("DEADLINE_EXCEEDED", "none")
        assert server.states("keygen", wallet) == ["accepted", "failed"]
        assert await server.published("keygen") == before


# --- deadlines


async def test_what_expired_before_its_turn_is_rejected(server: Bench) -> None:
    """Queued while no daemon was there: read too late."""
    async with daemon(settings_for(server.url)):
        pass
    wallet = new_wallet()
    sequence = await server.submit("keygen", {"wallet_id": wallet, "expires_at": soon(0.3)})
    await asyncio.sleep(0.4)
    async with daemon(settings_for(server.url)):
        rejected = await server.rejection(sequence)
        assert (rejected["code"], rejected["field"]) == ("EXPIRED", "expires_at")
        assert server.states("keygen", wallet) == ["rejected"]
        assert await server.all_acked()
    (dead,) = await server.dead(f"initiator.dead.alice.keygen.{sequence}")
    assert dead[1]["Initiator-Code"] == "EXPIRED"


async def test_no_result_in_time_is_an_unknown_outcome_and_a_late_success_still_counts(server: Bench) -> None:
    wallet = new_wallet()
    settings = settings_for(server.url, mpcium={"keygen": {"in_flight": 0, "result_timeout_s": 0.4}})
    async with daemon(settings):
        await server.submit("keygen", {"wallet_id": wallet})
        failed = await server.until("keygen", wallet)
        assert (failed["code"], failed["outcome"]) == ("RESULT_TIMEOUT", "unknown")
        assert await server.all_acked()
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        completed = await server.until("keygen", wallet, "completed")
        assert completed["supersedes"] == {"event_id": failed["event_id"], "outcome": "unknown"}


async def test_the_deadline_at_the_nodes_is_an_unknown_outcome(server: Bench) -> None:
    wallet = new_wallet()
    async with daemon(settings_for(server.url)):
        await server.submit("keygen", {"wallet_id": wallet, "expires_at": soon(0.6)})
        failed = await server.until("keygen", wallet)
    assert (failed["code"], failed["outcome"]) == ("DEADLINE_EXCEEDED", "unknown")


async def test_what_waits_for_a_full_lane_past_its_deadline_fails_and_is_never_published(server: Bench) -> None:
    """Its signature is recorded, so a frozen replica could still publish it: the outcome is not `none`."""
    first, second = new_wallet(), new_wallet()
    async with daemon(settings_for(server.url, mpcium={"keygen": {"in_flight": 1}})):
        await server.submit("keygen", {"wallet_id": first})
        await server.until("keygen", first, "published")
        before = await server.published("keygen")
        await server.submit("keygen", {"wallet_id": second, "expires_at": soon(0.5)})
        failed = await server.until("keygen", second)
        assert (failed["code"], failed["outcome"]) == ("DEADLINE_EXCEEDED", "unknown")
        assert "waiting for a slot" in failed["reason"]
        assert await server.published("keygen") == before
        await server.answer("keygen", first, server.keygen_success(first))
        await server.until("keygen", first, "completed")
        third = new_wallet()
        await server.submit("keygen", {"wallet_id": third})
        await server.until("keygen", third, "published")
        await server.answer("keygen", third, server.keygen_success(third))
        await server.until("keygen", third, "completed")


# --- repeats, conflicts, replicas


async def test_a_repeat_in_another_encoding_joins_the_operation_under_way(server: Bench) -> None:
    signer, wallet = ScriptedSigner(), new_wallet()
    async with daemon(settings_for(server.url), signer):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        for number in range(3):
            await server.submit("keygen", {"wallet_id": wallet, "labels": {"n": str(number)}}, encoding="json")
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet)
        assert await server.all_acked()
    assert signer.calls == 1


async def test_many_at_once_of_one_request_reach_the_signer_once(server: Bench) -> None:
    signer, wallet = ScriptedSigner(0.3), new_wallet()
    async with daemon(settings_for(server.url), signer):
        before = await server.published("keygen")
        await asyncio.gather(*(server.submit("keygen", {"wallet_id": wallet}) for _ in range(10)))
        await server.until("keygen", wallet, "published")
        assert (signer.calls, await server.published("keygen")) == (1, before + 1)
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet)
        assert await server.all_acked()


@pytest.mark.parametrize(
    ("change", "client"),
    [({"derivation_path": [1]}, "alice"), ({"tx": b"\x02other"}, "alice"), ({"wallet_id": "w3"}, "alice"), ({}, "bob")],
)
async def test_an_id_that_is_taken_conflicts_before_the_signer_is_asked(
    server: Bench, change: dict[str, Any], client: str
) -> None:
    signer, request = ScriptedSigner(), sign_request("w")
    async with daemon(settings_for(server.url), signer):
        await server.submit("sign", request)
        await server.until("sign", request["tx_id"], "published")
        sequence = await server.submit("sign", request | change, client=client)
        rejected = await server.rejection(sequence, client)
    assert (rejected["code"], rejected["field"], rejected["client"]) == ("CONFLICT", "tx_id", client)
    assert "alice" not in rejected["reason"] or client == "alice"
    assert signer.calls == 1


async def test_replicas_share_the_work_and_each_event_reaches_the_nodes_once(server: Bench) -> None:
    signers = [ScriptedSigner(), ScriptedSigner()]
    wallets = [new_wallet() for _ in range(60)]
    async with daemon(settings_for(server.url), signers[0]), daemon(settings_for(server.url), signers[1]):
        before = await server.published("keygen")
        # each twice, so that the replicas meet on most ids
        for wallet in wallets * 2:
            await server.submit("keygen", {"wallet_id": wallet})
        for wallet in wallets:
            await server.until("keygen", wallet, "published")
        assert await server.published("keygen") == before + len(wallets)
        for wallet in wallets:
            await server.answer("keygen", wallet, server.keygen_success(wallet))
        for wallet in wallets:
            await server.until("keygen", wallet)
        assert await server.all_acked()
    for wallet in wallets:
        assert server.unrepeated("keygen", wallet) == ["accepted", "published", "completed"]
    assert min(signer.calls for signer in signers) > 0


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.01, 0.02, 0.05, 0.1])
async def test_a_holder_that_is_stopped_anywhere_leaves_work_that_another_finishes_once(
    server: Bench, after_s: float
) -> None:
    wallets = [new_wallet() for _ in range(8)]
    async with daemon(settings_for(server.url), ScriptedSigner(*[0.03] * 8)) as first:
        before = await server.published("keygen")
        for wallet in wallets:
            await server.submit("keygen", {"wallet_id": wallet})
        await asyncio.sleep(after_s)
        first.stop()
        first.stop()
    async with daemon(settings_for(server.url)):
        for wallet in wallets:
            await server.until("keygen", wallet, "published", timeout_s=15)
            await server.answer("keygen", wallet, server.keygen_success(wallet))
        for wallet in wallets:
            await server.until("keygen", wallet)
        assert await server.all_acked()
        assert await server.published("keygen") == before + len(wallets)
