"""Operators' orders, over daemons on a real nats-server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import msgpack
import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from structlog.testing import capture_logs

from initiator.app import App, connect_signer
from initiator.core import subjects
from initiator.flow.watchdog import Watchdog
from initiator.keyfile import generate
from initiator.rollcall import LEASE_S, MARGIN_S
from tests.support.harness import Bench, ScriptedSigner, bench, daemon, running, settings_for, source
from tests.support.nats_restart import restartable_server
from tests.support.operator import Operator, operator


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path) as ready:
        yield ready


@pytest.fixture
async def ops(server: Bench) -> AsyncIterator[Operator]:
    async with operator(server.url) as one:
        yield one


async def not_signed(server: Bench, op: str, operation_id: str, for_s: float = 0.7) -> None:
    await server.until(op, operation_id, "accepted")
    await asyncio.sleep(for_s)
    assert server.states(op, operation_id) == ["accepted"]


async def test_what_is_frozen_is_claimed_and_waits_and_goes_on_at_once_when_it_is_lifted(
    server: Bench, ops: Operator
) -> None:
    signer = ScriptedSigner()
    async with daemon(settings_for(server.url), signer), daemon(settings_for(server.url), signer):
        heard = await ops.freeze()
        assert (len(heard.confirmed), heard.waited_out, heard.unaware) == (2, [], {})
        assert heard.seconds < LEASE_S
        await server.submit("keygen", {"wallet_id": "w"})
        await not_signed(server, "keygen", "w")
        assert signer.calls == 0
        lifting, began = asyncio.create_task(ops.unfreeze()), time.monotonic()
        await server.until("keygen", "w", "published")
        assert time.monotonic() - began < 1.5
        await lifting


@pytest.mark.parametrize(("client", "op"), [("alice", None), (None, "keygen"), ("alice", "keygen")])
async def test_a_freeze_holds_back_whom_it_names_and_slows_nobody_else(
    server: Bench, ops: Operator, client: str | None, op: str | None
) -> None:
    # one place for preparation: it would be taken for good by whoever waited in it
    settings = settings_for(server.url, worker={"lookahead": 1}, mpcium={"keygen": {"in_flight": 1}})
    async with daemon(settings):
        await ops.freeze(client, op)
        for number in range(5):
            await server.submit("keygen", {"wallet_id": f"w{number}"})
        for number in range(5):
            await server.until("keygen", f"w{number}", "accepted")
        other, wallet = ("bob", "keygen") if client else ("alice", "reshare")
        request: dict[str, object] = {"wallet_id": "other"}
        if wallet == "reshare":
            request |= {"session_id": "other", "node_ids": ["a", "b"], "new_threshold": 1, "key_type": "ed25519"}
        await server.submit(wallet, request, client=other)
        await server.until(wallet, "other", "published", "retrying")  # nobody listens for a reshare here
        assert all(server.states("keygen", f"w{number}") == ["accepted"] for number in range(5))


async def test_what_waits_ends_at_its_deadline_and_says_who_froze_it(server: Bench, ops: Operator) -> None:
    async with daemon(settings_for(server.url)):
        await ops.freeze(reason="a leaked key")
        expires_at = time.time() + 2.0
        text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires_at + 1))
        await server.submit("keygen", {"wallet_id": "w", "expires_at": text})
        failed = await server.until("keygen", "w")
        assert (failed["state"], failed["code"], failed["outcome"]) == ("failed", "FROZEN", "none")
        assert "all frozen by ops" in failed["reason"]
        assert "a leaked key" in failed["reason"]
        assert await server.all_acked()


async def test_where_waiting_is_not_wanted_it_is_refused_before_and_after_the_claim(
    server: Bench, ops: Operator
) -> None:
    settings = settings_for(server.url, freeze={"held": "refuse"})
    async with daemon(settings, ScriptedSigner(1.0)):
        await server.submit("keygen", {"wallet_id": "early"})
        await server.until("keygen", "early", "accepted")
        await asyncio.sleep(0.2)  # the signer is asked by now
        await ops.freeze("alice")
        failed = await server.until("keygen", "early")
        assert (failed["state"], failed["code"], failed["outcome"]) == ("failed", "FROZEN", "none")
        late = await server.submit("keygen", {"wallet_id": "late"})
        assert (await server.rejection(late))["code"] == "FROZEN"
        await server.submit("keygen", {"wallet_id": "bobs"}, client="bob")
        await server.until("keygen", "bobs", "published")
        await ops.unfreeze("alice")
        await server.submit("keygen", {"wallet_id": "late"})  # a refusal takes no id
        await server.until("keygen", "late", "published")


async def test_a_signature_that_comes_back_during_a_freeze_is_not_recorded(server: Bench, ops: Operator) -> None:
    signer = ScriptedSigner(0.8)
    async with daemon(settings_for(server.url), signer):
        await server.submit("keygen", {"wallet_id": "w"})
        await server.until("keygen", "w", "accepted")
        await asyncio.sleep(0.2)
        assert signer.calls == 1
        frozen_at = (await ops.freeze(), await ops.last_sequence())[1]
        await asyncio.sleep(1.0)
        assert await ops.signed_after(frozen_at) == []
        await ops.unfreeze()
        await server.until("keygen", "w", "published")
        assert signer.calls == 2


async def test_what_was_recorded_before_goes_on_to_its_end(server: Bench, ops: Operator) -> None:
    settings = settings_for(server.url, mpcium={"keygen": {"in_flight": 1}})
    async with daemon(settings):
        for wallet in ("first", "second"):
            await server.submit("keygen", {"wallet_id": wallet})
            await _recorded(ops, wallet)
        await ops.freeze()  # the second one waits for its slot
        await server.answer("keygen", "first", server.keygen_success("first"))
        await server.until("keygen", "first", "completed")
        await server.until("keygen", "second", "published")


async def _recorded(ops: Operator, wallet: str) -> None:
    async with asyncio.timeout(10):
        while not any(f".{wallet}." in subject for _, subject in await ops.signed_after(0)):
            await asyncio.sleep(0.02)


async def test_a_cancelled_request_does_not_wait_for_the_end_of_the_freeze(server: Bench, ops: Operator) -> None:
    async with daemon(settings_for(server.url)), daemon(settings_for(server.url)):
        await ops.freeze()
        await server.submit("keygen", {"wallet_id": "w"})
        await server.until("keygen", "w", "accepted")
        question = json.dumps({"op": "keygen", "id": "w"}).encode()
        await server.nc.request("initiator.cancel.alice", question, timeout=5)
        assert (await server.until("keygen", "w"))["code"] == "CANCELLED"
        assert await server.all_acked(timeout_s=2)


async def test_a_freeze_survives_restarts_of_the_daemon(server: Bench, ops: Operator) -> None:
    async with daemon(settings_for(server.url)):
        await ops.freeze("alice")
    async with daemon(settings_for(server.url)) as app:
        await server.submit("keygen", {"wallet_id": "w"})
        await not_signed(server, "keygen", "w")
        part = next(part for part in app.health.snapshot() if part.name == "orders")
        assert part.ok
        assert "client alice frozen by ops" in part.note


async def test_a_daemon_that_has_left_is_waited_for_no_more(server: Bench, ops: Operator) -> None:
    async with daemon(settings_for(server.url)):
        pass
    heard = await ops.freeze()
    assert (heard.confirmed, heard.waited_out) == ([], [])
    assert heard.seconds < LEASE_S


async def test_orders_that_cannot_be_read_stop_everything_until_they_are_replaced(server: Bench, ops: Operator) -> None:
    async with daemon(settings_for(server.url)) as app:
        await ops.js.publish(subjects.ORDERS, b'{"freezes": [], "line": null, "from": "a newer version"}')
        async with asyncio.timeout(5):
            while app.health.ready:
                await asyncio.sleep(0.05)
        await server.submit("keygen", {"wallet_id": "w"})
        await not_signed(server, "keygen", "w")
        stand = await ops.book.change(lambda seen: (seen, {"change": "begun anew"}), over_unreadable=True)
        assert stand.freezes == ()
        await server.until("keygen", "w", "published")


async def test_who_waits_for_an_operator_does_not_stand_still(server: Bench, ops: Operator) -> None:
    settings = settings_for(
        server.url, mpcium={"keygen": {"result_timeout_s": 0.2, "in_flight": 0}},
        worker={"ack_wait_s": 0.3, "heartbeat_s": 0.09},
    )  # fmt: skip
    async with daemon(settings) as app:
        await ops.freeze("alice")
        await server.submit("keygen", {"wallet_id": "w"})
        await not_signed(server, "keygen", "w", for_s=2.0)
        assert app.health.ready
        dog = Watchdog(ops.js, settings, app.health, app.metrics, Later())
        await dog.look()
        assert not app.health.ready  # without that knowledge it would be told


class Later:
    """Seconds ahead, so that whatever waits has waited for long."""

    def now(self) -> float:
        return time.time() + 5.0

    def loop_time(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# --- the stop line


@pytest.fixture
def local(tmp_path: Path) -> dict[str, object]:
    """A local key by configuration, so that its calls ask for leave."""
    path = tmp_path / "local.key"
    path.touch(mode=0o600)
    path.write_text(generate("p256")[0])
    return {"type": "local", "local": {"path": str(path)}}


async def test_two_replicas_stop_at_the_line_and_go_on_when_it_is_raised(
    server: Bench, ops: Operator, local: dict[str, object]
) -> None:
    settings = settings_for(server.url, signer=local)
    async with running(App(settings)) as app, running(App(settings)):
        await ops.draw_line(20)
        for number in range(50):
            await server.submit("keygen", {"wallet_id": f"w{number}"})
        await _until_spent(ops, 20)
        await asyncio.sleep(1.0)
        signed = len(await ops.signed_after(0))
        assert 18 <= signed <= 20  # a replica may keep the rest of a block
        assert app.health.ready
        part = next(part for part in app.health.snapshot() if part.name == "orders")
        assert "stop line" in part.note
        line = await ops.line()
        told = await server.js.get_last_msg("INITIATOR_EVENTS", f"initiator.control.reached.{line.id}.20")
        assert json.loads(told.data or b"")["limit"] == 20
        await ops.draw_line(1000, line.id)
        for number in range(50):
            await server.until("keygen", f"w{number}", "published")
        assert (await ops.counter.read(line.id)).calls >= 50


async def _until_spent(ops: Operator, calls: int) -> None:
    line = await ops.line()
    async with asyncio.timeout(20):
        while (await ops.counter.read(line.id)).calls < calls:
            await asyncio.sleep(0.05)


async def test_at_the_line_requests_are_refused_where_waiting_is_not_wanted(
    server: Bench, ops: Operator, local: dict[str, object]
) -> None:
    async with running(App(settings_for(server.url, signer=local, freeze={"held": "refuse"}))):
        await ops.draw_line(0)
        await asyncio.sleep(1.0)
        sequence = await server.submit("keygen", {"wallet_id": "w"})
        assert (await server.rejection(sequence))["code"] == "STOP_LINE"


async def test_a_counter_that_is_lost_stops_everything_until_a_new_line_is_set(
    server: Bench, ops: Operator, local: dict[str, object]
) -> None:
    async with running(App(settings_for(server.url, signer=local))) as app:
        await ops.draw_line(1000)
        await ops.counter.end((await ops.line()).id)
        await asyncio.sleep(1.0)
        await server.submit("keygen", {"wallet_id": "w"})
        await not_signed(server, "keygen", "w")
        part = next(part for part in app.health.snapshot() if part.name == "orders")
        assert "the counter of the stop line is lost" in part.note
        await ops.draw_line(1000)
        await server.until("keygen", "w", "published")


async def test_a_freeze_of_all_stops_calls_to_the_signer_themselves(
    server: Bench, ops: Operator, local: dict[str, object]
) -> None:
    app = App(settings_for(server.url, signer=local))
    async with running(app):
        signer = await connect_signer(app.settings, permit=app._permit)
        await signer.sign(b"before")
        await ops.freeze()
        with pytest.raises(Exception, match="FROZEN"):
            await signer.sign(b"during")


# --- NATS


async def test_without_nats_there_is_no_lease_and_a_freeze_survives_its_restart(tmp_path: Path) -> None:
    async with restartable_server(tmp_path) as nats_server:
        signer = ScriptedSigner()
        app = App(settings_for(nats_server.url), source(signer))
        async with running(app):
            async with operator(nats_server.url) as ops:
                await ops.freeze("alice")
            await nats_server.kill()
            await asyncio.sleep(LEASE_S + 0.2)
            assert not app._lease.held
            await nats_server.start()
            async with asyncio.timeout(20):
                while not app._lease.held:
                    await asyncio.sleep(0.05)
            nc = await nats.connect(nats_server.url)
            try:
                for client, wallet in (("alice", "a"), ("bob", "b")):
                    request = msgpack.packb({"wallet_id": wallet})
                    await nc.jetstream().publish(f"initiator.request.{client}.keygen", request)
                await _published(nc, "b")
                assert signer.calls == 1
                async with operator(nats_server.url) as ops:
                    await ops.unfreeze("alice")
                await _published(nc, "a")
            finally:
                await nc.close()


async def _published(nc: Client, wallet: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await nc.jetstream().get_last_msg("mpc-keygen", f"mpc.keygen_request.{wallet}~1")
            except NotFoundError:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_replica_that_is_cut_off_is_waited_out(server: Bench, ops: Operator) -> None:
    async with daemon(settings_for(server.url)) as app, daemon(settings_for(server.url)):
        app._lease._reading = _Never()  # its answers do not come any more
        heard = await ops.freeze()
        assert (len(heard.confirmed), heard.waited_out) == (1, [app._lease.replica_id])
        assert heard.seconds >= LEASE_S + MARGIN_S
        assert not app._lease.held


class _Never(asyncio.Lock):
    async def acquire(self) -> Literal[True]:
        await asyncio.Event().wait()
        return True


async def test_every_change_of_orders_is_a_warning_and_counted(server: Bench, ops: Operator) -> None:
    """Whoever has stolen an operator's login is seen when it lets more be signed, too."""
    with capture_logs() as logs:
        async with running(App(settings_for(server.url), source(ScriptedSigner()))) as app:
            await ops.freeze("alice", reason="a leak")
            await ops.unfreeze("alice")
            await ops.draw_line(20)
            await ops.draw_line(30, (await ops.line()).id)
            await ops.clear_line()
            value = app.metrics.registry.get_sample_value
            counted = {
                change: value("initiator_order_changes_total", {"change": change})
                for change in ("frozen", "unfrozen", "stop line")
            }
    assert counted == {"frozen": 1, "unfrozen": 1, "stop line": 3}
    told = [line for line in logs if line["event"].startswith(("orders.frozen", "orders.unfrozen", "stopline."))]
    assert [(line["event"], line["log_level"], line["code"], line.get("limit")) for line in told] == [
        ("orders.frozen", "warning", "FROZEN", None),
        ("orders.unfrozen", "warning", "FROZEN", None),
        ("stopline.drawn", "warning", "STOP_LINE", 20),
        ("stopline.drawn", "warning", "STOP_LINE", 30),
        ("stopline.cleared", "warning", "STOP_LINE", None),
    ]
    assert all(line["by"] == "ops" for line in told if "by" in line)
