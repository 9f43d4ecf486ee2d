"""What others left behind, work that does not move, and a record that fills."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from structlog.testing import capture_logs

from initiator.app import App
from initiator.config.schema import Settings
from initiator.errors import Code, RetryError
from tests.support.harness import CHAIN_CODE, Bench, ScriptedSigner, bench, daemon, settings_for, sign_request

SOON = {"ack_wait_s": 0.9, "heartbeat_s": 0.3, "drain_timeout_s": 0.5}
DURABLE = "mpc_keygen_result_initiator"


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("leftovers")) as ready:
        yield ready


def settings(server: Bench, **changes: Any) -> Settings:
    lanes = {name: {"in_flight": 2} for name in ("keygen", "sign")}
    mpcium = {"chain_code": CHAIN_CODE, **lanes} | changes.pop("mpcium", {})
    return settings_for(server.url, worker=SOON, mpcium=mpcium, **changes)


def counted(app: App, name: str, **labels: str) -> float:
    return app.metrics.registry.get_sample_value(f"initiator_{name}", labels) or 0.0


def part(app: App, name: str) -> tuple[bool, Code | None]:
    found = next(one for one in app.health.snapshot() if one.name == name)
    return found.ok, found.code


async def until(what: Any) -> None:
    async with asyncio.timeout(15):
        while not what():
            await asyncio.sleep(0.05)


def soon(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()


# --- slots


async def test_the_slot_of_an_ended_operation_is_freed_and_no_other(server: Bench) -> None:
    async with daemon(settings(server)) as app:
        await server.wallet("w")
        request = sign_request("w")
        await server.submit("sign", request)
        await server.until("sign", request["tx_id"], "published")
        await server.js.publish("initiator.slot.keygen.w", b"")  # a frozen holder took it after the end
        await until(lambda: counted(app, "slots_recovered_total", operation="keygen") == 1)
        assert (await server.js.stream_info("INITIATOR_SLOTS_KEYGEN")).state.messages == 0
        assert (await server.js.stream_info("INITIATOR_SLOTS_SIGN")).state.messages == 1
        await server.answer("sign", request["tx_id"], server.sign_success(request))
        await server.until("sign", request["tx_id"])


async def test_a_slot_whose_operation_nobody_can_end_any_more_is_freed_in_the_end(server: Bench) -> None:
    """Its request is gone from the queue (somebody deleted it), its holder too, and the nodes never answer."""
    lane = {"in_flight": 1, "result_timeout_s": 1.0, "default_expiry_s": 3.0}
    chosen = settings(server, mpcium={"keygen": lane})
    async with daemon(chosen):
        await server.submit("keygen", {"wallet_id": "left"})
        await server.until("keygen", "left", "published")
        await server.js.delete_stream("INITIATOR_REQUESTS_alice")
    async with daemon(chosen):
        ended = await server.until("keygen", "left", timeout_s=20)
        assert (ended["code"], ended["outcome"]) == ("RESULT_TIMEOUT", "unknown")
        await server.submit("keygen", {"wallet_id": "next", "expires_at": soon(30)})
        await server.until("keygen", "next", "published", timeout_s=20)
        await server.answer("keygen", "left", server.keygen_success("left"))  # late, and still heard
        assert (await server.until("keygen", "left", "completed"))["supersedes"]["outcome"] == "unknown"


# --- results


async def strand(server: Bench) -> None:
    """As many deliveries as mpcium's clients allow, none of them acked; then the server gives up on the result."""
    config = ConsumerConfig(
        durable_name=DURABLE,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=0.1,
        max_deliver=3,
        filter_subjects=["mpc.mpc_keygen_result.initiator.*"],
    )
    await server.js.add_consumer("mpc", config)
    puller = await server.js.pull_subscribe_bind(DURABLE, "mpc")
    delivered = 0
    while True:
        try:
            delivered += len(await puller.fetch(1, timeout=0.5))
        except TimeoutError:
            break
    assert delivered == 3
    info = await server.js.consumer_info("mpc", DURABLE)
    assert (info.num_pending, info.num_ack_pending) == (0, 0)
    assert (await server.js.stream_info("mpc")).state.messages == 1


async def test_a_stranded_result_is_delivered_again(server: Bench) -> None:
    async with daemon(settings(server)):
        await server.submit("keygen", {"wallet_id": "w"})
        await server.until("keygen", "w", "published")
    await server.js.delete_consumer("mpc", DURABLE)
    await server.answer("keygen", "w", server.keygen_success("w"))
    await strand(server)
    async with daemon(settings(server)) as app:
        assert (await server.until("keygen", "w"))["state"] == "completed"
        await server.results_settled()
        async with asyncio.timeout(10):
            while not counted(app, "results_stranded_total"):
                await asyncio.sleep(0.05)


