"""`initiator dlq replay`: a new request under the same rules, or the reason why there is none."""

from __future__ import annotations

import asyncio
import json
import re
import time

import msgpack
import pytest

from initiator.config.schema import Settings
from initiator.errors import Code, RetryError
from tests.support.desk import JSON, Desk, Done
from tests.support.harness import ScriptedSigner, daemon, settings_for, sign_request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_replay_is_a_new_request_under_the_same_rules(served: Desk) -> None:
    data = json.dumps({"wallet_id": "w1", "expires_at": "2026-01-01T00:00:00Z"}).encode()
    sequence = await served.refused("alice.keygen", data, JSON | {"Nats-Msg-Id": "m1", "X-Own": "kept"})
    before = await served.requests()

    rehearsed = await served.dlq("replay", str(sequence), "--dry-run")
    assert rehearsed.out == (
        f"{sequence} (alice keygen w1) would be refused: EXPIRED expires_at: expired before it was read\n"
    )
    assert (rehearsed.code, await served.requests()) == (1, before)

    replayed = await served.dlq("replay", str(sequence))
    request = before + 1
    about = f"{sequence} (alice keygen w1)"
    assert (replayed.code, replayed.err) == (1, "")
    assert replayed.lines[0] == f"{about} replayed as request {request}"
    assert re.fullmatch(rf"{re.escape(about)} refused again: EXPIRED expires_at: expired .*before it was \w+ "
                        rf"\(dead letter {sequence + 1}\)", replayed.lines[1])  # fmt: skip
    again = await served.server.rejection(request)
    assert (again["code"], again["field"]) == ("EXPIRED", "expires_at")

    first, second = (await served.dlq("ls", "--json")).objects
    assert (first["sequence"], second["original"]["sequence"]) == (sequence, request)
    assert second["original"]["headers"] == JSON | {"X-Own": "kept"}
    assert first["original"]["headers"] == JSON | {"X-Own": "kept", "Nats-Msg-Id": "m1"}
    (stored, _) = (await served.server.dead(f"initiator.dead.alice.keygen.{request}"))[0]
    assert stored == data


async def test_what_a_setting_refused_is_accepted_once_the_setting_is_mended(desk: Desk) -> None:
    wallet = f"w{time.time_ns()}"
    data = msgpack.packb({"wallet_id": wallet, "labels": {"team": "treasury"}})
    desk.configure(settings_for(desk.server.url, limits={"max_labels": 0}))
    async with daemon(desk.settings):
        sequence = await desk.refused("alice.keygen", data)
        assert (await desk.dlq("replay", str(sequence), "--dry-run")).code == 1
    desk.configure(settings_for(desk.server.url))
    rehearsed = await desk.dlq("replay", str(sequence), "--dry-run")
    assert rehearsed == Done(0, f"{sequence} (alice keygen {wallet}) would be accepted\n", "")
    async with daemon(desk.settings):
        replayed = await desk.dlq("replay", str(sequence), "--drop")
        assert replayed.code == 0
        assert re.fullmatch(rf"{sequence} \(alice keygen {wallet}\) accepted(; it is under way \(\w+\))?",
                            replayed.lines[1])  # fmt: skip
        await desk.server.until("keygen", wallet, "published")
        assert (await desk.dlq("show", str(sequence))).code == 1  # dropped
        await desk.server.answer("keygen", wallet, desk.server.keygen_success(wallet))
        await desk.server.until("keygen", wallet, "completed")


async def test_a_request_that_gave_out_lies_there_too_and_a_replay_opens_it_again(desk: Desk) -> None:
    wallet = f"w{time.time_ns()}"
    data = msgpack.packb({"wallet_id": wallet})
    away = [RetryError(Code.KMS_UNAVAILABLE, "KMS is away", delay_s=0.1)] * 50
    desk.configure(settings_for(desk.server.url, mpcium={"keygen": {"in_flight": 0, "default_expiry_s": 0.5}}))
    async with daemon(desk.settings, ScriptedSigner(*away)):
        request = await desk.publish("alice.keygen", data)
        desk.server.submitted.append(("alice", request))
        failed = await desk.server.until("keygen", wallet, "failed")
        assert await desk.server.all_acked()
        sequence = await desk.letter_of("alice.keygen", request)
        (letter,) = (await desk.dlq("show", str(sequence), "--json")).objects
        assert (letter["code"], letter["reason"]) == ("KMS_UNAVAILABLE", failed["reason"])
        assert (letter["outcome"], letter["original"]["sequence"]) == ("none", request)
        rehearsed = await desk.dlq("replay", str(sequence), "--dry-run")
        assert rehearsed == Done(0, f"{sequence} (alice keygen {wallet}) would open its operation again\n", "")
        replayed = await desk.dlq("replay", str(sequence))
        told = f"{sequence} (alice keygen {wallet}) opened its operation again"
        assert (replayed.code, replayed.lines[1].partition(";")[0]) == (0, told)
        again = await desk.server.until("keygen", wallet, "accepted", attempt=2)
        assert again["reopens"] == failed["event_id"]


