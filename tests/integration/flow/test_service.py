"""The daemon as a NATS service, and how it answers many questions."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats
from structlog.testing import capture_logs

from initiator import __version__
from initiator.core.spki import fingerprint
from initiator.flow import answering
from tests.support.harness import Bench, ScriptedSigner, bench, daemon, settings_for


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("service")) as ready:
        yield ready


async def all_of(server: Bench, subject: str, count: int) -> list[dict[str, Any]]:
    """The answers of `count` replicas, and no more."""
    inbox = server.nc.new_inbox()
    answers = await server.nc.subscribe(inbox)
    await server.nc.publish(subject, b"", reply=inbox)
    found = [json.loads((await answers.next_msg(timeout=5)).data) for _ in range(count)]
    with pytest.raises(TimeoutError):
        await answers.next_msg(timeout=0.3)
    await answers.unsubscribe()
    return found


async def ask(server: Bench, kind: str, body: Any, client: str = "alice") -> dict[str, Any]:
    answer = await server.nc.request(f"initiator.query.{client}.{kind}", json.dumps(body).encode(), timeout=20)
    found: dict[str, Any] = json.loads(answer.data)
    return found


async def test_every_replica_says_what_it_is(server: Bench) -> None:
    signer = ScriptedSigner()
    async with daemon(settings_for(server.url), signer), daemon(settings_for(server.url), signer):
        pings = await all_of(server, "$SRV.PING", 2)
        assert len({ServicePing.from_dict(ping).id for ping in pings}) == 2
        infos = [ServiceInfo.from_dict(info) for info in await all_of(server, "$SRV.INFO.initiator", 2)]
        assert {(info.name, info.version) for info in infos} == {("initiator", __version__)}
        assert {info.metadata["key_fingerprint"] for info in infos} == {fingerprint(signer.public_key)}
        (one,) = await all_of(server, f"$SRV.INFO.initiator.{pings[0]['id']}", 1)
        assert one["id"] == pings[0]["id"]
        assert {endpoint["subject"] for endpoint in one["endpoints"]} == {
            "initiator.query.*.status", "initiator.query.*.history", "initiator.query.*.events", "initiator.cancel.*"
        }  # fmt: skip


async def test_its_statistics_count_questions_and_errors(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        for number in range(3):
            await ask(server, "status", {"op": "keygen", "id": f"w{number}"})
        await ask(server, "status", {"op": "keygen", "id": "*"})
        (raw,) = await all_of(server, "$SRV.STATS", 1)
        ServiceStats.from_dict(raw)
        by_name = {endpoint["name"]: endpoint for endpoint in raw["endpoints"]}
        status = by_name["status"]
        assert (status["num_requests"], status["num_errors"], status["last_error"]) == (4, 1, "INVALID_FIELD")
        assert status["average_processing_time"] == status["processing_time"] // 4 > 0
        assert by_name["cancel"]["num_requests"] == 0


async def test_errors_carry_the_headers_of_nats_services(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        answer = await server.nc.request("initiator.cancel.alice", b'{"op":"keygen","id":"w"}', timeout=5)
        assert (answer.headers or {})["Nats-Service-Error"] == "NOT_FOUND"
        assert (answer.headers or {})["Nats-Service-Error-Code"] == "404"
        fine = await server.nc.request("initiator.query.alice.status", b'{"op":"keygen","id":"w"}', timeout=5)
        assert "Nats-Service-Error" not in (fine.headers or {})


async def test_one_clients_questions_do_not_hold_up_anothers(server: Bench) -> None:
    """A thousand histories of one client wait; a single question of another one is answered among the first."""
    async with daemon(settings_for(server.url, query={"concurrency": 2})):
        wallet = f"w{secrets.token_hex(4)}"
        await server.wallet(wallet)
        order: list[str] = []

        async def one(client: str) -> None:
            await ask(server, "history", {"op": "keygen", "id": wallet}, client)
            order.append(client)

        flood = [asyncio.create_task(one("alice")) for _ in range(1000)]
        await asyncio.sleep(0.05)
        await one("bob")
        place = len(order)
        await asyncio.gather(*flood)
        assert place < 500, place


async def test_who_asks_too_much_is_told_and_then_no_more(server: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MOST_WAITING", 10)
    monkeypatch.setattr(answering, "REFUSALS_PER_S", 5.0)
    with capture_logs() as logs:
        async with daemon(settings_for(server.url, query={"concurrency": 1})):
            answers, inbox = [], server.nc.new_inbox()

            async def on_answer(message: Msg) -> None:
                answers.append(json.loads(message.data))

            await server.nc.subscribe(inbox, cb=on_answer)
            for _ in range(200):
                body = b'{"op":"keygen","id":"w"}'
                await server.nc.publish("initiator.query.alice.history", body, reply=inbox)
            await server.nc.flush()
            await asyncio.sleep(1.0)
            refused = [answer["error"]["code"] for answer in answers if "error" in answer]
            assert 5 <= len(refused) <= 15
            assert set(refused) == {"QUERY_BUSY"}
            assert 10 <= len(answers) - len(refused) < 100  # those that waited
            assert await ask(server, "status", {"op": "keygen", "id": "w"}) == {"event": None}
            (raw,) = await all_of(server, "$SRV.STATS", 1)
            history = next(one for one in raw["endpoints"] if one["name"] == "history")
            assert (history["num_requests"], history["last_error"]) == (200, "QUERY_BUSY")
    assert [line["client"] for line in logs if line["event"] == "query.flood"] == ["alice"]


async def test_each_client_has_so_many_answers_a_second(server: Bench) -> None:
    async with daemon(settings_for(server.url, query={"per_client_per_s": 10})):
        loop = asyncio.get_running_loop()
        began = loop.time()
        flood = [asyncio.create_task(ask(server, "status", {"op": "keygen", "id": "w"})) for _ in range(40)]
        await asyncio.sleep(0.1)
        assert await ask(server, "status", {"op": "keygen", "id": "w"}, "bob") == {"event": None}
        cancelled = await server.nc.request("initiator.cancel.alice", b'{"op":"keygen","id":"w"}', timeout=5)
        assert json.loads(cancelled.data)["error"]["code"] == "NOT_FOUND"  # who asks too much may still cancel
        assert loop.time() - began < 1.4
        answers = [await one for one in flood]
        # ten at once, and what is due within a second and a half; the others would hear it too late
        assert 20 <= sum(answer == {"event": None} for answer in answers) <= 30
        refused = [answer["error"]["code"] for answer in answers if "error" in answer]
        assert set(refused) == {"QUERY_BUSY"}
        assert 1.0 < loop.time() - began < 5.0


@pytest.mark.parametrize("body", [b"[" + b"{}," * 2000 + b"{}]", b" " * 4097])
async def test_a_large_question_is_not_even_read(server: Bench, body: bytes) -> None:
    async with daemon(settings_for(server.url)):
        answer = json.loads((await server.nc.request("initiator.query.alice.status", body, timeout=5)).data)
        assert (answer["error"]["code"], answer["error"]["field"]) == ("TOO_LARGE", "payload")
        assert answer["error"]["reason"] == f"expected at most 4096 bytes, got {len(body)}"


async def test_questions_come_over_a_connection_of_their_own(server: Bench) -> None:
    """What they hold up is not what carries requests and acknowledgements."""
    async with daemon(settings_for(server.url)) as app:
        before = app._questions._client.stats["in_msgs"]
        for _ in range(10):
            await ask(server, "status", {"op": "keygen", "id": "w"})
        assert app._questions._client.stats["in_msgs"] - before == 10


async def test_without_its_second_connection_a_replica_signs_and_says_so(server: Bench) -> None:
    async with daemon(settings_for(server.url)) as app:
        app._on_questions(False, "connection lost")
        assert app.health.ready
        part = next(part for part in app.health.snapshot() if part.name == "questions")
        assert (part.ok, part.note) == (True, "clients' questions are not answered: connection lost")


async def test_what_was_asked_when_it_stops_is_answered(server: Bench) -> None:
    async with daemon(settings_for(server.url)):
        flood = [asyncio.create_task(ask(server, "status", {"op": "keygen", "id": "w"})) for _ in range(50)]
        await asyncio.sleep(0.02)
    assert [await one for one in flood] == [{"event": None}] * 50
