"""A failure of which surely nothing was signed may be opened again, once, by its client's own request."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import pytest

from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from initiator.config.wallets import Wallets
from initiator.deadletters import DeadLetters
from initiator.errors import Code, RetryError
from initiator.flow.clients import Clients
from initiator.flow.intake import Intake
from initiator.flow.rehearsal import Rehearsal
from initiator.flow.verification import WalletBook
from initiator.record import Record
from tests.support.harness import Bench, ScriptedSigner, daemon, settings_for
from tests.support.nats_cluster import connected

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def gave_out(server: Bench) -> tuple[str, dict[str, Any]]:
    """A keygen that failed for want of KMS; its id and its `failed` event."""
    wallet = f"w{secrets.token_hex(4)}"
    lane = {"in_flight": 0, "default_expiry_s": 1.0}
    away = [RetryError(Code.KMS_UNAVAILABLE, "away", delay_s=0.2)] * 50
    async with daemon(settings_for(server.url, mpcium={"keygen": lane}), ScriptedSigner(*away)):
        await server.submit("keygen", {"wallet_id": wallet})
        failed = await server.until("keygen", wallet)
        assert (failed["code"], failed["outcome"]) == ("KMS_UNAVAILABLE", "none")
        await server.all_acked()
    return wallet, failed


async def completes(server: Bench, wallet: str, attempt: int) -> None:
    await server.until("keygen", wallet, "published", attempt=attempt)
    await server.answer("keygen", wallet, server.keygen_success(wallet))
    assert (await server.until("keygen", wallet, "completed"))["attempt"] == attempt


async def reopened(server: Bench, wallet: str, event_id: str) -> None:
    await server.submit("keygen", {"wallet_id": wallet}, **{"Initiator-Reopen": event_id})


async def test_named_by_its_event_it_is_a_new_attempt_with_a_deadline_of_its_own(server: Bench) -> None:
    wallet, failed = await gave_out(server)
    async with daemon(settings_for(server.url)):
        await reopened(server, wallet, failed["event_id"])
        accepted = await server.until("keygen", wallet, "accepted", attempt=2)
        assert accepted["reopens"] == failed["event_id"]
        assert accepted["expires_at"] > failed["expires_at"]
        await completes(server, wallet, attempt=2)
        await server.event_at_nodes("keygen", wallet, attempt=2)
        assert await server.all_acked()
    states = ["accepted", "failed", "accepted", "published", "completed"]
    assert server.unrepeated("keygen", wallet) == states


async def test_several_copies_open_it_once(server: Bench) -> None:
    wallet, failed = await gave_out(server)
    async with daemon(settings_for(server.url)):
        for _ in range(5):
            await reopened(server, wallet, failed["event_id"])
        await completes(server, wallet, attempt=2)
        assert await server.all_acked()
    assert server.unrepeated("keygen", wallet).count("accepted") == 2


@pytest.mark.parametrize("event_id", [None, "", "0" * 16])
async def test_without_its_event_it_stays_failed_and_is_told_again(server: Bench, event_id: str | None) -> None:
    wallet, failed = await gave_out(server)
    async with daemon(settings_for(server.url)):
        headers = {} if event_id is None else {"Initiator-Reopen": event_id}
        await server.submit("keygen", {"wallet_id": wallet}, **headers)
        assert await server.all_acked()
        async with asyncio.timeout(5):
            while len(server.events("keygen", wallet)) < 3:
                await asyncio.sleep(0.02)
    assert server.states("keygen", wallet) == ["accepted", "failed", "failed"]
    assert server.events("keygen", wallet)[-1]["event_id"] == failed["event_id"]


async def test_another_client_or_payload_opens_nothing(server: Bench) -> None:
    wallet, failed = await gave_out(server)
    async with daemon(settings_for(server.url)):
        sequence = await server.submit(
            "keygen", {"wallet_id": wallet}, client="bob", **{"Initiator-Reopen": failed["event_id"]}
        )
        assert (await server.rejection(sequence, client="bob"))["code"] == "CONFLICT"
    assert server.unrepeated("keygen", wallet) == ["accepted", "failed"]


async def test_what_the_nodes_may_have_is_never_opened_again(server: Bench) -> None:
    wallet = f"w{secrets.token_hex(4)}"
    async with daemon(settings_for(server.url, mpcium={"keygen": {"in_flight": 0, "result_timeout_s": 0.5}})):
        await server.submit("keygen", {"wallet_id": wallet})
        failed = await server.until("keygen", wallet)
        assert failed["outcome"] == "unknown"
        before = await server.published("keygen")
        await reopened(server, wallet, failed["event_id"])
        assert await server.all_acked()
        assert await server.published("keygen") == before
    assert set(server.unrepeated("keygen", wallet)) == {"accepted", "published", "failed"}


async def test_it_expires_like_any_other_and_stays_as_it_was(server: Bench) -> None:
    wallet, failed = await gave_out(server)
    async with daemon(settings_for(server.url)):
        request = {"wallet_id": wallet, "expires_at": "2026-01-01T00:00:00Z"}
        sequence = await server.submit("keygen", request, **{"Initiator-Reopen": failed["event_id"]})
        assert (await server.rejection(sequence))["code"] == "EXPIRED"
    assert server.states("keygen", wallet) == ["accepted", "failed", "rejected"]


async def test_a_replay_of_its_dead_letter_opens_it(server: Bench) -> None:
    wallet, failed = await gave_out(server)
    connection = await connected(NatsSettings(servers=(server.url,)))
    try:
        js = JetStream(connection)
        letters = DeadLetters(js)
        sequence = (await server.js.stream_info("INITIATOR_DEAD")).state.last_seq
        letter, data = await letters.open(sequence)
        assert (letter.outcome, letter.event_id) == ("none", failed["event_id"])
        settings = settings_for(server.url)
        rehearsal = Rehearsal(
            Intake(settings, Clients(settings.clients), WalletBook(Record(js), Wallets()).owner),
            letters,
            Record(js),
            time.time,
        )
        assert await rehearsal.judge(letter, data) == "would open its operation again"
        async with daemon(settings_for(server.url)):
            await letters.replay(letter, data)
            await completes(server, wallet, attempt=2)
            assert "would join its operation, which ended" in await rehearsal.judge(letter, data)
    finally:
        await connection.close()
