"""Replicas that were overtaken without knowing it: frozen with a delivery in their socket, or cut off while waiting."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from nats.js.api import DiscardPolicy

from initiator.app import App
from initiator.bus.connection import Message
from initiator.bus.pull import Pull
from initiator.config.schema import Settings
from initiator.errors import Code, RetryError
from initiator.flow.held import HeldRequests
from tests.support.harness import Bench, ScriptedSigner, bench, daemon, running, settings_for, source


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("overtaken")) as ready:
        yield ready


def rejections(server: Bench) -> list[dict[str, Any]]:
    return [event for event in server.seen if event["state"] == "rejected"]


@pytest.mark.timeout(60)
async def test_a_delivery_that_lay_in_a_frozen_socket_is_not_refused_after_another_took_it(
    server: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Callable[[Pull, Message], Awaitable[None]] = Pull._on_message
    late: list[asyncio.Task[None]] = []

    async def freeze_first(pull: Pull, message: Message) -> None:
        async def awake() -> None:
            await asyncio.sleep(6.5)
            await read(pull, message)

        if message.reply.startswith("$JS.ACK.INITIATOR_REQUESTS") and not late:
            late.append(asyncio.create_task(awake()))
        else:
            await read(pull, message)

    monkeypatch.setattr(Pull, "_on_message", freeze_first)
    async with daemon(settings_for(server.url)), daemon(settings_for(server.url)):
        wallet = f"w{secrets.token_hex(6)}"
        expires_at = datetime.fromtimestamp(time.time() + 5, UTC).isoformat()
        await server.submit("keygen", {"wallet_id": wallet, "expires_at": expires_at})
        await server.until("keygen", wallet, "published")
        await late[0]  # past the deadline, with a first delivery that looks fresh
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet, "completed")
        await asyncio.sleep(0.5)
        assert rejections(server) == []


@pytest.mark.timeout(60)
async def test_what_another_has_refused_is_not_claimed_by_whoever_held_it_first(
    server: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = settings_for(server.url, worker={"lookahead": 1})
    without_bob = Settings.model_validate(both.model_dump() | {"clients": {"alice": {}}})
    slow = ScriptedSigner(14.0)
    async with running(App(both, source(slow))):
        first, bobs = f"w{secrets.token_hex(6)}", f"w{secrets.token_hex(6)}"
        await server.submit("keygen", {"wallet_id": first})
        await server.until("keygen", first, "accepted")
        sequence = await server.submit("keygen", {"wallet_id": bobs}, client="bob")
        await asyncio.sleep(0.3)  # it waits for its turn

        async def silence(_self: HeldRequests) -> None:
            """Cut off, for longer than the ack wait."""

        monkeypatch.setattr(HeldRequests, "heartbeat", silence)
        other = App(both, source(ScriptedSigner()), lambda: without_bob)
        async with running(other):
            other.reload()
            assert (await server.rejection(sequence, client="bob", timeout_s=12.0))["code"] == "POLICY_DENIED"
            await server.until("keygen", first, "published", timeout_s=16.0)
            await asyncio.sleep(1.0)  # its turn comes
            assert (server.states("keygen", bobs), slow.calls) == (["rejected"], 1)
            assert len(rejections(server)) == 1


async def test_a_success_for_what_was_given_up_unsigned_is_kept_and_settled(server: Bench) -> None:
    away = RetryError(Code.KMS_UNAVAILABLE, "away", delay_s=0.1)
    async with daemon(settings_for(server.url), ScriptedSigner(*[away] * 1000)):
        wallet = f"w{secrets.token_hex(6)}"
        expires_at = datetime.fromtimestamp(time.time() + 1.5, UTC).isoformat()
        await server.submit("keygen", {"wallet_id": wallet, "expires_at": expires_at})
        assert (await server.until("keygen", wallet))["outcome"] == "none"
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.results_settled()
        assert server.states("keygen", wallet) == ["accepted", "failed"]
        [(_, headers)] = await server.dead("initiator.dead.$results.keygen")
        assert headers["Initiator-Code"] == "RESULT_ORPHANED"


async def test_a_refusal_with_more_headers_than_a_dead_letter_takes_is_stored(server: Bench) -> None:
    many = {f"H{number}": "x" for number in range(4500)}
    async with daemon(settings_for(server.url)):
        sequence = await server.submit("keygen", {"wallet_id": "?"}, **many)
        assert (await server.rejection(sequence))["code"] == "INVALID_FIELD"
        assert await server.all_acked()


async def test_refusals_do_not_fill_the_record_that_results_need(server: Bench) -> None:
    settings = settings_for(server.url, streams={"max_events_bytes": 300_000, "claim_high_water": 0.2})
    async with daemon(settings) as app:
        await server.submit("keygen", {"wallet_id": "before"})
        await server.until("keygen", "before", "published")
        for _ in range(300):
            await server.submit("keygen", {"wallet_id": "?"})
        async with asyncio.timeout(20):
            while app.health.ready:
                await asyncio.sleep(0.05)
        for _ in range(500):  # these wait in the queue
            await server.submit("keygen", {"wallet_id": "?"})
        await server.answer("keygen", "before", server.keygen_success("before"))
        assert (await server.until("keygen", "before"))["state"] == "completed"


async def test_what_the_nodes_stream_never_takes_ends_at_once_and_frees_its_slot(server: Bench) -> None:
    settings = settings_for(server.url, mpcium={"keygen": {"in_flight": 1}})
    async with daemon(settings):
        config = (await server.js.stream_info("mpc-keygen")).config
        await server.js.update_stream(dataclasses.replace(config, max_msg_size=10))
        wallet = f"w{secrets.token_hex(6)}"
        await server.submit("keygen", {"wallet_id": wallet})
        failed = await server.until("keygen", wallet, "failed")
        assert (failed["code"], failed["outcome"]) == ("TOO_LARGE", "unknown")
        await server.js.update_stream(dataclasses.replace(config, max_msg_size=-1))
        await server.submit("keygen", {"wallet_id": "next"})
        await server.until("keygen", "next", "published")


async def test_what_the_nodes_stream_has_no_room_for_ends_at_its_deadline_and_frees_its_slot(server: Bench) -> None:
    settings = settings_for(server.url, mpcium={"keygen": {"in_flight": 1}})
    async with daemon(settings):
        config = (await server.js.stream_info("mpc-keygen")).config
        full = dataclasses.replace(config, max_bytes=10, discard=DiscardPolicy.NEW)
        await server.js.update_stream(full)
        wallet = f"w{secrets.token_hex(6)}"
        expires_at = datetime.fromtimestamp(time.time() + 2, UTC).isoformat()
        await server.submit("keygen", {"wallet_id": wallet, "expires_at": expires_at})
        failed = await server.until("keygen", wallet, "failed")
        assert (failed["outcome"], failed["reason"].startswith("expired at")) == ("unknown", True)
        await server.js.update_stream(config)
        await server.submit("keygen", {"wallet_id": "next"})
        await server.until("keygen", "next", "published")
