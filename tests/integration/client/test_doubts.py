"""What must never be said wrongly: that nothing was signed, that a result is true, that a call has ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from initiator.client import (
    DeniedError,
    EddsaSignature,
    Event,
    InitiatorClient,
    KeygenRequest,
    KeyType,
    NothingSignedError,
    OutcomeUnknownError,
    PublicKey,
    RejectedError,
    SignRequest,
    StillRunningError,
    UnavailableError,
    UntrustedResultError,
    VerifiedBy,
    Wallet,
)
from initiator.core.events import parse_time
from initiator.dev.nodes.vault import Vault
from tests.support.harness import CHAIN_CODE, NODES, Bench, ScriptedSigner, bench, daemon, settings_for


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(5)}"


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("doubts")) as ready:
        yield ready


def connect(server: Bench, **options: Any) -> contextlib.AbstractAsyncContextManager[InitiatorClient]:
    return InitiatorClient.connect(server.url, client="alice", **options)


def signing(tx_id: str) -> SignRequest:
    return SignRequest(
        key_type=KeyType.ED25519, wallet_id="old", network_internal_code="", tx_id=tx_id, tx=b"\x01" + tx_id.encode()
    )


async def sign(client: InitiatorClient, tx_id: str, **options: Any) -> EddsaSignature:
    made: EddsaSignature = await client.sign(
        "old", b"\x01" + tx_id.encode(), tx_id=tx_id, key_type="ed25519", **options
    )
    return made


def wallet_of(vault: Vault) -> Wallet:
    """A wallet by the name `old`."""
    vault.create(secrets.token_hex(4), "old", NODES, 1)
    secp256k1 = PublicKey(KeyType.SECP256K1, vault.public_key("old", "secp256k1"))
    return Wallet("old", secp256k1, PublicKey(KeyType.ED25519, vault.public_key("old", "ed25519")))


async def answer_sign(server: Bench, tx_id: str) -> None:
    await server.until("sign", tx_id, "published")
    request = {"wallet_id": "old", "key_type": "ed25519", "tx": b"\x01" + tx_id.encode(), "tx_id": tx_id}
    await server.answer("sign", tx_id, server.sign_success(request | {"network_internal_code": ""}))


async def test_after_a_cancel_nothing_that_waited_goes_on(server: Bench) -> None:
    """One place in preparation, and a slow KMS: a retry waits in the queue while its operation is cancelled."""
    narrow = settings_for(server.url, worker={"ack_wait_s": 30.0, "heartbeat_s": 0.5, "lookahead": 1})
    async with daemon(narrow, ScriptedSigner(1.5, 3.0)), connect(server) as alice:
        with pytest.raises(NothingSignedError) as failure:
            await sign(alice, "tx1", timeout=20, expires_at=datetime.now(UTC) + timedelta(seconds=1))
        await alice.submit(signing("blocker"))
        await server.until("sign", "blocker", "accepted")
        retry = asyncio.create_task(sign(alice, "tx1", timeout=20, retry=failure.value.event))
        await asyncio.sleep(0.5)
        cancelled = await alice.cancel("sign", "tx1")
        assert cancelled.event_id != failure.value.event.event_id
        with pytest.raises(NothingSignedError) as ended:
            await retry
        assert ended.value.event.event_id == cancelled.event_id
        await server.until("sign", "blocker", "published")
        assert await server.published("sign") == 1
        assert "published" not in server.states("sign", "tx1")


async def test_an_end_that_was_only_told_ends_nothing(server: Bench) -> None:
    async with daemon(settings_for(server.url)), connect(server) as alice:
        wallet = new_id("w")
        call = asyncio.create_task(alice.keygen(wallet, timeout=20))
        told = dict(await server.until("keygen", wallet, "published"))
        forged = {
            "state": "failed",
            "code": "CANCELLED",
            "reason": "so it seems",
            "outcome": "none",
            "event_id": "f" * 16,
        }
        keys = server.keygen_success("another")
        body = {"ecdsa_pub_key": keys["ecdsa_pub_key"], "eddsa_pub_key": keys["eddsa_pub_key"]}
        made_up = {"state": "completed", "verification": "verified", "result": body, "event_id": "e" * 16}
        refused = {"state": "rejected", "code": "CONFLICT", "reason": "so it seems", "field": None, "attempt": 0}
        for lie in (forged, made_up, refused):
            data = json.dumps(told | lie).encode()
            subject = f"initiator.out.alice.keygen.{wallet}.{lie['state']}"
            await server.nc.publish(subject, data, headers={"Content-Type": "application/json"})
        await asyncio.sleep(0.5)
        assert not call.done()
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        assert (await call).keys.ecdsa == server.vault.public_key(wallet, "secp256k1")


async def test_a_signature_that_proves_itself_needs_no_daemon(server: Bench) -> None:
    known = wallet_of(server.vault)
    questions: list[Msg] = []

    async def listen(message: Msg) -> None:
        questions.append(message)

    await server.nc.subscribe("initiator.query.>", cb=listen)
    async with daemon(settings_for(server.url)), connect(server, wallets=[known]) as alice:
        call = asyncio.create_task(sign(alice, "tx1", timeout=20))
        await answer_sign(server, "tx1")
        assert (await call).verified_by is VerifiedBy.CLIENT
    assert questions == []


async def test_a_wallet_that_was_given_is_not_replaced_by_the_daemons(server: Bench) -> None:
    mine = wallet_of(Vault(bytes.fromhex(CHAIN_CODE)))
    async with daemon(settings_for(server.url)), connect(server, wallets=[mine], chain_code=CHAIN_CODE) as alice:
        call = asyncio.create_task(alice.keygen("old", timeout=20))
        await server.until("keygen", "old", "published")
        await server.answer("keygen", "old", server.keygen_success("old"))
        with pytest.raises(UntrustedResultError, match="other keys"):
            await call
        known = await alice.wallet("old")
        assert known is not None
        assert known.keys == mine.keys
        assert known.derive([1]).path == (1,)  # with the cluster's chain code


async def test_what_cannot_be_gone_on_after_is_told_at_once(server: Bench) -> None:
    async with daemon(settings_for(server.url)), connect(server) as alice:
        call = asyncio.create_task(alice.keygen("w1", timeout=20))
        await server.until("keygen", "w1", "published")
        await server.answer("keygen", "w1", server.error("keygen", "w1", "ERROR_UNKNOWN"))
        with pytest.raises(OutcomeUnknownError) as failure:
            await call
        with pytest.raises(RejectedError, match="outcome none") as refused:
            await alice.keygen("w1", timeout=20, retry=failure.value.event)
        assert refused.value.field == "retry"
        async with asyncio.timeout(15):  # by its id, nobody can see beforehand that it cannot be
            with pytest.raises(OutcomeUnknownError):
                await alice.keygen("w1", timeout=60, retry=failure.value.event.event_id)


async def test_a_repeated_call_joins_although_the_rules_have_changed(server: Bench) -> None:
    tight = settings_for(server.url, limits={"max_tx_bytes": 32})
    async with connect(server) as alice:
        tx = b"\x01" * 40
        async with daemon(settings_for(server.url)):
            with pytest.raises(StillRunningError):
                await alice.sign("old", tx, tx_id="tx1", key_type="ed25519", timeout=1.5)
        async with daemon(tight):
            with pytest.raises(StillRunningError):
                await alice.sign("old", tx, tx_id="tx1", key_type="ed25519", timeout=3)
            with pytest.raises(RejectedError, match="tx"):
                await alice.sign("old", tx, tx_id="tx2", key_type="ed25519", timeout=20)


async def test_a_repeat_that_is_refused_itself_ends_nothing_of_what_it_repeats(server: Bench) -> None:
    """KMS is slow for longer than two ack waits, so that the original looks as if nobody held it any more."""
    async with daemon(settings_for(server.url), ScriptedSigner(8.0)):
        wallet = new_id("w")
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "accepted")
        await server.submit("keygen", {"wallet_id": wallet, "labels": {f"k{n}": "" for n in range(100)}})
        await server.until("keygen", wallet, "published", timeout_s=20)
        assert "failed" not in server.states("keygen", wallet)


async def test_who_may_not_ask_is_told_that_what_he_sent_goes_on(server: Bench) -> None:
    async with daemon(settings_for(server.url)), connect(server) as alice:
        handle = await alice.submit(KeygenRequest(wallet_id=new_id("w")))
        link: Any = alice._link
        ask = link.ask

        async def denied(*_arguments: Any) -> Any:
            raise DeniedError("BUS_DENIED", "NATS takes no question from us")

        link.ask = denied
        with pytest.raises(StillRunningError, match="NATS takes no question") as running_on:
            await alice.result(handle, timeout=5)
        assert running_on.value.handle == handle
        link.ask = ask


async def test_every_request_has_a_deadline(server: Bench) -> None:
    forgetful = settings_for(server.url, streams={"final_max_age_s": 86_400.0 * 400})
    async with daemon(forgetful), connect(server) as alice:
        handle = await alice.submit(KeygenRequest(wallet_id="w1"))
        accepted = await server.until("keygen", "w1", "accepted")
        assert handle.request.expires_at is not None
        assert abs(handle.request.expires_at - parse_time(accepted["time"]) - 900) < 30


async def test_a_request_that_may_be_in_the_queue_is_not_said_to_be_nowhere(server: Bench) -> None:
    """Its first copy is taken, and the answer lost; then the queue is full, or gone."""
    taken: list[Msg] = []

    async def queue(message: Msg) -> None:
        taken.append(message)
        if len(taken) > 1:
            full = {"error": {"code": 503, "err_code": 10077, "description": "maximum messages exceeded"}}
            await message.respond(json.dumps(full).encode())

    subscription = await server.nc.subscribe("initiator.request.alice.keygen", cb=queue)
    async with connect(server) as alice:
        with pytest.raises(UnavailableError) as full:
            await alice.keygen("w1", timeout=20)
        assert (full.value.code, full.value.maybe_queued) == ("STREAM_FULL", True)
        taken.clear()
        call = asyncio.create_task(alice.keygen("w2", timeout=20))
        while not taken:
            await asyncio.sleep(0.02)
        await subscription.unsubscribe()
        with pytest.raises(UnavailableError, match="no queue takes") as gone:
            await call
        assert gone.value.maybe_queued


async def test_following_ends_with_the_client_and_with_its_connection(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        own = await nats.connect(server.url)
        async with connect(server) as alice, InitiatorClient(own, client="alice") as second:
            followers = [asyncio.create_task(read_all(client)) for client in (alice, second)]
            await asyncio.sleep(0.5)
            await own.close()
            async with asyncio.timeout(10):
                assert isinstance(await followers[1], UnavailableError)
            assert not followers[0].done()
        async with asyncio.timeout(10):
            assert isinstance(await followers[0], UnavailableError)


async def read_all(client: InitiatorClient) -> Exception | None:
    try:
        async for _ in client.events(follow=True):
            pass
    except UnavailableError as error:
        return error
    return None


async def test_callbacks_of_ones_own_are_called_too(server: Bench) -> None:
    told: list[str] = []

    async def on_error(error: Exception) -> None:
        told.append(str(error))

    async with connect(server, error_cb=on_error) as alice:
        link: Any = alice._link
        await link._nc._error_cb(RuntimeError("told"))
    assert told == ["told"]


async def test_progress_that_fails_is_its_own_callers_matter(server: Bench) -> None:
    def fails(_event: Event) -> None:
        raise RuntimeError("a bug of its own")

    async with daemon(settings_for(server.url)), connect(server) as alice:
        wallet = new_id("w")
        ours = asyncio.create_task(alice.keygen(wallet, timeout=20, progress=fails))
        theirs = asyncio.create_task(alice.keygen(wallet, timeout=20))
        await server.until("keygen", wallet, "published")
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        assert (await theirs).wallet_id == wallet
        with pytest.raises(RuntimeError, match="a bug of its own"):
            await ours
