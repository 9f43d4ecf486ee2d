"""While authorizers think, rules, keys, orders and holders change, and others want to be served."""

from __future__ import annotations

import asyncio
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from nats.aio.msg import Msg

from initiator.core import authorization, message
from initiator.core.authorization import Answer
from initiator.core.model import Operation
from tests.support.authorizers import AUTHORIZERS, BOTH, RISK, Authorizers
from tests.support.governed import Governed, ask, name
from tests.support.harness import ScriptedSigner, running, sign_request
from tests.support.operator import operator


async def test_rules_that_change_meanwhile_are_asked_again(governed: Governed, authorizers: Authorizers) -> None:
    server = governed.server
    denied, more = name("d"), name("w")
    async with running(governed.app()):
        for wallet in (denied, more):
            await server.submit("keygen", {"wallet_id": wallet})
            await authorizers.sign("risk", wallet)
        three = AUTHORIZERS | {"third": dict(AUTHORIZERS["risk"])}
        rule = BOTH | {"authorizers": ["risk", "ops", "third"], "wallets": ["w*"]}
        governed.write([rule], authorizers=three)
        event = await server.until("keygen", denied)
        assert (event["code"], event["outcome"], event["field"]) == ("POLICY_DENIED", "none", "policy.rules.keygen")
        await authorizers.sign("ops", more)
        asking = await authorizers.asking("third", more)
        answer = Answer("third", RISK.sign(asking.to_sign()))
        assert (await authorizers.answer(asking, authorization.encode_answer(answer)))["missing"] == []
        await server.until("keygen", more, "published")


async def test_a_key_that_is_replaced_meanwhile_is_asked_anew(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.sign("risk", wallet)
        seen = len(authorizers.asked)
        other = ed25519.Ed25519PrivateKey.generate()
        changed = {"algorithm": "ed25519", "public_key": other.public_key().public_bytes_raw().hex()}
        governed.write([BOTH], authorizers=AUTHORIZERS | {"risk": changed})
        asking = await authorizers.asking("risk", wallet, after=seen)
        await authorizers.answer(asking, authorization.encode_answer(Answer("risk", other.sign(asking.to_sign()))))
        await authorizers.sign("ops", wallet)
        await server.until("keygen", wallet, "published")


async def test_an_authorizer_that_is_withdrawn_is_waited_for_no_more(
    governed: Governed, authorizers: Authorizers
) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()) as app:
        await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.sign("risk", wallet)
        version = governed.write([BOTH | {"authorizers": ["ops"]}], authorizers={"ops": dict(AUTHORIZERS["ops"])})
        async with asyncio.timeout(10):
            while app.metrics.registry.get_sample_value("initiator_policy_info", {"version": version}) != 1:
                await asyncio.sleep(0.02)
        await authorizers.sign("ops", wallet)
        await server.until("keygen", wallet, "published")
        data, _ = await server.event_at_nodes("keygen", wallet)
    signed_by = [one.authorizer_id for one in message.parse_event(Operation.KEYGEN, data).authorizer_signatures]
    assert signed_by == ["ops"]


