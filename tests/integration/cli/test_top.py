"""`initiator top`: what it counts, and what a terminal of 80 by 24 shows of it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.cli.top import picture
from initiator.config.schema import Settings
from initiator.core.events import format_time
from initiator.core.model import Operation
from initiator.overview import Failure, Overview, Replica, Snapshot, Tally
from tests.support import command
from tests.support.environment import environment
from tests.support.harness import Bench, bench, daemon, settings_for, sign_request


def told(state: str, at: float, **more: Any) -> dict[str, Any]:
    return {"op": "sign", "id": "t1", "client": "alice", "state": state, "time": format_time(at)} | more


def test_rates_and_latencies_are_those_of_the_window() -> None:
    now = [100.0]
    tally = Tally(lambda: now[0])
    for number in range(100):
        tally.hear(told("accepted", 1000.0, id=f"t{number}"))
        tally.hear(told("completed", 1000.0 + number / 100, id=f"t{number}"))
    tally.hear(told("accepted", 1000.0))
    tally.hear(told("failed", 1001.0, code="NODES_ERROR", outcome="unknown", reason="no"))
    tally.hear(told("rejected", 1001.0, id=None, code="CONFLICT", reason="taken"))
    now[0] = 120.0
    lane = tally.lane(Operation.SIGN, waiting=3, in_flight=2, cap=10)
    assert (lane.completed_per_s, lane.failed_per_s, lane.rejected_per_s) == (5.0, 0.05, 0.05)
    assert lane.latencies_s == pytest.approx((0.5, 0.95, 0.99))
    assert [failure.code for failure in tally.failures] == ["CONFLICT", "NODES_ERROR"]
    now[0] = 200.0
    later = tally.lane(Operation.SIGN, waiting=0, in_flight=0, cap=10)
    assert (later.completed_per_s, later.latencies_s) == (0.0, ())


def test_what_was_begun_and_never_ended_does_not_pile_up() -> None:
    tally = Tally()
    for number in range(100_010):
        tally.hear(told("accepted", 1.0, id=str(number)))
    assert len(tally._begun) == 100_000


def test_the_picture_fits_a_terminal_of_80_by_24() -> None:
    tally = Tally()
    replica = Replica(
        id="a" * 16, version="10.10.10", ready=False, held=2000, key_fingerprint="SHA256:" + "x" * 43,
        trouble="signer: KMS_UNAVAILABLE kms:Sign: no answer within 6 s \x1b[31m",
    )  # fmt: skip
    failure = Failure(
        time="2026-01-01T12:00:00.000Z", operation="sign", client="c" * 64, id="i" * 64, code="KMS_UNAVAILABLE",
        outcome="none", reason="a reason\nwith a line end",
    )  # fmt: skip
    snapshot = Snapshot(
        replicas=(replica,) * 5, failures=(failure,) * 50, window_s=60.0,
        lanes=tuple(tally.lane(op, 1_000_000, 100, 100) for op in Operation),
        held_back=("all frozen by ops\x1b: " + "y" * 90,) * 5, clients=tuple(("c" * 64, 1_000_000) for _ in range(10)),
    )  # fmt: skip
    lines = picture(snapshot, "nats.example.com:4222, nats-server 2.12.0", "12:00:00", 80, 23)
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    assert "ready: 0 of 5" in lines[1]
    assert lines[2].startswith("HELD BACK  all frozen by ops")
    assert lines[4] == "HELD BACK  and 3 more: initiator freeze --list"
    assert not any(char in "\x1b\n" for line in lines for char in line)


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("top")) as ready:
        yield ready


def config(settings: Settings, folder: Path) -> Path:
    path = folder / "initiator.yaml"
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings.model_dump(mode="json", exclude_unset=True)))
    return path


async def top(path: Path, *options: str) -> tuple[int, str]:
    done = await asyncio.to_thread(command.run, "--config", str(path), "top", *options)
    return done.returncode, done.stdout + done.stderr


async def test_it_counts_what_is_there(server: Bench, tmp_path: Path) -> None:
    settings = settings_for(server.url, mpcium={"sign": {"in_flight": 3}, "keygen": {"in_flight": 2}})
    connection = Connection(settings.nats, "test")
    await connection.open()
    async with daemon(settings), daemon(settings):
        await server.wallet("w1")
        overview = Overview(JetStream(connection), settings)
        await overview.start()
        for _ in range(5):
            await server.submit("sign", sign_request("w1"))
        await server.rejection(await server.submit("sign", sign_request("w1", tx_id="keygen"), client="bob"), "bob")
        await server.wallet(f"w{secrets.token_hex(4)}")
        async with asyncio.timeout(10):
            while (seen := await overview.look()).lanes[1].in_flight < 3 or seen.clients != (("alice", 5),):
                await asyncio.sleep(0.05)
    await connection.close()
    assert [replica.ready for replica in seen.replicas] == [True, True]
    lanes = {lane.operation: lane for lane in seen.lanes}
    assert (lanes[Operation.SIGN].waiting, lanes[Operation.SIGN].in_flight, lanes[Operation.SIGN].cap) == (5, 3, 3)
    assert lanes[Operation.KEYGEN].completed_per_s > 0
    assert len(lanes[Operation.KEYGEN].latencies_s) == 3
    assert [(one.client, one.code) for one in seen.failures] == [("bob", "INVALID_FIELD")]


async def test_one_picture_and_its_json(server: Bench, tmp_path: Path) -> None:
    settings = settings_for(server.url)
    path = config(settings, tmp_path)
    async with daemon(settings):
        code, shown = await top(path, "--once", "--interval", "0.5")
        assert code == 0
        assert "replicas ready: 1 of 1" in shown
        code, shown = await top(path, "--once", "--interval", "0.5", "--json")
    assert code == 0
    assert [lane["operation"] for lane in json.loads(shown)["lanes"]] == ["keygen", "sign", "reshare"]


async def test_without_anybody_it_says_so(server: Bench, tmp_path: Path) -> None:
    async with daemon(settings_for(server.url)):
        pass
    code, shown = await top(config(settings_for(server.url), tmp_path), "--once", "--interval", "0.5")
    assert code == 0
    assert "(nobody answers)" in shown
    nowhere = config(settings_for("nats://127.0.0.1:1"), tmp_path)
    code, shown = await top(nowhere, "--once")
    assert code == 1
    assert shown.startswith("error: BUS_UNAVAILABLE")


def live(path: Path) -> str:
    """What a terminal gets until Ctrl-C, typed after the second screen."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "initiator", "--config", str(path), "top", "--interval", "0.5"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment() | {"COLUMNS": "80", "LINES": "24"},
    )  # fmt: skip
    os.close(theirs)
    seen, typed = b"", False
    while True:
        try:
            seen += os.read(ours, 65_536)
        except OSError:
            break
        if not typed and seen.count(b"initiator top") >= 2:
            child.send_signal(signal.SIGINT)
            typed = True
    os.close(ours)
    assert child.wait(10) == 0
    return seen.decode()


async def test_live_it_leaves_the_terminal_as_it_was(server: Bench, tmp_path: Path) -> None:
    settings = settings_for(server.url)
    async with daemon(settings):
        shown = await asyncio.to_thread(live, config(settings, tmp_path))
    assert shown.startswith("\x1b[?1049h")
    assert shown.rstrip().endswith("\x1b[?1049l")
    assert shown.count("initiator top") >= 2
