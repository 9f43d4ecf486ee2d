"""The client while the daemon or NATS is away: every call ends in its result or in an error that says how to go on."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from initiator.client import (
    EddsaSignature,
    InitiatorClient,
    KeygenRequest,
    NothingSignedError,
    RejectedError,
    StillRunningError,
    UnavailableError,
    UntrustedResultError,
    VerifiedBy,
    waiting,
)
from initiator.dev.stack import Stack, StackOptions, running_stack
from initiator.errors import Code, RetryError
from tests.support.harness import Bench, ScriptedSigner, bench, daemon, settings_for

CALLS = 1000


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(5)}"


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("client")) as ready:
        yield ready


def connect(server: Bench, **options: Any) -> contextlib.AbstractAsyncContextManager[InitiatorClient]:
    return InitiatorClient.connect(server.url, client="alice", **options)


async def answer(server: Bench, wallet: str) -> None:
    await server.until("keygen", wallet, "published", timeout_s=20)
    await server.answer("keygen", wallet, server.keygen_success(wallet))


async def test_without_a_daemon_it_waits_in_the_queue_and_is_picked_up_again(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        pass
    async with connect(server) as alice:
        with pytest.raises(UnavailableError, match="is the daemon running"):
            await alice.status("keygen", "w")
        wallet = new_id("w")
        with pytest.raises(StillRunningError) as error:
            await alice.keygen(wallet, timeout=5.5)
        assert error.value.state == ""
        async with daemon(settings_for(server.url)):
            answering = asyncio.create_task(answer(server, wallet))
            found = await alice.result(error.value.handle, 20)
            await answering
            assert found == await alice.keygen(wallet)


async def test_before_the_first_start_there_is_no_queue(server: Bench) -> None:
    async with connect(server) as alice:
        with pytest.raises(UnavailableError, match="among the daemon's clients") as error:
            await alice.keygen("w", timeout=1)
        assert not error.value.maybe_queued


async def test_events_are_followed_over_a_restart_and_a_daemon_that_never_was_is_told(server: Bench) -> None:
    async with connect(server) as alice:
        with pytest.raises(UnavailableError, match="is the daemon running"):
            await anext(alice.events(follow=True))
        seen: list[str] = []

        async def follow() -> None:
            async for event in alice.events(follow=True):
                seen.append(f"{event.id} {event.state}")

        wallets = [new_id("w") for _ in range(2)]
        following: asyncio.Task[None] | None = None
        for wallet in wallets:
            async with daemon(settings_for(server.url)):
                following = following or asyncio.create_task(follow())
                answering = asyncio.create_task(answer(server, wallet))
                await alice.keygen(wallet, timeout=20)
                await answering
            await asyncio.sleep(1.5)
        async with daemon(settings_for(server.url)), asyncio.timeout(10):
            while len(seen) < 8:
                await asyncio.sleep(0.05)
        assert following
        following.cancel()
    assert seen == [f"{w} {s}" for w in wallets for s in ("accepted", "signed", "published", "completed")]


async def test_a_full_queue_is_told_at_once(server: Bench) -> None:
    async with daemon(settings_for(server.url, streams={"max_queued_per_client": 1})):
        pass
    async with connect(server) as alice:
        await alice.submit(KeygenRequest(wallet_id="w1"))
        began = asyncio.get_running_loop().time()
        with pytest.raises(UnavailableError) as error:
            await alice.keygen("w2", timeout=30)
        assert error.value.code == "STREAM_FULL"
        assert asyncio.get_running_loop().time() - began < 2


async def test_too_large_is_refused(server: Bench) -> None:
    async with daemon(settings_for(server.url, streams={"max_request_bytes": 2048})), connect(server) as alice:
        with pytest.raises(RejectedError) as error:
            await alice.sign("w", bytes([1]) * 3000, tx_id=new_id("t"), key_type="ed25519")
        assert error.value.code == "TOO_LARGE"


async def test_what_was_told_while_nobody_listened_is_asked_for(server: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are told once; a refusal and a completion that were missed are found on the record."""
    monkeypatch.setattr(waiting, "SILENCE_S", (0.2, 0.3))
    monkeypatch.setattr(waiting.Waiting, "on_event", lambda _self, _event: None)
    async with daemon(settings_for(server.url)), connect(server) as alice:
        wallet = new_id("w")
        answering = asyncio.create_task(answer(server, wallet))
        assert (await alice.keygen(wallet, timeout=20)).wallet_id == wallet
        await answering
        with pytest.raises(RejectedError) as error:
            await alice.sign("w", b"\x01m", tx_id="keygen", key_type="ed25519", timeout=20)
        assert error.value.code == "INVALID_FIELD"


