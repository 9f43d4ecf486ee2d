"""`initiator dlq` on a real server: what lies there and why, and gone when it is dropped."""

from __future__ import annotations

import asyncio
import json
import time
from hashlib import sha256
from pathlib import Path

import msgpack
import pytest

from initiator.core.events import format_time
from tests.support.desk import JSON, TRACE, Desk, Done
from tests.support.harness import bench, settings_for, sign_request

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- ls


async def test_an_empty_place_says_so(served: Desk) -> None:
    assert await served.dlq("ls") == Done(0, "no dead letters\n", "")
    assert await served.dlq("ls", "--json") == Done(0, "", "")


async def test_a_line_a_letter_oldest_first_and_never_a_byte_of_the_payload(served: Desk) -> None:
    first = await served.refused("alice.sign", json.dumps({"tx": "c2VjcmV0"}).encode(), JSON)
    second = await served.refused("bob.keygen", b"\xc1secret")
    await served.orphan("sign")
    shown = await served.dlq("ls")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.lines] == ["SEQ", str(first), str(second), str(second + 1)]
    assert shown.lines[0].split() == ["SEQ", "TIME", "CLIENT", "OP", "CODE", "FIELD", "REASON"]
    cells = shown.lines[1].split(maxsplit=6)
    assert cells[2:] == ["alice", "sign", "MISSING_FIELD", "key_type", "this field is required"]
    assert shown.lines[2].split()[2:6] == ["bob", "keygen", "UNDECODABLE", "payload"]
    assert shown.lines[3].split()[2:6] == ["(nodes)", "sign", "RESULT_ORPHANED", "-"]
    assert "secret" not in shown.out
    assert "c2Vj" not in shown.out


async def test_filters_choose_and_what_the_limit_hides_is_counted(served: Desk) -> None:
    ours = [await served.refused("alice.keygen", b"\x80") for _ in range(4)]
    other = await served.refused("bob.sign", b"\xc1")
    await served.orphan("keygen")

    async def found(*filters: str) -> list[int]:
        return [letter["sequence"] for letter in (await served.dlq("ls", "--json", *filters)).objects]

    assert await found("--client", "alice") == ours
    assert await found("--op", "sign") == [other]
    assert await found("--code", "missing_field") == ours
    assert await found("--client", "bob", "--code", "MISSING_FIELD") == []
    assert await found("--results") == [other + 1]
    assert await found("--limit", "2", "--client", "alice") == ours[:2]
    limited = await served.dlq("ls", "--limit", "2")
    assert limited.lines[-1] == "4 more: raise --limit, or narrow it with --since, --client, --op or --code"
    assert len(limited.lines) == 4
    assert (await served.dlq("ls", "--limit", "2", "--json")).err.startswith("4 more: ")


async def test_times_choose_by_when_the_letter_was_stored(served: Desk) -> None:
    old = await served.refused("alice.keygen", b"\x80")
    await asyncio.sleep(0.05)
    between = format_time(time.time())
    await asyncio.sleep(0.05)
    new = await served.refused("alice.keygen", b"\x80")

    async def found(*filters: str) -> list[int]:
        return [letter["sequence"] for letter in (await served.dlq("ls", "--json", *filters)).objects]

    assert await found("--since", between) == [new]
    assert await found("--until", between) == [old]
    assert await found("--since", "1h") == [old, new]
    assert await found("--until", "1h") == []
    assert await found("--since", "1h", "--until", between) == [old]


async def test_many_letters_are_all_read(served: Desk) -> None:
    """More than one batch of the reader."""
    headers = {"Initiator-Code": "EXPIRED"}
    for number in range(1, 601):
        await served.server.nc.publish(f"initiator.dead.alice.sign.{number}", b"x", headers=headers)
    await served.server.nc.flush()
    while await served.letters() < 600:
        await asyncio.sleep(0.02)
    shown = await served.dlq("ls", "--limit", "550")
    assert (len(shown.lines), shown.lines[-1].split()[0]) == (552, "50")
    assert (await served.dlq("drop", "--all", "--code", "EXPIRED", "--yes")).out == "600 dropped\n"


# --- show


