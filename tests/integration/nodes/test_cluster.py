"""The simulated nodes on a real server: their answers hold under the wallet's key, their refusals are mpcium's."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from nats.errors import NoRespondersError

from initiator.core.model import KeyType, Operation
from initiator.core.result import ReshareKey
from initiator.core.wallet import Status, WalletKeys, verify_reshare, verify_signature
from initiator.dev.nodes import (
    Answer,
    AuthorizerKey,
    Behaviour,
    NodesConfig,
    Publish,
    SimulatedCluster,
    jetstream,
)

from .bench import Desk, desk, nats_server, spki_hex
from .conftest import Told

Make: TypeAlias = Callable[..., NodesConfig]
CHAIN_CODE = hashlib.sha256(b"chain").digest()
TX = hashlib.sha256(b"tx").digest()
PATH = (44, 60, 0, 0, 7)
NODES = ["node0", "node1", "node2"]


@pytest.fixture
async def requester(url: str, key: ec.EllipticCurvePrivateKey) -> AsyncIterator[Desk]:
    async with desk(url, key) as one:
        yield one


@pytest.fixture
async def cluster(config: Make, told: Told) -> AsyncIterator[SimulatedCluster]:
    async with SimulatedCluster(config(chain_code=CHAIN_CODE.hex()), emit=told) as running:
        yield running


async def verified(requester: Desk, keys: WalletKeys, key_type: KeyType, tx: bytes, path: Any) -> Status:
    result = await requester.result(Operation.SIGN)
    assert result.success, result
    return verify_signature(
        key_type=key_type, tx=tx, derivation_path=path, result=result, keys=keys, chain_code=CHAIN_CODE
    ).status


# --- answers


@pytest.mark.usefixtures("cluster")
async def test_a_keygen_is_verified_by_every_node_and_answered_once(requester: Desk, told: Told) -> None:
    keys = await requester.new_wallet("w1")
    assert keys.ecdsa is not None
    assert keys.eddsa is not None
    while len(told.of("node.answered")) < 3:  # the other nodes' answers are taken for repetitions
        await requester.nc.flush()
    assert sorted(line["node"] for line in told.of("node.verified", op="keygen", id="w1")) == NODES
    assert [line["first"] for line in told.of("node.answered")].count(True) == 1
    assert await requester.stored_results() == 0


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("path", [None, (), (0,), PATH])
@pytest.mark.parametrize("key_type", list(KeyType))
async def test_a_signature_holds_under_the_wallets_key_or_its_child(
    requester: Desk, key_type: KeyType, path: tuple[int, ...] | None
) -> None:
    keys = await requester.new_wallet("w1")
    await requester.send_sign("w1", "t1", TX, key_type.value, path=path)
    assert await verified(requester, keys, key_type, TX, path) is Status.VERIFIED


@pytest.mark.usefixtures("cluster")
async def test_a_tx_with_leading_zeros_loses_them_in_eddsa_only(requester: Desk) -> None:
    keys = await requester.new_wallet("w1")
    tx = bytes(2) + TX[2:]
    await requester.send_sign("w1", "t1", tx, "secp256k1")
    assert await verified(requester, keys, KeyType.SECP256K1, tx, None) is Status.VERIFIED
    await requester.send_sign("w1", "t2", tx, "ed25519")
    assert await verified(requester, keys, KeyType.ED25519, tx, None) is Status.INVALID


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("key_type", list(KeyType))
async def test_a_reshare_keeps_the_key_and_only_the_new_committee_signs_on(
    requester: Desk, key_type: KeyType, told: Told
) -> None:
    keys = await requester.new_wallet("w1")
    await requester.send_reshare("s1", "w1", ["node1", "node2"], key_type.value)
    result = await requester.result(Operation.RESHARE)
    assert isinstance(result.value, ReshareKey)
    assert verify_reshare(result, keys).status is Status.VERIFIED
    await requester.send_sign("w1", "t1", TX, key_type.value)
    assert await verified(requester, keys, key_type, TX, None) is Status.VERIFIED
    for operation in ("reshare", "sign"):
        assert {line["node"] for line in told.of("node.answered", op=operation)} <= {"node1", "node2"}


@pytest.mark.usefixtures("cluster")
async def test_many_requests_at_once_each_get_their_own_answer(requester: Desk) -> None:
    await requester.new_wallet("w1")
    for number in range(60):
        await requester.send_sign("w1", f"t{number}", TX, "ed25519")
    answered = {(await requester.result(Operation.SIGN)).operation_id for _ in range(60)}
    assert answered == {f"t{number}" for number in range(60)}


# --- what does not verify


@pytest.mark.usefixtures("cluster")
async def test_a_tampered_keygen_is_answered_with_an_error_at_once(requester: Desk, told: Told) -> None:
    await requester.send_keygen("w1", tamper={"wallet_id": "w2"})
    result = await requester.result(Operation.KEYGEN)
    assert (result.success, result.operation_id, result.error_code) == (False, "w2", "ERROR_UNKNOWN")
    assert result.error_reason == "Failed to verify initiator message: invalid signature"
    assert told.of("node.refused", op="keygen", id="w2", reason="invalid signature")


@pytest.mark.usefixtures("cluster")
async def test_a_tampered_sign_gets_no_answer_until_its_deliveries_are_used_up(requester: Desk, told: Told) -> None:
    await requester.new_wallet("w1")
    await requester.send_sign("w1", "t1", TX, tamper={"tx": "AAAA"})
    message = await requester.message(Operation.SIGN)
    assert b'"error_code":"ERROR_MAX_DELIVERY_ATTEMPTS"' in message.data
    assert b'"is_timeout":true' in message.data
    assert b'"signature":null' not in message.data  # our own signature comes back: trap 5
    assert len(told.of("node.refused", op="sign", id="t1")) == 3 * 4  # each node, at each of four deliveries
    assert not told.of("node.verified", op="sign")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("field", ["key_type", "wallet_id", "network_internal_code", "tx_id"])
async def test_each_signed_field_of_a_sign_event_is_covered(requester: Desk, told: Told, field: str) -> None:
    await requester.new_wallet("w1")
    await requester.send_sign("w1", "t1", TX, tamper={field: "ed25519"})
    assert await requester.error(Operation.SIGN) == "ERROR_MAX_DELIVERY_ATTEMPTS"
    assert told.of("node.refused", op="sign")


@pytest.mark.usefixtures("cluster")
async def test_the_derivation_path_is_not_covered_by_the_signature(requester: Desk) -> None:
    keys = await requester.new_wallet("w1")
    await requester.send_sign("w1", "t1", TX, tamper={"derivation_path": [9]})  # trap 2
    assert await verified(requester, keys, KeyType.SECP256K1, TX, (9,)) is Status.VERIFIED


@pytest.mark.usefixtures("cluster")
async def test_a_tampered_reshare_is_answered_with_an_error_at_once(requester: Desk) -> None:
    await requester.new_wallet("w1")
    await requester.send_reshare("s1", "w1", NODES, tamper={"new_threshold": 2})
    result = await requester.result(Operation.RESHARE)
    assert (result.success, result.error_code) == (False, "ERROR_UNKNOWN")


async def test_a_key_that_the_nodes_do_not_trust_moves_nothing(url: str, config: Make, told: Told) -> None:
    async with SimulatedCluster(config(), emit=told), desk(url, ec.generate_private_key(ec.SECP256R1())) as stranger:
        await stranger.send_keygen("w1")
        assert await stranger.error(Operation.KEYGEN) == "ERROR_UNKNOWN"
        assert not told.of("node.verified")


async def test_a_required_authorizer_is_missed(config: Make, requester: Desk) -> None:
    authorizers = {"chief": AuthorizerKey(public_key=config().pubkey, algorithm="p256")}
    async with SimulatedCluster(config(authorizers=authorizers, required_authorizers=("chief",))):
        await requester.send_keygen("w1")
        assert await requester.error(Operation.KEYGEN) == "ERROR_MISSING_AUTHORIZER_SIGNATURE"


# --- repetition and absence


@pytest.mark.usefixtures("cluster")
async def test_a_wallet_is_made_once(requester: Desk) -> None:
    await requester.new_wallet("w1")
    await requester.send_keygen("w1")
    assert await requester.error(Operation.KEYGEN) == "ERROR_KEY_ALREADY_EXISTS"


@pytest.mark.usefixtures("cluster")
async def test_a_transaction_is_signed_once_whatever_else_differs(requester: Desk) -> None:
    await requester.new_wallet("w1")
    await requester.send_sign("w1", "t1", TX)
    assert (await requester.result(Operation.SIGN)).success
    await requester.send_sign("w1", "t1", TX, "ed25519")
    assert await requester.error(Operation.SIGN) == "ERROR_SESSION_DUPLICATE"


@pytest.mark.usefixtures("cluster")
async def test_a_failed_signing_spends_its_transaction_id_too(requester: Desk) -> None:
    await requester.send_sign("w1", "t1", TX)
    assert await requester.error(Operation.SIGN) == "ERROR_KEY_NOT_FOUND"
    await requester.new_wallet("w1")
    await requester.send_sign("w1", "t1", TX)
    assert await requester.error(Operation.SIGN) == "ERROR_SESSION_DUPLICATE"


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("tx", "changes", "reason"),
    [
        (b"\xff" * 32, {}, "Failed to sign tx: hashed message is not valid"),
        (TX, {"path": [2**31]}, "Failed to init signing session: the index must be non-hardened"),
        (TX, {"key_type": "p256"}, "Failed to create signing session: unsupported key type: p256"),
    ],
)
async def test_what_the_protocol_cannot_sign_is_an_error(
    requester: Desk, tx: bytes, changes: dict[str, Any], reason: str
) -> None:
    await requester.new_wallet("w1")
    await requester.send_sign("w1", "t1", tx, **changes)
    assert (await requester.result(Operation.SIGN)).error_reason == reason


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("wallet_id", "committee", "words"),
    [
        ("w2", NODES, "failed to get old key info"),
        ("w1", ["node1", "node9"], "new peer node9 is not ready"),
        ("w1", ["node1"], "smaller than required t+1"),
        ("w1", [], "smaller than required t+1"),
    ],
)
async def test_a_reshare_that_cannot_be_is_an_error(
    requester: Desk, wallet_id: str, committee: list[str], words: str
) -> None:
    await requester.new_wallet("w1")
    await requester.send_reshare("s1", wallet_id, committee)
    assert words in (await requester.result(Operation.RESHARE)).error_reason


@pytest.mark.usefixtures("url")
async def test_a_reshare_that_nobody_hears_is_told_at_once(requester: Desk) -> None:
    with pytest.raises(NoRespondersError):
        await requester.nc.request("mpc:reshare", b"{}", timeout=2)


# --- readiness


async def test_a_cluster_that_is_not_ready_says_so_and_begins_nothing(config: Make, requester: Desk) -> None:
    async with SimulatedCluster(config()) as cluster:
        cluster.set_ready(False)
        await requester.send_keygen("w1")
        assert await requester.error(Operation.KEYGEN) == "ERROR_CLUSTER_NOT_READY"
        await requester.send_sign("w1", "t1", TX)
        assert await requester.error(Operation.SIGN) == "ERROR_NOT_MAJORITY"
        cluster.set_ready(True)
        await requester.new_wallet("w1")
        await requester.send_sign("w1", "t1", TX)  # the same tx_id: no session was begun
        assert (await requester.result(Operation.SIGN)).success


async def test_a_cluster_may_start_unready(config: Make, requester: Desk) -> None:
    async with SimulatedCluster(config(not_ready_for_s=3600.0)):
        await requester.send_sign("w1", "t1", TX)
        assert await requester.error(Operation.SIGN) == "ERROR_NOT_MAJORITY"


async def test_a_configured_delay_passes_before_an_answer(config: Make, requester: Desk) -> None:
    async with SimulatedCluster(config(delay_s=0.3)):
        begun = asyncio.get_running_loop().time()
        await requester.new_wallet("w1")
        assert asyncio.get_running_loop().time() - begun >= 0.3


async def test_the_nodes_go_on_after_a_restart_of_the_server(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey, told: Told
) -> None:
    async with AsyncExitStack() as nodes:
        async with nats_server(tmp_path) as url:
            config = NodesConfig(servers=(url,), pubkey=spki_hex(key))
            await nodes.enter_async_context(SimulatedCluster(config, emit=told))
            async with desk(url, key) as before:
                await before.new_wallet("w1")
        async with nats_server(tmp_path, port=int(url.rpartition(":")[2])), desk(url, key) as after:
            await after.send_sign("w1", "t1", TX)
            assert (await after.result(Operation.SIGN, wait_s=15)).success
    assert not told.of("node.crashed")


class Held(Behaviour):
    """Has its answers ready, and gives them when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Semaphore(0)
        self.may_answer = asyncio.Event()

    async def answer(self, answer: Answer, publish: Publish) -> None:
        self.ready.release()
        await self.may_answer.wait()
        await publish(answer)