async def test_what_surely_was_not_signed_may_be_asked_for_again_under_its_id(server: Bench) -> None:
    away = [RetryError(Code.KMS_UNAVAILABLE, "KMS is away", delay_s=0.1)] * 50
    wallet = new_id("w")
    async with connect(server) as alice:
        async with daemon(settings_for(server.url), ScriptedSigner(*away)):
            soon = datetime.now(UTC) + timedelta(seconds=0.5)
            with pytest.raises(NothingSignedError) as error:
                await alice.keygen(wallet, timeout=20, expires_at=soon)
            assert error.value.code == "KMS_UNAVAILABLE"
            with pytest.raises(NothingSignedError):
                await alice.keygen(wallet, timeout=20)  # the same again ends the same way
        async with daemon(settings_for(server.url)):
            retried = asyncio.create_task(alice.keygen(wallet, timeout=20, retry=error.value.event))
            await server.until("keygen", wallet, "published", attempt=2)
            await server.answer("keygen", wallet, server.keygen_success(wallet))
            assert (await retried).wallet_id == wallet


async def test_a_signature_that_nobody_can_verify_is_not_handed_out(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        server.vault.create(secrets.token_hex(4), "old", ("node0", "node1", "node2"), 1)
        for allowed in (False, True):
            async with connect(server, allow_unverified=allowed) as alice:
                tx_id = new_id("t")
                signing = asyncio.create_task(alice.sign("old", b"\x01m", tx_id=tx_id, key_type="ed25519", timeout=20))
                await server.until("sign", tx_id, "published")
                request = {
                    "wallet_id": "old", "key_type": "ed25519", "tx": b"\x01m", "tx_id": tx_id,
                    "network_internal_code": "", "derivation_path": None,
                }  # fmt: skip
                await server.answer("sign", tx_id, server.sign_success(request))
                if allowed:
                    assert (await signing).verified_by is VerifiedBy.NOBODY
                else:
                    with pytest.raises(UntrustedResultError, match="wallets="):
                        await signing


async def test_closing_tells_those_who_wait(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        async with connect(server) as alice:
            call = asyncio.create_task(alice.keygen(new_id("w"), timeout=30))
            await asyncio.sleep(0.3)
        with pytest.raises(StillRunningError, match="closed"):
            await call


@pytest.mark.timeout(300)
async def test_a_thousand_calls_get_their_own_results_though_the_daemon_is_killed() -> None:
    options = StackOptions(
        kms="local",
        settings={
            "worker": {"ack_wait_s": 3.0, "heartbeat_s": 1.0},
            "mpcium": {"sign": {"in_flight": 100}},
        },
    )
    async with running_stack(options) as stack:
        login: dict[str, Any] = {"user": "alice", "password": stack.password("alice")}
        async with InitiatorClient.connect(stack.nats_url, client="alice", **login) as alice:
            wallet = await alice.keygen("w1")

            async def call(number: int) -> EddsaSignature:
                tx = b"\x01%d" % number
                signed = await alice.sign(wallet.wallet_id, tx, tx_id=f"tx{number}", key_type="ed25519", timeout=200)
                assert isinstance(signed, EddsaSignature)
                assert (signed.tx_id, signed.verified_by) == (f"tx{number}", VerifiedBy.CLIENT)
                return signed

            with capture_logs():
                calls = [asyncio.create_task(call(number)) for number in range(CALLS)]
                while sum(one.done() for one in calls) < CALLS // 10:
                    await asyncio.sleep(0.05)
                await kill(stack)
                assert not all(one.done() for one in calls)
                await stack.start_daemon()
                results = await asyncio.gather(*calls)
    assert len({signed.signature for signed in results}) == CALLS


async def kill(stack: Stack) -> None:
    child = stack.daemon
    assert child
    child.kill()
    await child.wait()
