"""The client against the whole system, with a client's least permissions: its results and its errors."""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import secrets
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import nats
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from initiator.client import (
    DeniedError,
    EcdsaSignature,
    EddsaSignature,
    Event,
    InitiatorClient,
    KeygenRequest,
    KeyType,
    OutcomeUnknownError,
    RejectedError,
    SignRequest,
    SyncInitiatorClient,
    TooLateError,
    UnavailableError,
    UntrustedResultError,
    VerifiedBy,
    Wallet,
)
from initiator.dev.stack import CHAIN_CODE, Stack, StackOptions, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = (44, 60, 0, 0, 7)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with running_stack(StackOptions(kms="local", forward_wait_s=0.3)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def alice(stack: Stack) -> AsyncIterator[InitiatorClient]:
    async with InitiatorClient.connect(
        stack.nats_url, client="alice", user="alice", password=stack.password("alice"), chain_code=CHAIN_CODE
    ) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def wallet(alice: InitiatorClient) -> Wallet:
    return await alice.keygen(new_id("w"))


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(5)}"


async def test_a_wallet_is_two_public_keys(alice: InitiatorClient) -> None:
    seen: list[Event] = []
    name = new_id("w")
    wallet = await alice.keygen(name, labels={"order": "7"}, progress=seen.append)
    assert [event.state for event in seen] == ["accepted", "published", "completed"]
    assert seen[0].body["labels"] == {"order": "7"}
    assert wallet.secp256k1.sec1_uncompressed == b"\x04" + wallet.secp256k1.raw
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), wallet.secp256k1.sec1)
    assert point == load_pem_public_key(wallet.secp256k1.pem.encode())
    assert load_pem_public_key(wallet.ed25519.pem.encode()) == Ed25519PublicKey.from_public_bytes(wallet.ed25519.raw)
    with pytest.raises(ValueError, match="SEC 1"):
        _ = wallet.ed25519.sec1
    assert await alice.wallet(name) == wallet
    assert await alice.wallet("nobody") is None


