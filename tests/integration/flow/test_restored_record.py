"""A record that is lost while a request is in hand, and restored as of before it: its holder remembers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from initiator.app import App
from initiator.config.schema import Settings
from initiator.core.events import Event, State, format_time
from initiator.core.model import Operation
from initiator.flow import upkeep
from initiator.record import Entry, Record
from tests.support.harness import (
    Bench,
    ScriptedSigner,
    bench,
    daemon,
    running,
    settings_for,
    sign_request,
    source,
)

RECORD = "INITIATOR_EVENTS"


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("restored")) as ready:
        yield ready


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "LOOK_S", 0.1)


async def restore_as_of_before(server: Bench) -> None:
    config = (await server.js.stream_info(RECORD)).config
    await server.js.delete_stream(RECORD)
    await server.js.add_stream(config)


async def failure(server: Bench, op: str, operation_id: str) -> tuple[Any, Any]:
    failed = await server.until(op, operation_id, "failed")
    return failed["code"], failed["outcome"]


async def test_what_was_signed_is_not_signed_again(server: Bench) -> None:
    signer = ScriptedSigner()
    async with daemon(settings_for(server.url), signer):
        request = sign_request("w1")
        await server.submit("sign", request)
        await server.until("sign", request["tx_id"], "published")
        await restore_as_of_before(server)
        assert await failure(server, "sign", request["tx_id"]) == ("RECORD_LOST", "unknown")
        assert (await server.published("sign"), signer.calls) == (1, 1)
        assert await server.all_acked()


async def test_nor_is_it_refused_or_said_to_be_unsigned_once_its_deadline_has_passed(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        request = sign_request("w1", expires_at=format_time(time.time() + 3.0))
        await server.submit("sign", request)
        await server.until("sign", request["tx_id"], "published")
        config = (await server.js.stream_info(RECORD)).config
        await server.js.delete_stream(RECORD)
        await asyncio.sleep(3.5)
        await server.js.add_stream(config)
        assert await failure(server, "sign", request["tx_id"]) == ("RECORD_LOST", "unknown")
        assert "rejected" not in [event["state"] for event in server.seen]


async def test_nor_where_its_client_may_not_ask_any_more(server: Bench) -> None:
    both = settings_for(server.url)
    alone = Settings.model_validate(both.model_dump() | {"clients": {"bob": {}}})
    app = App(both, source(ScriptedSigner()), lambda: alone)
    async with running(app):
        request = sign_request("w1")
        await server.submit("sign", request)
        await server.until("sign", request["tx_id"], "published")
        app.reload()
        await asyncio.sleep(0.5)
        await restore_as_of_before(server)
        assert await failure(server, "sign", request["tx_id"]) == ("RECORD_LOST", "unknown")


async def test_a_server_that_answers_with_what_was_does_no_harm(server: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that leads no more: nothing can be written on the strength of it, and the next look is true."""
    last = Record.last
    stale: list[Entry] = []

    async def answers(self: Record, operation: Operation, operation_id: str) -> Entry | None:
        found = await last(self, operation, operation_id)
        if found is not None and found.event.state is State.ACCEPTED:
            stale.append(found)
        return stale.pop() if found and found.event.state is State.PUBLISHED and stale else found

    async with daemon(settings_for(server.url)) as app:
        request = sign_request("w1")
        monkeypatch.setattr(Record, "append", _remembering(Record.append, stale))
        monkeypatch.setattr(Record, "last", answers)
        await server.submit("sign", request)
        await server.until("sign", request["tx_id"], "published")
        await asyncio.sleep(2.0)  # the stale answer has come
        assert not stale
        await server.answer(
            "sign", request["tx_id"], server.error("sign", request["tx_id"], "ERROR_UNKNOWN", wallet_id="w1")
        )
        assert await failure(server, "sign", request["tx_id"]) == ("NODES_ERROR", "unknown")
        assert await server.published("sign") == 1
        assert app.health.ready


def _remembering(append: Any, kept: list[Entry]) -> Any:
    async def remember(self: Record, event: Event, after: Entry | None, *more: Any) -> Entry:
        entry: Entry = await append(self, event, after, *more)
        if event.state is State.ACCEPTED:
            kept.append(entry)
        return entry

    return remember


async def test_nor_where_the_nodes_stream_has_forgotten_it(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        other, request = sign_request("w1"), sign_request("w1")
        for each in (other, request):
            await server.submit("sign", each)
            await server.until("sign", each["tx_id"], "published")
        # it still has what is older: by its limits it looks as if it had never dropped anything
        await server.js.purge_stream("mpc-signing", subject=f"mpc.signing_request.{request['tx_id']}~1")
        await restore_as_of_before(server)
        assert await failure(server, "sign", request["tx_id"]) == ("RECORD_LOST", "unknown")
        assert await server.published("sign") == 1


async def test_a_reshare_is_never_sent_twice_by_who_sent_it(server: Bench) -> None:
    sent: list[bytes] = []

    async def node(message: Msg) -> None:
        sent.append(message.data)

    await server.nc.subscribe("mpc:reshare", cb=node)
    async with daemon(settings_for(server.url)):
        session = secrets.token_hex(8)
        fields = {
            "session_id": session,
            "node_ids": ["node0", "node1", "node2"],
            "new_threshold": 1,
            "key_type": "secp256k1",
            "wallet_id": "w1",
        }
        await server.submit("reshare", fields)
        await server.until("reshare", session, "published")
        await restore_as_of_before(server)
        assert await failure(server, "reshare", session) == ("RECORD_LOST", "unknown")
        assert len(sent) == 1


async def test_what_was_not_signed_yet_is_begun_again(server: Bench) -> None:
    signer = ScriptedSigner(2.0)
    async with daemon(settings_for(server.url), signer):
        wallet = f"w{secrets.token_hex(6)}"
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "accepted")
        await asyncio.sleep(0.1)
        await restore_as_of_before(server)
        await server.until("keygen", wallet, "published")
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet, "completed")
        assert await server.published("keygen") == 1
