"""Streams, durables and routing as mpcium's Go nodes make them, and what stands in their way."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from nats.js.api import RetentionPolicy, StreamConfig

from initiator.core.model import Operation
from initiator.dev.nodes import Answer, Behaviour, Publish, SimulatedCluster
from initiator.dev.nodes.jetstream import ApiError

from .bench import Desk, desk
from .conftest import Told
from .test_cluster import NODES, Make

TX = hashlib.sha256(b"tx").digest()
SECOND = 1_000_000_000


async def raw(requester: Desk, api: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await requester.nc.request(f"$JS.API.{api}", b"")).data)
    return answer


async def form(requester: Desk, stream: str) -> dict[str, Any]:
    config: dict[str, Any] = (await raw(requester, f"STREAM.INFO.{stream}"))["config"]
    return config


@pytest.mark.parametrize(
    ("stream", "subject"), [("mpc-keygen", "mpc.keygen_request.*"), ("mpc-signing", "mpc.signing_request.*")]
)
async def test_request_streams_have_gos_form(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make, stream: str, subject: str
) -> None:
    async with SimulatedCluster(config()), desk(url, key) as requester:
        made = await form(requester, stream)
    expected = {
        "subjects": [subject],
        "description": f"Stream for {stream}",
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": 7 * 24 * 3600 * SECOND,
        "max_bytes": 100_000_000,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "duplicate_window": 120 * SECOND,
        "num_replicas": 1,
    }
    assert {name: made[name] for name in expected} == expected


@pytest.mark.parametrize(("routing", "tail"), [("scoped", ">"), ("unscoped", "*")])
async def test_the_result_stream_tells_the_routing(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make, routing: str, tail: str
) -> None:
    async with SimulatedCluster(config(routing=routing)), desk(url, key) as requester:
        made = await form(requester, "mpc")
        filters = {
            name: (await raw(requester, f"CONSUMER.INFO.mpc.{name}"))["config"]
            for name in ("mpc_keygen_result", "mpc_signing_result", "mpc_reshare_result")
        }
    assert made["subjects"] == [f"mpc.mpc_{kind}_result.{tail}" for kind in ("keygen", "signing", "reshare")]
    assert (made["retention"], made["max_bytes"], made["max_age"]) == ("workqueue", 100_000_000, 0)
    assert {one["max_deliver"] for one in filters.values()} == {3}
    assert {one["ack_wait"] for one in filters.values()} == {30 * SECOND}


@pytest.mark.parametrize(
    ("stream", "durable", "pending"),
    [("mpc-keygen", "mpc_keygen_consumer", 2), ("mpc-signing", "mpc_signing_consumer", 20)],
)
async def test_request_durables_have_gos_form_and_are_shared(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make, stream: str, durable: str, pending: int
) -> None:
    async with SimulatedCluster(config()), desk(url, key) as requester:
        info = await raw(requester, f"CONSUMER.INFO.{stream}.{durable}")
        count = (await raw(requester, f"STREAM.INFO.{stream}"))["state"]["consumer_count"]
    expected = {
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "max_deliver": 4,
        "backoff": [30 * SECOND] * 3,
        "max_ack_pending": pending,
    }
    assert {name: info["config"][name] for name in expected} == expected
    assert count == 1


async def test_another_cluster_on_the_same_streams_goes_on_where_the_first_ended(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make, told: Told, tmp_path: Any
) -> None:
    kept = config(store=tmp_path / "wallets.json")
    async with desk(url, key) as requester:
        async with SimulatedCluster(kept):
            await requester.new_wallet("w1")
        await requester.send_sign("w1", "t1", TX)  # nobody is there: it waits in the stream
        async with SimulatedCluster(kept, emit=told):
            assert (await requester.result(Operation.SIGN)).success
    assert not told.of("node.verified", op="keygen")  # nothing old was replayed


async def test_a_result_stream_as_the_typescript_client_makes_it_stops_the_start(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make
) -> None:
    foreign = StreamConfig(name="mpc", subjects=["mpc.mpc_keygen_result.>"], retention=RetentionPolicy.INTEREST)
    async with desk(url, key) as requester:
        await requester.js.add_stream(foreign)
        with pytest.raises(ApiError) as caught:
            await SimulatedCluster(config()).__aenter__()
    assert caught.value.err_code == 10052


async def test_v035_answers_without_a_client_and_sends_reshare_errors_to_the_wallet(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make
) -> None:
    async with SimulatedCluster(config(routing="unscoped")), desk(url, key, None) as requester:
        await requester.send_keygen("w1")
        assert (await requester.message(Operation.KEYGEN)).subject == "mpc.mpc_keygen_result.w1"
        await requester.send_sign("w1", "t1", TX)
        assert (await requester.message(Operation.SIGN)).subject == "mpc.mpc_signing_result.complete"
        await requester.send_reshare("s1", "w1", NODES)
        assert (await requester.message(Operation.RESHARE)).subject == "mpc.mpc_reshare_result.s1"
        await requester.send_reshare("s2", "w9", NODES)
        assert (await requester.message(Operation.RESHARE)).subject == "mpc.mpc_reshare_result.w9"


async def test_v035_names_no_one_when_deliveries_are_used_up(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make
) -> None:
    async with SimulatedCluster(config(routing="unscoped")), desk(url, key, None) as requester:
        await requester.send_sign("w1", "t1", TX, tamper={"tx": "AAAA"})
        assert (await requester.message(Operation.SIGN)).subject == "mpc.mpc_signing_result.*"


async def test_v035_ignores_the_client_id_header(url: str, key: ec.EllipticCurvePrivateKey, config: Make) -> None:
    async with (
        SimulatedCluster(config(routing="unscoped")),
        desk(url, key, "desk") as scoped,
        desk(url, key, None) as unscoped,
    ):
        await scoped.send_keygen("w1")
        assert (await unscoped.message(Operation.KEYGEN)).subject == "mpc.mpc_keygen_result.w1"


async def test_scoped_answers_find_no_stream_once_v035_has_narrowed_it(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make, told: Told
) -> None:
    async with SimulatedCluster(config(), emit=told), desk(url, key) as requester:
        async with SimulatedCluster(config(routing="unscoped", nodes=2)):
            pass
        await requester.send_keygen("w1")
        while not told.of("node.publish_failed", op="keygen"):
            await requester.nc.flush()


# --- the seam for misbehaviour


class Contradicting(Behaviour):
    """Says the truth, and then the contrary under an id of its own."""

    async def answer(self, answer: Answer, publish: Publish) -> None:
        await publish(answer)
        lie = answer.body | {"result_type": "error", "error_code": "ERROR_UNKNOWN"}
        await publish(replace(answer, body=lie, message_id=f"{answer.message_id}:{answer.node_id}"))


async def test_a_behaviour_may_answer_twice_and_contradict_itself(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make
) -> None:
    async with SimulatedCluster(config(), behaviour=Contradicting()), desk(url, key) as requester:
        await requester.send_keygen("w1")
        said = [(await requester.result(Operation.KEYGEN)).success for _ in range(4)]
    assert said.count(True) == 1
    assert said.count(False) == 3


class Deaf(Behaviour):
    """One node hears nothing."""

    def hears(self, node_id: str, operation: str) -> bool:
        return node_id != "node1"


async def test_the_others_answer_for_a_node_that_hears_nothing(
    url: str, key: ec.EllipticCurvePrivateKey, config: Make, told: Told
) -> None:
    async with SimulatedCluster(config(), behaviour=Deaf(), emit=told), desk(url, key) as requester:
        await requester.new_wallet("w1")
    assert not told.of("node.verified", node="node1")