async def test_a_signature_in_every_form(alice: InitiatorClient, wallet: Wallet) -> None:
    digest = hashlib.sha256(b"pay").digest()
    signed = await alice.sign(wallet.wallet_id, digest, tx_id=str(uuid.uuid4()), key_type="secp256k1")
    assert isinstance(signed, EcdsaSignature)
    assert signed.verified_by is VerifiedBy.CLIENT
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), wallet.secp256k1.sec1)
    key.verify(signed.der, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    assert signed.ethereum == signed.r + signed.s + bytes([27 + signed.recovery])
    eddsa = await alice.sign(wallet.wallet_id, b"\x01message", tx_id=new_id("t"), key_type=KeyType.ED25519)
    assert isinstance(eddsa, EddsaSignature)
    Ed25519PublicKey.from_public_bytes(wallet.ed25519.raw).verify(eddsa.signature, b"\x01message")


async def test_what_is_printed_by_accident_holds_no_payload_and_no_signature(
    alice: InitiatorClient, wallet: Wallet
) -> None:
    tx_id = new_id("t")
    request = SignRequest(
        key_type=KeyType.ED25519, wallet_id=wallet.wallet_id, network_internal_code="", tx_id=tx_id, tx=b"\x01secret"
    )
    handle = await alice.submit(request)
    signed = await alice.result(handle)
    assert isinstance(signed, EddsaSignature)
    event = await alice.status("sign", tx_id)
    shown = f"{handle!r} {signed!r} {event!r}"
    assert tx_id in shown
    assert "secret" not in shown
    assert "signature=" not in shown


async def test_a_child_key_signs_and_can_be_derived(alice: InitiatorClient, wallet: Wallet) -> None:
    child = wallet.derive(PATH)
    digest = hashlib.sha256(b"child").digest()
    signed = await alice.sign(
        wallet.wallet_id, digest, tx_id=new_id("t"), key_type="secp256k1", derivation_path=list(PATH)
    )
    assert isinstance(signed, EcdsaSignature)
    assert signed.verified_by is VerifiedBy.CLIENT
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), child.secp256k1.sec1)
    key.verify(signed.der, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    assert wallet.derive([]) == wallet
    with pytest.raises(ValueError, match="from the wallet itself"):
        child.derive([1])


async def test_a_key_moves_to_other_nodes(alice: InitiatorClient, wallet: Wallet) -> None:
    moved = await alice.reshare(
        new_id("s"), wallet_id=wallet.wallet_id, key_type="ed25519", node_ids=["node0", "node1", "node2"],
        new_threshold=1,
    )  # fmt: skip
    assert moved.public_key == wallet.ed25519
    assert (moved.new_threshold, moved.verified_by) == (1, VerifiedBy.CLIENT)


async def test_without_a_chain_code_the_daemons_word_counts_and_is_said(stack: Stack, wallet: Wallet) -> None:
    async with InitiatorClient.connect(
        stack.nats_url, client="alice", user="alice", password=stack.password("alice")
    ) as plain:
        signed = await plain.sign(
            wallet.wallet_id, b"\x01m", tx_id=new_id("t"), key_type="ed25519", derivation_path=[1]
        )
        assert signed.verified_by is VerifiedBy.DAEMON
        known = await plain.wallet(wallet.wallet_id)
        assert known
        with pytest.raises(ValueError, match="chain_code"):
            known.derive([1])


async def test_the_same_call_again_joins_and_gets_the_same(alice: InitiatorClient, wallet: Wallet) -> None:
    tx_id = new_id("t")

    async def call() -> EcdsaSignature | EddsaSignature:
        return await alice.sign(wallet.wallet_id, b"\x01same", tx_id=tx_id, key_type="ed25519")

    first, second = await asyncio.gather(call(), call())
    assert first == second == await call()
    assert [event.state for event in await alice.history("sign", tx_id)].count("accepted") == 1


async def test_a_handle_is_picked_up_in_another_process(stack: Stack, alice: InitiatorClient, wallet: Wallet) -> None:
    request = SignRequest(
        key_type=KeyType.ED25519, wallet_id=wallet.wallet_id, network_internal_code="", tx_id=new_id("t"), tx=b"\x01h"
    )
    handle = pickle.loads(pickle.dumps(await alice.submit(request)))  # noqa: S301 - our own
    async with InitiatorClient.connect(
        stack.nats_url, client="alice", user="alice", password=stack.password("alice"), chain_code=CHAIN_CODE
    ) as other:
        signed = await other.result(handle, 20)
    assert isinstance(signed, EddsaSignature)
    assert signed == await alice.result(handle)


async def test_another_payload_under_the_same_id_is_refused_and_gets_no_foreign_result(
    alice: InitiatorClient, wallet: Wallet
) -> None:
    tx_id = new_id("t")
    calls = [
        alice.sign(wallet.wallet_id, tx, tx_id=tx_id, key_type="ed25519", timeout=30) for tx in (b"\x01a", b"\x01b")
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    signed = [one for one in results if isinstance(one, EddsaSignature)]
    refused = [one for one in results if isinstance(one, RejectedError)]
    assert (len(signed), [error.code for error in refused]) == (1, ["CONFLICT"])


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"tx_id": "keygen"}, "INVALID_FIELD", "tx_id"),
        ({"tx_id": "a b"}, "INVALID_FIELD", "tx_id"),
        ({"tx": b"short", "key_type": "secp256k1"}, "INVALID_FIELD", "tx"),
        ({"derivation_path": [2**31]}, "INVALID_FIELD", "derivation_path[0]"),
        ({"key_type": "rsa"}, "INVALID_FIELD", "key_type"),
        ({"tx": "0102"}, "INVALID_FIELD", "tx"),
        ({"expires_at": datetime.now(UTC) - timedelta(hours=1)}, "EXPIRED", "expires_at"),
        ({"expires_at": datetime(2030, 1, 1)}, "INVALID_FIELD", "expires_at"),
        ({"labels": {"k": "v" * 200}}, "INVALID_FIELD", "labels"),
        ({"wallet_id": "\ud800"}, "INVALID_FIELD", "wallet_id"),
        ({"labels": {"\ud800": ""}}, "INVALID_FIELD", "labels"),
    ],
)
async def test_what_is_wrong_is_named(alice: InitiatorClient, change: dict[str, object], code: str, field: str) -> None:
    fields = {"wallet_id": "w", "tx": b"\x01m", "tx_id": new_id("t"), "key_type": "ed25519"} | change
    with pytest.raises(RejectedError) as error:
        await alice.sign(**fields)  # type: ignore[call-overload]
    assert (error.value.code, error.value.field) == (code, field)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *[({"timeout": wrong}, "timeout") for wrong in (0, -1.0, float("nan"), float("inf"), "5", True)],
        ({"derivation_path": [2**70]}, "derivation_path[0]"),
        ({"expires_at": datetime.max.replace(tzinfo=UTC)}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00Z"}, "expires_at"),
        ({"retry": 5}, "retry"),
        ({"retry": "\udcff"}, "retry"),
    ],
)
async def test_what_no_call_can_mean_is_refused_at_once(
    alice: InitiatorClient, change: dict[str, object], field: str
) -> None:
    fields = {"wallet_id": "w", "tx": b"\x01m", "tx_id": new_id("t"), "key_type": "ed25519"} | change
    async with asyncio.timeout(1.0):
        with pytest.raises(RejectedError) as error:
            await alice.sign(**fields)  # type: ignore[call-overload]
    assert (error.value.code, error.value.field) == ("INVALID_FIELD", field)


