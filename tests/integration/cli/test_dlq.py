"""`initiator dlq` on a real server: what lies there and why, and gone when it is dropped."""

from __future__ import annotations

import asyncio
import json
import stat
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
    assert shown.lines[0].split() == [
        "SEQ", "TIME", "CLIENT", "OP", "ID", "CODE", "OUTCOME", "FIELD", "REASON"
    ]  # fmt: skip
    cells = shown.lines[1].split(maxsplit=8)
    assert cells[2:] == ["alice", "sign", "-", "MISSING_FIELD", "-", "key_type", "this field is required"]
    assert shown.lines[2].split()[2:8] == ["bob", "keygen", "-", "UNDECODABLE", "-", "payload"]
    assert shown.lines[3].split()[2:8] == ["(nodes)", "sign", "nobody", "RESULT_ORPHANED", "-", "-"]
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
    assert (
        limited.lines[-1]
        == "4 more: raise --limit, or narrow it with --since, --client, --op, --id, --code or --outcome"
    )
    assert len(limited.lines) == 4
    assert (await served.dlq("ls", "--limit", "2", "--json")).err.startswith("4 more: ")


async def test_ids_and_outcomes_are_shown_and_choose(served: Desk) -> None:
    first = await served.refused("alice.keygen", msgpack.packb({"wallet_id": "not an id!"}))
    second = await served.refused("bob.sign", json.dumps({"tx_id": "t1", "wallet_id": "w1"}).encode(), JSON)
    gone = {"Initiator_Code": "KMS_UNAVAILABLE", "Initiator_Outcome": "none"}
    third = await served.bury("alice.sign", msgpack.packb({"tx_id": "t1"}), **gone)
    fourth = await served.bury("alice.sign", b"\xc1", **gone | {"Initiator_Outcome": "unknown"})

    found = {letter["sequence"]: letter for letter in (await served.dlq("ls", "--json")).objects}
    assert [found[sequence]["id"] for sequence in (first, second, third, fourth)] == ["not an id!", "t1", "t1", None]
    assert [found[sequence]["outcome"] for sequence in (first, third, fourth)] == [None, "none", "unknown"]

    async def chosen(*filters: str) -> list[int]:
        return [letter["sequence"] for letter in (await served.dlq("ls", "--json", *filters)).objects]

    assert await chosen("--id", "t1") == [second, third]
    assert await chosen("--id", "t1", "--client", "alice") == [third]
    assert await chosen("--id", "not an id!") == [first]
    assert await chosen("--id", "t") == []
    assert await chosen("--outcome", "none") == [third]
    assert await chosen("--outcome", "unknown") == [fourth]
    limited = await served.dlq("ls", "--id", "t1", "--limit", "1")
    assert limited.lines[1].split()[4] == "t1"
    assert limited.lines[2].startswith("1 more: ")
    assert (await served.dlq("drop", "--all", "--id", "t1", "--yes")).out == "2 dropped\n"
    assert await chosen() == [first, fourth]
    (shown,) = (await served.dlq("show", str(first), "--json")).objects
    assert shown["id"] == "not an id!"
    assert f"id        {shown['id']}" in (await served.dlq("show", str(first))).lines


async def test_lines_are_cut_on_a_terminal_and_never_in_a_pipe(served: Desk) -> None:
    tx_id = "4f1c77aa-0b2e-4d53-9f0e-3d8f3b1f7c55"
    data = json.dumps({"tx_id": tx_id, "key_type": "x" * 100}).encode()
    await served.refused("alice.sign", data, JSON)
    (letter,) = (await served.dlq("ls", "--json")).objects
    whole = (await served.dlq("ls")).lines[1]
    assert tx_id in whole
    assert whole.endswith(f"  {letter['reason']}")
    heading, cut = (await served.on_a_screen(120, "ls")).lines
    assert (len(cut), cut.count("…"), "REASON" in heading) == (120, 2, True)
    assert "…" not in "".join((await served.on_a_screen(300, "ls")).lines)


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


async def test_a_payload_is_exported_byte_for_byte_for_its_owner_alone(served: Desk, tmp_path: Path) -> None:
    data = b"\xc1\x00\r\n\xff" + bytes(range(256))
    sequence = str(await served.refused("alice.sign", data))
    target = tmp_path / "payload"
    done = await served.dlq("show", sequence, "--export", str(target))
    digest = sha256(data).hexdigest()
    assert done == Done(0, f"{len(data)} bytes written to {target} (mode 0600), sha256 {digest}\n", "")
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (data, 0o600)

    target.write_bytes(b"mine")
    again = await served.dlq("show", sequence, "--export", str(target))
    assert (again.code, again.out, target.read_bytes()) == (2, "", b"mine")
    assert f"--export: expected a new file, or --force, got {target}, which exists" in again.err
    assert (await served.dlq("show", sequence, "--export", str(target), "--force")).code == 0
    assert target.read_bytes() == data


async def test_a_payload_goes_into_a_pipe_and_never_onto_a_terminal(served: Desk) -> None:
    data = b"\xc1\x1b[2Jsecret\r\n"
    sequence = str(await served.refused("alice.sign", data))
    assert await served.bytes_of("show", sequence, "--export", "-") == data
    shown = await served.on_a_screen(80, "show", sequence, "--export", "-")
    assert (shown.code, shown.out) == (2, "")
    assert "--export -: expected a pipe or a file on the output, got a terminal" in shown.err


async def test_nothing_is_exported_of_a_letter_that_is_not_there(served: Desk, tmp_path: Path) -> None:
    target = tmp_path / "payload"
    done = await served.dlq("show", "999999", "--export", str(target))
    assert (done.code, target.exists()) == (1, False)


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