async def test_a_result_that_finds_no_server_is_published_once_it_is_back(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wallet is made by then: lost, it could be made under this id by nobody any more."""
    monkeypatch.setattr(jetstream, "_API_TIMEOUT_S", 1.0)
    held = Held()
    async with AsyncExitStack() as nodes:
        async with nats_server(tmp_path) as url:
            cluster = SimulatedCluster(NodesConfig(servers=(url,), pubkey=spki_hex(key)), emit=told, behaviour=held)
            await nodes.enter_async_context(cluster)
            async with desk(url, key) as before:
                await before.send_keygen("w1")
            for _ in NODES:
                await held.ready.acquire()
        held.may_answer.set()
        async with asyncio.timeout(30):
            while {line["node"] for line in told.of("node.publish_retried", op="keygen", id="w1")} != set(NODES):
                await asyncio.sleep(0.05)
        async with nats_server(tmp_path, port=int(url.rpartition(":")[2])), desk(url, key) as after:
            result = await after.result(Operation.KEYGEN, wait_s=30)
    assert result.success
    assert result.operation_id == "w1"
    assert not told.of("node.publish_failed")


async def test_without_a_fresh_session_id_the_second_error_is_taken_for_the_first(
    config: Make, requester: Desk, told: Told
) -> None:
    async with SimulatedCluster(config(), emit=told) as cluster:
        cluster.set_ready(False)
        for _ in range(2):
            await requester.send_keygen("w1", session=None)
        await requester.send_keygen("w1")
        while len(told.of("node.answered")) < 3:
            await requester.nc.flush()
        assert await requester.stored_results() == 2