async def test_what_no_question_can_mean_is_refused_at_once(alice: InitiatorClient) -> None:
    for since in (datetime(2030, 1, 1), datetime.max.replace(tzinfo=UTC), "1h"):
        with pytest.raises(RejectedError) as error:
            await anext(alice.events(since=since))  # type: ignore[arg-type]
        assert error.value.field == "since"
    with pytest.raises(RejectedError) as error:
        await alice.reshare(new_id("s"), wallet_id="w", key_type="ed25519", node_ids="abc", new_threshold=1)
    assert error.value.field == "node_ids"
    with pytest.raises(RejectedError) as error:
        async with InitiatorClient.connect([], client="alice"):
            pass
    assert error.value.field == "servers"


async def test_what_the_nodes_refuse_may_not_be_asked_for_under_another_id(alice: InitiatorClient) -> None:
    with pytest.raises(OutcomeUnknownError) as error:
        await alice.sign("nobody", b"\x01m", tx_id=new_id("t"), key_type="ed25519")
    assert (error.value.code, error.value.event.outcome) == ("NODES_ERROR", "unknown")
    assert "another id" in str(error.value)


async def test_too_late_to_cancel_and_nothing_to_cancel(alice: InitiatorClient, wallet: Wallet) -> None:
    with pytest.raises(TooLateError):
        await alice.cancel("keygen", wallet.wallet_id)
    with pytest.raises(RejectedError) as error:
        await alice.cancel("keygen", "nobody")
    assert error.value.code == "NOT_FOUND"


async def test_events_are_read_from_a_moment_on_and_followed(alice: InitiatorClient) -> None:
    moment = datetime.now(UTC)
    await asyncio.sleep(0.02)
    names = [new_id("w"), new_id("w")]
    await alice.keygen(names[0])
    found = [event async for event in alice.events(since=moment)]
    assert [(event.id, event.state) for event in found if event.id == names[0]] == [
        (names[0], state) for state in ("accepted", "signed", "published", "completed")
    ]
    places = [event.sequence for event in found]
    assert places == sorted(places, key=lambda place: place or 0)

    async def follow() -> list[str]:
        seen: list[str] = []
        async for event in alice.events(after=found[-1].sequence or 0, follow=True):
            seen.append(f"{event.id} {event.state}")
            if event.id == names[1] and event.state == "completed":
                return seen
        return seen

    following = asyncio.create_task(follow())
    await alice.keygen(names[1])
    seen = await asyncio.wait_for(following, 10)
    assert seen == [f"{names[1]} {state}" for state in ("accepted", "signed", "published", "completed")]


