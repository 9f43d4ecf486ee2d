"""Frozen, suspended and killed: what the record, the nodes and KMS hold afterwards is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from initiator.bus.errors import NotFoundError
from initiator.dev.servers import free_port
from initiator.rollcall import LEASE_S, Roll
from tests.e2e.stories import DEADLINE_S, STORIES, Story, Universe, World
from tests.support import command
from tests.support.crashing import Daemon
from tests.support.environment import environment
from tests.support.kms_stub import Key, KmsStub, kms_stub
from tests.support.operator import Operator, operator

REQUESTS = 400


async def ordered(world: World, *arguments: str) -> dict[str, object]:
    """A command of the operator, its JSON."""
    words = ["--config", str(world.folder / "config.json"), *arguments, "--json"]
    done = await asyncio.to_thread(command.run, *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def ops_of(world: World) -> str:
    login: dict[str, str] = json.loads((world.folder / "config.json").read_text())["nats"]
    return login["user"]


@pytest.mark.parametrize("story", STORIES[:3], ids=lambda story: story.name.replace(" ", "_"))
@pytest.mark.parametrize("boundary", ["before sign", "after sign", "before record signed"])
async def test_a_replica_suspended_anywhere_on_its_way_to_the_record_sends_nothing_out_in_a_freeze(
    universe: Universe, story: Story, boundary: str
) -> None:
    """Also exactly between its last look and its write: what it then records late stays where it is."""
    async with universe.world(story) as world, operator(universe.url, user=ops_of(world), password="p") as ops:
        suspended = await universe.forker.start(world.folder, "suspended", boundary, freeze=True)
        other: Daemon | None = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                await world.ask(story)
                await suspended.frozen()
                heard = await ordered(world, "freeze", "--all", "--reason", "a drill")
                assert (heard["confirmed"], len(_list(heard["waited_out"]))) == ([], 1)
                frozen_at = await ops.last_sequence()
                await suspended.send(signal.SIGCONT)
                other = await universe.forker.start(world.folder, "other", "")
                await asyncio.sleep(3.0)  # it does what it can, the other one takes over what it may
                late = await ops.signed_after(frozen_at)
                assert len(late) == (boundary == "before record signed"), late
                assert len(world.heard) == 0
                await ordered(world, "unfreeze", "--all")
                final = await world.end_of(story.op, story.operation_id)
                assert final["state"] == "completed", final
                assert len(world.heard) == 1
        finally:
            await suspended.stop(signal.SIGKILL)
            if other is not None:
                await other.stop(signal.SIGKILL)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


# --- daemons as processes, under load


class Fleet:
    """Daemons of one world as processes, with KMS over HTTP."""

    def __init__(self, world: World, ops: Operator, stub: KmsStub) -> None:
        self.world, self.ops, self.stub = world, ops, stub
        self._processes: list[Process] = []

    async def start(self) -> Process:
        with (self.world.folder / "daemon.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "initiator", "--config", str(self.world.folder / "config.json"),
                "--set", f"http.port={free_port()}", "run", stdout=log, stderr=log, env=environment(),
            )  # fmt: skip
        self._processes.append(child)
        return child

    async def ready(self, count: int) -> None:
        async with asyncio.timeout(30):
            while await self._signed_in() < count:
                await asyncio.sleep(0.1)

    async def _signed_in(self) -> int:
        with contextlib.suppress(NotFoundError):
            return len(await Roll(self.ops.js).names())
        return 0

    @property
    def signatures(self) -> int:
        return sum(operation == "Sign" for operation, _ in self.stub.calls)

    async def ask(self, client: str, prefix: str, count: int) -> None:
        for number in range(count):
            await self.world.submit("keygen", {"wallet_id": f"{prefix}{number}"}, client=client)

    async def stop(self) -> None:
        for child in self._processes:
            if child.returncode is None:
                child.kill()
                await child.wait()


@pytest.fixture
async def fleet(universe: Universe) -> AsyncIterator[Fleet]:
    with kms_stub() as stub:
        key: Key = stub.add()
        async with universe.world(STORIES[0]) as world:
            kms = {
                "region": key.region, "key_id": key.arn, "endpoint_url": stub.url,
                **{name: str(_secret(world.folder, name)) for name in ("access_key_id_file", "secret_access_key_file")},
            }  # fmt: skip
            world.configure(
                signer={"type": "kms", "kms": kms}, clients={"alice": {}, "bob": {}}, http={"enabled": True},
                mpcium={"keygen": {"in_flight": 0}}, worker={"ack_wait_s": 3, "heartbeat_s": 1, "drain_timeout_s": 1},
            )  # fmt: skip
            async with operator(universe.url, user=ops_of(world), password="p") as ops:
                one = Fleet(world, ops, stub)
                try:
                    yield one
                finally:
                    await one.stop()


def _secret(folder: Path, name: str) -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_text("dev")
    return path


async def until_signed(fleet: Fleet, count: int, client: str = "*") -> None:
    async with asyncio.timeout(60):
        while len(await fleet.ops.signed_after(0, client)) < count:
            await asyncio.sleep(0.05)


async def test_after_freeze_has_returned_nothing_of_it_is_signed_under_load_by_three_replicas(fleet: Fleet) -> None:
    """One of them suspended and awakened in the middle of it; another client goes on."""
    replicas = [await fleet.start() for _ in range(3)]
    await fleet.ready(3)
    load = asyncio.gather(fleet.ask("alice", "a", REQUESTS), fleet.ask("bob", "b", REQUESTS))
    await until_signed(fleet, 20, "alice")
    replicas[0].send_signal(signal.SIGSTOP)
    heard = await ordered(fleet.world, "freeze", "--client", "alice", "--reason", "a drill")
    frozen_at = await fleet.ops.last_sequence()
    assert (len(_list(heard["confirmed"])), len(_list(heard["waited_out"]))) == (2, 1)
    replicas[0].send_signal(signal.SIGCONT)
    await load
    await until_signed(fleet, REQUESTS, "bob")
    assert await fleet.ops.signed_after(frozen_at, "alice") == []
    assert len(await fleet.ops.signed_after(0, "alice")) < REQUESTS
    await ordered(fleet.world, "unfreeze", "--client", "alice")
    await until_signed(fleet, REQUESTS, "alice")


async def test_a_stop_line_is_never_passed_by_two_replicas_that_are_killed_again_and_again(fleet: Fleet) -> None:
    line = 150
    replicas = [await fleet.start(), await fleet.start()]
    await fleet.ready(2)
    await ordered(fleet.world, "stopline", "set", str(line), "--reason", "a budget")
    before = fleet.signatures
    load = asyncio.create_task(fleet.ask("alice", "a", REQUESTS))
    seed = random.Random(7)
    for _ in range(4):
        await asyncio.sleep(seed.uniform(0.3, 1.0))
        victim = seed.randrange(2)
        replicas[victim].kill()
        await replicas[victim].wait()
        replicas[victim] = await fleet.start()
        if fleet.signatures - before >= line:
            break
    await load
    spent = await _until_the_line(fleet)
    await asyncio.sleep(LEASE_S)
    assert spent == line
    called = fleet.signatures - before
    assert 0 < called <= line
    assert called >= line - 4 * 64  # what the dead took with them
    await ordered(fleet.world, "stopline", "raise", str(line + 10), "--reason", "some more")
    await _until_the_line(fleet)
    await asyncio.sleep(1.0)
    assert called <= fleet.signatures - before <= called + 10


async def _until_the_line(fleet: Fleet) -> int:
    line = await fleet.ops.line()
    async with asyncio.timeout(60):
        while (spent := (await fleet.ops.counter.read(line.id)).calls) < line.limit:
            await asyncio.sleep(0.1)
    return spent