async def test_a_durable_that_a_node_narrowed_is_restored(server: Bench) -> None:
    async with daemon(settings(server)):
        info = await server.js.consumer_info("mpc", DURABLE)
        assert info.config.max_deliver == -1
        await server.js.add_consumer("mpc", dataclasses.replace(info.config, max_deliver=3))
        async with asyncio.timeout(10):
            while (await server.js.consumer_info("mpc", DURABLE)).config.max_deliver != -1:
                await asyncio.sleep(0.05)


# --- the watchdog


async def test_work_that_waits_while_nothing_moves_is_told_and_told_to_be_over(server: Bench) -> None:
    away = RetryError(Code.KMS_UNAVAILABLE, "away", delay_s=0.1)
    signer = ScriptedSigner(*[away] * 10_000)
    lane = {"in_flight": 2, "result_timeout_s": 1.0}
    lanes = {"keygen": lane, "sign": lane, "reshare": {"result_timeout_s": 1.0}}
    async with daemon(settings(server, mpcium=lanes), signer) as app:
        assert part(app, "progress") == (True, None)
        await server.submit("keygen", {"wallet_id": "w"})
        await until(lambda: not app.health.ready)
        assert part(app, "progress") == (False, Code.STALLED)
        assert counted(app, "stalled", operation="keygen") == 1
        assert counted(app, "stalled", operation="sign") == 0
        signer.script.clear()
        await until(lambda: app.health.ready)
        assert counted(app, "stalled", operation="keygen") == 0


async def test_new_requests_do_not_hide_that_nothing_gets_done(server: Bench) -> None:
    away = RetryError(Code.KMS_UNAVAILABLE, "away", delay_s=0.1)
    lane = {"in_flight": 2, "result_timeout_s": 1.0}
    lanes = {"keygen": lane, "sign": lane, "reshare": {"result_timeout_s": 1.0}}
    async with daemon(settings(server, mpcium=lanes), ScriptedSigner(*[away] * 10_000)) as app:
        with capture_logs() as logs:
            for number in range(24):  # claimed, or refused, and that is all
                await server.submit("keygen", {"wallet_id": f"w{number}"} if number % 2 else {"wallet_id": "?"})
                await asyncio.sleep(0.3)
        assert part(app, "progress") == (False, Code.STALLED)
        said = [line["event"] for line in logs if line["event"].startswith("watchdog.")]
        assert said == ["watchdog.stalled"]


async def test_no_work_is_no_standstill(server: Bench) -> None:
    lane = {"in_flight": 2, "result_timeout_s": 0.5}
    lanes = {"keygen": lane, "sign": lane, "reshare": {"result_timeout_s": 0.5}}
    async with daemon(settings(server, mpcium=lanes)) as app:
        await server.wallet("w")
        await asyncio.sleep(3)
        assert app.health.ready


# --- a record that fills


async def test_above_the_high_water_mark_nothing_new_is_claimed_and_what_is_in_flight_is_recorded(
    server: Bench,
) -> None:
    limits = {"max_events_bytes": 40_000, "claim_high_water": 0.5}
    async with daemon(settings(server, streams=limits)) as app:
        await server.submit("keygen", {"wallet_id": "before"})
        await server.until("keygen", "before", "published")
        filler = sign_request("w", tx_id="filler", tx=b"\x01" * 15_000)
        await server.submit("sign", filler)
        await server.until("sign", "filler", "published")
        await until(lambda: part(app, "record") == (False, Code.RECORD_FULL))
        assert not app.health.ready

        await server.submit("keygen", {"wallet_id": "after"})
        await server.answer("keygen", "before", server.keygen_success("before"))
        assert (await server.until("keygen", "before"))["state"] == "completed"
        assert server.states("keygen", "after") == []

        info = await server.js.stream_info("INITIATOR_EVENTS")
        await server.js.update_stream(dataclasses.replace(info.config, max_bytes=1_000_000))
        await server.until("keygen", "after", "published", timeout_s=20)
        assert part(app, "record") == (True, None)


async def test_a_burst_of_claims_does_not_fill_a_small_record_between_two_looks(server: Bench) -> None:
    limits = {"max_events_bytes": 200_000, "claim_high_water": 0.5}
    async with daemon(settings_for(server.url, worker=SOON, streams=limits)) as app:
        for number in range(200):
            await server.submit("keygen", {"wallet_id": f"many{number}"})
        await until(lambda: part(app, "record") == (False, Code.RECORD_FULL))
        await asyncio.sleep(1.0)
        claimed = {event["id"] for event in server.seen if event["state"] == "accepted"}
        assert 0 < len(claimed) < 200
        state = (await server.js.stream_info("INITIATOR_EVENTS")).state
        assert state.bytes < 0.75 * limits["max_events_bytes"]
        for wallet in claimed:
            await server.answer("keygen", wallet, server.keygen_success(wallet))
        for wallet in claimed:
            assert (await server.until("keygen", wallet))["state"] == "completed"