async def test_what_was_signed_with_another_key_goes_nowhere(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.sign("risk", wallet)
    governed.signer = ScriptedSigner()  # the nodes' key was replaced, and all were restarted
    async with running(governed.app()):
        event = await server.until("keygen", wallet)
        assert (event["code"], event["outcome"]) == ("KEY_MISMATCH", "none")


async def test_a_freeze_holds_it_back_though_all_have_signed(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()), operator(server.url) as ops:
        await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.sign("risk", wallet)
        await authorizers.asking("ops", wallet)
        await ops.freeze()
        await authorizers.sign("ops", wallet)
        await asyncio.sleep(0.5)
        status = await ask(server, "query.alice.status", {"op": "keygen", "id": wallet})
        assert (status["event"]["state"], status["event"]["awaits"]) == ("authorizing", [])
        lifting = asyncio.create_task(ops.unfreeze())
        await server.until("keygen", wallet, "published")
        await lifting


async def test_copies_that_wait_with_it_ask_nobody(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    short = {"ack_wait_s": 0.6, "heartbeat_s": 0.15, "drain_timeout_s": 1.0}
    async with running(governed.app(worker=short)):
        for _ in range(10):
            await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.asking("ops", wallet)
        await asyncio.sleep(4)  # many ack waits
        assert len([one for one in authorizers.asked if one.operation_id == wallet]) == 2
        await authorizers.sign("risk", wallet)
        await authorizers.sign("ops", wallet)
        await server.until("keygen", wallet, "published")
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        assert await server.all_acked()


async def test_the_watchdog_sees_past_who_waits_for_people(governed: Governed, authorizers: Authorizers) -> None:
    free = {"id": "free", "effect": "allow", "wallets": ["f*"]}
    governed.write([free, BOTH], authorizers=AUTHORIZERS)
    server = governed.server
    lane = {"in_flight": 0, "result_timeout_s": 1.0}
    short = {"ack_wait_s": 0.6, "heartbeat_s": 0.15, "drain_timeout_s": 1.0}
    async with running(governed.app(worker=short, mpcium={"keygen": lane})) as app:
        stalled = app.metrics.registry.get_sample_value
        await server.submit("keygen", {"wallet_id": name("w")})
        await asyncio.sleep(3.5)
        assert stalled("initiator_stalled", {"operation": "keygen"}) in (0, None)
        governed.signer.script = [30.0] * 3
        for _ in range(3):
            await server.submit("keygen", {"wallet_id": name("f")})
        async with asyncio.timeout(10):
            while stalled("initiator_stalled", {"operation": "keygen"}) != 1:
                await asyncio.sleep(0.05)


async def test_who_waits_for_people_holds_up_nobody(governed: Governed, authorizers: Authorizers) -> None:
    free = {"id": "free", "effect": "allow", "wallets": ["f*"]}
    governed.write([free, BOTH], authorizers=AUTHORIZERS)
    server = governed.server
    lanes = {"keygen": {"in_flight": 1}}
    async with running(governed.app(worker={"lookahead": 1}, mpcium=lanes)):
        for _ in range(5):
            await server.submit("keygen", {"wallet_id": name("w")})
        wallet = name("f")
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")


async def test_a_repeated_request_joins_and_asks_nobody_twice(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.asking("ops", wallet)
        await server.submit("keygen", {"wallet_id": wallet})
        await asyncio.sleep(1)
        assert len([one for one in authorizers.asked if one.operation_id == wallet]) == 2
        await authorizers.sign("risk", wallet)
        await authorizers.sign("ops", wallet)
        await server.until("keygen", wallet, "published")
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        assert await server.all_acked()
    assert (governed.signer.calls, await server.published("keygen")) == (1, 1)


@pytest.mark.parametrize("op", ["sign", "reshare"])
async def test_signatures_and_reshares_are_authorized_too(
    governed: Governed, authorizers: Authorizers, op: str
) -> None:
    governed.write([{"id": "all", "effect": "allow", "authorizers": ["risk"]}], authorizers=AUTHORIZERS)
    server, wallet = governed.server, name("w")
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def on_reshare(received: Msg) -> None:
        got.put_nowait(received.data)
        await received.respond(b"")

    await server.nc.subscribe("mpc:reshare", cb=on_reshare)
    async with running(governed.app()):
        if op == "sign":
            fields = sign_request(wallet, derivation_path=[1, 2])
            await server.submit("sign", fields)
            await authorizers.sign("risk", fields["tx_id"])
            await server.until("sign", fields["tx_id"], "published")
            data, _ = await server.event_at_nodes("sign", fields["tx_id"])
        else:
            fields = {"session_id": name("s"), "node_ids": ["node0", "node1"], "new_threshold": 1,
                      "key_type": "ed25519", "wallet_id": wallet}  # fmt: skip
            await server.submit("reshare", fields)
            await authorizers.sign("risk", fields["session_id"])
            data = await asyncio.wait_for(got.get(), 10)
    event = message.parse_event(Operation(op), data)
    [authorized] = event.authorizer_signatures
    RISK.public_key().verify(authorized.signature, message.authorizer_bytes(event.request, event.signature))


async def test_an_authorizer_that_comes_late_is_asked_again(by_both: Governed) -> None:
    server, wallet = by_both.server, name("w")
    async with running(by_both.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "accepted")
        await asyncio.sleep(0.5)
        late = Authorizers(server)
        await late.listen()
        began = time.monotonic()
        await late.asking("risk", wallet)
        assert time.monotonic() - began < 6