async def test_an_answer_is_no_exhaustion(served: Desk) -> None:
    """What the nodes refused is in the record; its request is no dead letter."""
    wallet = f"w{time.time_ns()}"
    request = await served.publish("alice.keygen", msgpack.packb({"wallet_id": wallet}))
    served.server.submitted.append(("alice", request))
    await served.server.until("keygen", wallet, "published")
    await served.server.answer("keygen", wallet, served.server.error("keygen", wallet, "ERROR_UNKNOWN"))
    await served.server.until("keygen", wallet, "failed")
    assert await served.server.all_acked()
    assert await served.letters() == 0


async def test_a_conflict_is_rehearsed_from_the_record(served: Desk) -> None:
    tx_id = f"t{time.time_ns()}"
    await served.server.submit("sign", sign_request("w", tx_id=tx_id))
    await served.server.until("sign", tx_id, "published")
    sequence = await served.refused("bob.sign", msgpack.packb(sign_request("w", tx_id=tx_id)))
    rehearsed = await served.dlq("replay", "--all", "--client", "bob", "--dry-run")
    assert rehearsed.code == 1
    assert rehearsed.out == (
        f"{sequence} (bob sign {tx_id}) would be refused: "
        "CONFLICT tx_id: this sign id is taken by a different request\n"
    )


async def test_a_result_is_no_request(served: Desk) -> None:
    await served.orphan("sign")
    (letter,) = (await served.dlq("ls", "--results", "--json")).objects
    assert (letter["client"], letter["code"]) == (None, "RESULT_ORPHANED")
    replayed = await served.dlq("replay", str(letter["sequence"]))
    assert (replayed.code, replayed.out) == (1, "")
    assert "a result of the nodes is no request: it cannot be replayed" in replayed.err
    everything = await served.dlq("replay", "--all", "--yes")
    assert everything == Done(0, "no dead letters\n", "left out 1 results of the nodes: a result is no request\n")


async def test_one_failure_is_told_and_the_others_go_on(served: Desk) -> None:
    sequence = await served.refused("alice.keygen", b"\x80")
    replayed = await served.dlq("replay", "999999", str(sequence))
    assert (replayed.code, len(replayed.lines)) == (1, 2)
    assert replayed.err == "999999 failed: NOT_FOUND SEQ: no dead letter has the sequence 999999\n"


async def test_a_full_queue_and_a_client_that_is_gone_are_told_by_name(desk: Desk) -> None:
    await desk.empty_queues()
    narrow = settings_for(desk.server.url, streams={"max_queued_per_client": 1})
    desk.configure(narrow)
    async with daemon(narrow):
        ours, theirs = await desk.refused("alice.reshare", b"\x80"), await desk.refused("bob.reshare", b"\x80")
    await desk.publish("alice.reshare", b"\x80")  # nobody takes it: the queue of one is full
    full = await desk.dlq("replay", str(ours))
    assert (full.code, full.out) == (1, "")
    assert full.err.startswith(f"{ours} failed: STREAM_FULL no room: initiator.request.alice.reshare: ")
    async with daemon(settings_for(desk.server.url)):
        await desk.server.nc.flush()
    alone = settings_for(desk.server.url).model_dump(exclude_unset=True) | {"clients": {"alice": {}}}
    desk.configure(Settings.model_validate(alone))
    async with daemon(desk.settings):
        for dry_run in ([], ["--dry-run"]):
            gone = await desk.dlq("replay", str(theirs), *dry_run)
            assert gone.code == 1
            assert "POLICY_DENIED client: no such client: no queue takes anything on" in gone.out + gone.err


async def test_a_header_that_nobody_could_send_again_does_not_keep_a_refusal_from_being_stored(served: Desk) -> None:
    sequence = await served.refused("alice.keygen", b"\x80")
    block = b"NATS/1.0\r\nA(B): odd\r\nX-Plain: kept\r\n\r\n"
    command = b"HPUB initiator.request.alice.keygen %d %d\r\n" % (len(block), len(block) + 1)
    await served.server.nc._send_command(command + block + b"\x80\r\n")
    await served.server.nc.flush()
    async with asyncio.timeout(10):
        while await served.letters() < 2:
            await asyncio.sleep(0.02)
    letter = (await served.dlq("ls", "--json")).objects[-1]
    assert letter["sequence"] == sequence + 1
    assert letter["original"]["headers"] == {"X-Plain": "kept"}
