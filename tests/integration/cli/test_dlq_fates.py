"""`initiator dlq replay`: a person is asked about all of them, and is told what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from nats.aio.msg import Msg

from tests.support.desk import Desk, Done
from tests.support.harness import bench, daemon, settings_for, sign_request

pytestmark = pytest.mark.asyncio(loop_scope="module")


def new_id() -> str:
    return f"i{time.time_ns()}"


@contextlib.asynccontextmanager
async def no_daemon(desk: Desk) -> AsyncIterator[None]:
    """Streams and queues as a daemon left them, and nothing in them."""
    desk.configure(settings_for(desk.server.url))
    async with daemon(desk.settings):
        await desk.server.js.purge_stream("INITIATOR_DEAD")
    await desk.empty_queues()
    yield
    await desk.empty_queues()


async def take(desk: Desk, subject: str) -> Msg:
    """The next request, as a daemon takes it; it is not brought to an end."""
    client, _, operation = subject.partition(".")
    stream = f"INITIATOR_REQUESTS_{client}"
    pull = await desk.server.js.pull_subscribe_bind(durable=f"{client}_{operation}", stream=stream)
    (message,) = await pull.fetch(1, timeout=10)
    return message


# --- what became of it


async def test_a_replay_joins_an_operation_and_is_told_how_that_stands(served: Desk) -> None:
    wallet = new_id()
    data = msgpack.packb({"wallet_id": wallet})
    sequence = await served.bury("alice.keygen", data)
    await served.server.submit("keygen", {"wallet_id": wallet})
    await served.server.until("keygen", wallet, "published")
    under_way = await served.dlq("replay", str(sequence))
    told = f"{sequence} (alice keygen {wallet}) joined its operation, which"
    assert (under_way.code, under_way.lines[1:]) == (0, [f"{told} is under way (published)"])
    await served.server.answer("keygen", wallet, served.server.error("keygen", wallet, "ERROR_UNKNOWN"))
    await served.server.until("keygen", wallet, "failed")
    ended = await served.dlq("replay", str(sequence))
    assert (ended.code, ended.lines[1:]) == (0, [f"{told} ended (failed, NODES_ERROR, outcome unknown)"])
    rehearsed = await served.dlq("replay", str(sequence), "--dry-run")
    assert "would join its operation, which ended (failed, NODES_ERROR, outcome unknown)" in rehearsed.out
    await served.server.answer("keygen", wallet, served.server.keygen_success(wallet))
    await served.server.until("keygen", wallet, "completed")
    assert (await served.dlq("replay", str(sequence))).lines[1:] == [f"{told} ended (completed)"]


async def test_another_payload_under_the_id_has_not_joined(served: Desk) -> None:
    tx_id = new_id()
    await served.server.submit("sign", sign_request("w", tx_id=tx_id))
    await served.server.until("sign", tx_id, "published")
    sequence = await served.bury("alice.sign", msgpack.packb(sign_request("w", tx_id=tx_id)))
    replayed = await served.dlq("replay", str(sequence))
    told = "refused again: CONFLICT tx_id: this sign id is taken by a different request"
    assert (replayed.code, replayed.lines[1]) == (
        1, f"{sequence} (alice sign {tx_id}) {told} (dead letter {sequence + 1})",
    )  # fmt: skip


async def test_what_is_taken_has_joined_an_operation_of_the_same_payload_that_is_under_way_alone(desk: Desk) -> None:
    running, ended = sign_request("w", tx_id=new_id()), sign_request("w", tx_id=new_id())
    desk.configure(settings_for(desk.server.url))
    async with daemon(desk.settings):
        for fields in (running, ended):
            await desk.server.submit("sign", fields)
            await desk.server.until("sign", fields["tx_id"], "published")
        answer = desk.server.error("sign", ended["tx_id"], "ERROR_UNKNOWN", wallet_id="w")
        await desk.server.answer("sign", ended["tx_id"], answer)
        await desk.server.until("sign", ended["tx_id"], "failed")

    async def told(client: str, fields: dict[str, Any], *, taken: bool = True) -> str:
        """Of a request that somebody has taken, and does no more with."""
        await desk.empty_queues()
        sequence = await desk.bury(f"{client}.sign", msgpack.packb(fields))
        waiting = asyncio.create_task(take(desk, f"{client}.sign")) if taken else None
        replayed = await desk.dlq("replay", str(sequence), "--wait", "1")
        if waiting:
            await waiting
        return replayed.lines[1].partition(") ")[2]

    nothing = "a daemon has taken it; nothing is on record yet"
    async with no_daemon(desk):
        assert await told("alice", running) == "joined its operation, which is under way (published)"
        assert await told("alice", running, taken=False) == "no daemon has taken it yet"
        assert await told("alice", running | {"tx": b"\x02" * 32}) == nothing
        assert await told("bob", running) == nothing
        assert await told("alice", ended) == nothing  # it may yet be opened again


async def test_many_are_told_one_by_one_and_in_sum(served: Desk) -> None:
    wallet, other = new_id(), new_id()
    good = await served.bury("alice.keygen", msgpack.packb({"wallet_id": wallet}))
    same = await served.bury("alice.keygen", msgpack.packb({"wallet_id": wallet}))
    theirs = await served.bury("bob.keygen", msgpack.packb({"wallet_id": other}))
    bad = await served.bury("bob.sign", b"\xc1")
    replayed = await served.dlq("replay", "--all", "--yes")
    assert (replayed.code, replayed.err) == (1, "")
    assert replayed.lines[-1] == "4 replayed: 2 accepted, 1 joined, 1 refused again"
    fates = {line.split()[0]: line.partition(") ")[2] for line in replayed.lines[4:-1]}
    assert fates[str(good)].startswith("accepted")
    assert fates[str(same)].startswith("joined its operation, which is under way (")
    assert fates[str(theirs)].startswith("accepted")
    assert fates[str(bad)].startswith("refused again: UNDECODABLE payload: ")
    assert len(fates) == 4


async def test_where_no_daemon_takes_it_that_is_told_when_the_time_is_up(desk: Desk) -> None:
    async with no_daemon(desk):
        wallet = new_id()
        sequence = await desk.bury("alice.keygen", msgpack.packb({"wallet_id": wallet}))
        begun = time.monotonic()
        replayed = await desk.dlq("replay", str(sequence), "--wait", "1")
        assert 1 <= time.monotonic() - begun < 5
        about = f"{sequence} (alice keygen {wallet})"
        assert (replayed.code, replayed.lines[1:]) == (0, [f"{about} no daemon has taken it yet"])
        # one that was taken, by whoever holds it, is not on record for that
        first = await take(desk, "alice.keygen")
        replayed = await desk.dlq("replay", str(sequence), str(sequence), "--wait", "0.3")
        assert replayed.lines[2:] == [
            *[f"{about} no daemon has taken it yet"] * 2,
            "2 replayed: 2 not taken yet",
        ]
        await first.nak()


async def test_one_that_a_daemon_holds_is_told_so(desk: Desk) -> None:
    async with no_daemon(desk):
        sequence = await desk.bury("alice.reshare", b"\x80")
        waiting = asyncio.create_task(take(desk, "alice.reshare"))
        replayed = await desk.dlq("replay", str(sequence), "--wait", "2")
        assert replayed.lines[1:] == [f"{sequence} (alice reshare) a daemon has taken it; nothing is on record yet"]
        assert (await waiting).data == b"\x80"


async def test_who_does_not_wait_is_told_that_it_is_queued_alone(served: Desk) -> None:
    sequence = await served.bury("alice.keygen", b"\x80")
    replayed = await served.dlq("replay", str(sequence), "--wait", "0")
    assert (replayed.code, len(replayed.lines), replayed.err) == (0, 1, "")
    assert replayed.out.startswith(f"{sequence} (alice keygen) replayed as request ")


async def test_a_record_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as server:
        desk = Desk(server, settings_for(server.url), tmp_path)
        async with no_daemon(desk):
            sequence = await desk.bury("alice.reshare", b"\x80")
            await server.js.delete_stream("INITIATOR_EVENTS")
            waiting = asyncio.create_task(take(desk, "alice.reshare"))
            replayed = await desk.dlq("replay", str(sequence), "--wait", "3")
            await waiting
    assert (replayed.code, len(replayed.lines)) == (1, 1)
    assert replayed.err.startswith("what became of 1 of 1 cannot be told: ")


# --- whether a person agrees


async def test_a_person_is_asked_before_all_are_replayed(desk: Desk) -> None:
    async with no_daemon(desk):
        wallet, other = new_id(), new_id()
        gone = {"Initiator_Code": "KMS_UNAVAILABLE", "Initiator_Outcome": "none"}
        for name in (wallet, other):
            await desk.bury("alice.keygen", msgpack.packb({"wallet_id": name}), **gone)
        await desk.bury("bob.sign", b"\xc1", Initiator_Code="UNDECODABLE")
        before = await desk.requests()
        declined = await desk.on_a_terminal("n", "replay", "--all")
        assert (declined.code, await desk.requests()) == (1, before), declined.err
        assert declined.lines == [
            "to be published again, as new requests: 3",
            "  2  alice  keygen  KMS_UNAVAILABLE (outcome none)",
            "  1  bob    sign    UNDECODABLE",
            "warning: of each sign request make sure that its sender has not asked again under another tx_id: "
            "one id never signs twice, two ids are two payments",
            "replay 3 dead letters? [y/N]: nothing replayed",
        ]
        agreed = await desk.on_a_terminal("y", "replay", "--all", "--client", "alice", "--wait", "0")
        assert (agreed.code, await desk.requests()) == (0, before + 2), agreed.err
        assert "warning" not in agreed.out
        assert "replay 2 dead letters? [y/N]: " in agreed.out


async def test_where_nobody_can_be_asked_all_needs_yes_and_a_sequence_needs_none(desk: Desk) -> None:
    async with no_daemon(desk):
        sequence = await desk.bury("alice.keygen", msgpack.packb({"wallet_id": new_id()}))
        before = await desk.requests()
        refused = await desk.dlq("replay", "--all")
        assert (refused.code, refused.out, await desk.requests()) == (2, "", before)
        assert "--yes: needed where there is no terminal to ask on" in refused.err
        assert (await desk.dlq("replay", "--all", "--dry-run")).code == 0
        assert await desk.requests() == before
        assert (await desk.dlq("replay", "--all", "--yes", "--wait", "0")).code == 0
        assert (await desk.dlq("replay", str(sequence), "--wait", "0")).code == 0
        assert await desk.requests() == before + 2
        # a terminal is asked nothing about a sequence
        done = await desk.on_a_terminal("n", "replay", str(sequence), "--wait", "0")
        assert (done.code, await desk.requests(), "?" in done.out) == (0, before + 3, False)


async def test_nothing_is_asked_where_there_is_nothing(desk: Desk) -> None:
    async with no_daemon(desk):
        assert await desk.on_a_terminal("y", "replay", "--all") == Done(0, "no dead letters\n", "")