async def test_a_connection_of_ones_own_is_used_and_left_open(stack: Stack, wallet: Wallet) -> None:
    nc = await nats.connect(stack.nats_url, user="alice", password=stack.password("alice"))
    async with InitiatorClient(nc, client="alice") as client:
        assert await client.keygen(wallet.wallet_id) == Wallet(wallet.wallet_id, wallet.secp256k1, wallet.ed25519)
    assert nc.is_connected
    await nc.close()


async def test_a_known_wallet_outranks_whatever_the_daemon_says(stack: Stack, wallet: Wallet) -> None:
    other = Wallet(wallet.wallet_id, wallet.secp256k1, wallet.derive([1]).ed25519)
    async with InitiatorClient.connect(
        stack.nats_url, client="alice", user="alice", password=stack.password("alice"), wallets=[other]
    ) as client:
        with pytest.raises(UntrustedResultError, match="do not use it"):
            await client.sign(wallet.wallet_id, b"\x01m", tx_id=new_id("t"), key_type="ed25519")


# --- who cannot even ask


@pytest.mark.parametrize(
    ("user", "client", "code", "says"),
    [
        ("initiator", "mallory", "BUS_UNAVAILABLE", "among the daemon's clients"),
        ("alice", "mallory", "BUS_DENIED", "see docs/nats.md"),
        ("alice", "bob", "BUS_DENIED", "see docs/nats.md"),
        ("alice", "a.b", "INVALID_FIELD", "client"),
    ],
)
async def test_a_client_that_is_not_known_is_told(stack: Stack, user: str, client: str, code: str, says: str) -> None:
    with pytest.raises((UnavailableError, RejectedError, DeniedError)) as error:
        async with InitiatorClient.connect(
            stack.nats_url, client=client, user=user, password=stack.password(user)
        ) as stranger:
            await stranger.keygen("w", timeout=5)
    assert error.value.code == code
    assert says in str(error.value)


async def test_a_wrong_password_and_a_server_that_is_not_there(stack: Stack) -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(DeniedError) as denied:
        async with InitiatorClient.connect(stack.nats_url, client="alice", user="alice", password="no"):
            pass
    assert denied.value.code == "BUS_DENIED"
    assert asyncio.get_running_loop().time() - began < 3  # no need to try again
    with pytest.raises(UnavailableError) as absent:
        async with InitiatorClient.connect("nats://u:secret@127.0.0.1:1", client="alice", connect_timeout=1.0):
            pass
    assert absent.value.code == "BUS_UNAVAILABLE"
    assert "secret" not in str(absent.value)


async def test_after_the_block_nothing_more_is_asked(stack: Stack) -> None:
    async with InitiatorClient.connect(
        stack.nats_url, client="alice", user="alice", password=stack.password("alice")
    ) as client:
        pass
    with pytest.raises(UnavailableError, match="closed"):
        await client.keygen("w", timeout=5)


# --- without an event loop


def ask_for_all(url: str, password: str) -> None:
    with SyncInitiatorClient.connect(
        url, client="alice", user="alice", password=password, chain_code=CHAIN_CODE
    ) as alice:
        wallet = alice.keygen(new_id("w"))
        tx_id = new_id("t")
        signed = alice.sign(wallet.wallet_id, b"\x01m", tx_id=tx_id, key_type="ed25519", timeout=20)
        assert signed.verified_by is VerifiedBy.CLIENT
        handle = alice.submit(KeygenRequest(wallet_id=wallet.wallet_id))
        assert alice.result(handle) == wallet == alice.wallet(wallet.wallet_id)
        status = alice.status("sign", tx_id)
        assert status
        assert status.state == "completed"
        assert len(alice.history("sign", tx_id)) == 4
        assert [event.id for event in alice.events(since=timedelta(minutes=5)) if event.id == tx_id] == [tx_id] * 4
        with pytest.raises(TooLateError):
            alice.cancel("sign", tx_id)
        with pytest.raises(RejectedError):
            alice.sign("w", b"\x01m", tx_id="keygen", key_type="ed25519")
    with pytest.raises(UnavailableError, match="closed"):
        alice.keygen("w")


async def test_the_same_without_an_event_loop(stack: Stack) -> None:
    await asyncio.to_thread(ask_for_all, stack.nats_url, stack.password("alice"))