async def test_one_letter_says_why_when_and_from_where(served: Desk) -> None:
    tx = b"\x01" + b"secret" * 5
    fields = sign_request("w", tx=tx, tx_id="a-b")
    headers = {"Content-Type": "application/msgpack", "Nats-Msg-Id": "m1", "X-Note": "\x1b[31mred"} | TRACE
    data = msgpack.packb(fields)
    sequence = await served.refused("alice.sign", data, headers)
    shown = await served.dlq("show", str(sequence))
    facts = dict(line.split(maxsplit=1) for line in shown.lines if not line.startswith(" ") and " " in line)
    assert (facts["client"], facts["op"], facts["code"], facts["field"]) == ("alice", "sign", "INVALID_FIELD", "tx_id")
    request = served.server.seen[-1]["request_seq"]
    assert facts["request"].startswith(f"sequence {request} on initiator.request.alice.sign, received 20")
    assert facts["payload"] == f"{len(data)} bytes, application/msgpack"
    indented = [line.strip() for line in shown.lines if line.startswith("  ")]
    assert f"traceparent: {TRACE['traceparent']}" in indented
    assert "X-Note: \\x1b[31mred" in indented
    assert "tx: 31 bytes" in indented
    assert "network_internal_code: text, 3 bytes" in indented
    assert "sol" not in shown.out
    assert "secret" not in shown.out


async def test_fields_are_shown_where_asked_for_and_what_is_to_be_signed_by_digest_alone(served: Desk) -> None:
    tx = b"\x01" + b"secret" * 5
    sequence = await served.refused("alice.sign", msgpack.packb(sign_request("w", tx=tx, tx_id="a-b")))
    shown = await served.dlq("show", str(sequence), "--payload")
    indented = [line.strip() for line in shown.lines]
    assert "tx_id: a-b" in indented
    assert f"tx: sha256 {sha256(tx).hexdigest()}, bytes 31" in indented
    (found,) = (await served.dlq("show", str(sequence), "--payload", "--json")).objects
    assert found["payload"]["values"]["tx"] == {"sha256": sha256(tx).hexdigest(), "bytes": 31}
    assert found["payload"]["fields"]["tx"] == "31 bytes"
    (found,) = (await served.dlq("show", str(sequence), "--json")).objects
    assert "values" not in found["payload"]
    assert "secret" not in shown.out


async def test_a_letter_that_is_not_there_is_told(served: Desk) -> None:
    shown = await served.dlq("show", "999999")
    assert (shown.code, shown.err) == (1, "error: NOT_FOUND SEQ: no dead letter has the sequence 999999\n")


# --- drop


async def test_a_drop_deletes_what_was_chosen_and_says_how_many(served: Desk) -> None:
    one, two, three = [await served.refused("alice.keygen", b"\x80") for _ in range(3)]
    other = await served.refused("bob.keygen", b"\x80")
    rehearsed = await served.dlq("drop", "--all", "--client", "alice", "--dry-run")
    assert rehearsed.lines == [
        *(f"{sequence} (alice keygen) MISSING_FIELD would be dropped" for sequence in (one, two, three)),
        "3 would be dropped",
    ]
    assert await served.letters() == 4
    refused = await served.dlq("drop", str(one))
    assert (refused.code, await served.letters()) == (2, 4)
    assert "--yes: needed where there is no terminal to ask on" in refused.err
    assert await served.dlq("drop", str(one), "--yes") == Done(0, "1 dropped\n", "")
    again = await served.dlq("drop", str(one), str(two), "--yes")
    assert (again.code, again.out) == (1, "1 dropped\n")
    assert again.err == f"{one} failed: NOT_FOUND SEQ: no dead letter has the sequence {one}\n"
    assert (await served.dlq("drop", "--all", "--client", "alice", "--yes")).out == "1 dropped\n"
    assert [letter["sequence"] for letter in (await served.dlq("ls", "--json")).objects] == [other]


async def test_a_person_is_asked_first(served: Desk) -> None:
    await served.refused("alice.keygen", b"\x80")
    declined = await served.on_a_terminal("n", "drop", "--all")
    assert (declined.code, await served.letters()) == (1, 1), declined.err
    assert declined.lines[-1].endswith("nothing dropped")
    agreed = await served.on_a_terminal("y", "drop", "--all")
    assert (agreed.code, await served.letters()) == (0, 0), agreed.err
    assert "drop 1 dead letters? [y/N]: " in agreed.out
    assert agreed.lines[-1].endswith("1 dropped")


# --- mistakes


async def test_before_the_first_start_of_a_daemon_there_is_no_such_stream(tmp_path: Path) -> None:
    async with bench(tmp_path) as server:
        shown = await Desk(server, settings_for(server.url), tmp_path).dlq("ls")
    assert shown.code == 1
    assert shown.err == "error: STREAM_FORM INITIATOR_DEAD is not there\nhint: the daemon creates it at its start\n"


async def test_no_server_is_told(desk: Desk) -> None:
    desk.configure(settings_for("nats://127.0.0.1:1"))
    shown = await desk.dlq("ls")
    assert shown.code == 1
    assert shown.err.startswith("error: BUS_UNAVAILABLE ")
