"""One run: wallets, load and faults, the time to settle, the dump, the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from initiator.dev import accounts
from tests.chaos.dump import dump
from tests.chaos.faults import LAYERS, Faults
from tests.chaos.files import write_line
from tests.chaos.judge import ZEROS, Evidence, Judge
from tests.chaos.load import Load
from tests.chaos.patience import connect
from tests.chaos.profile import QUEUES, SETTLE_S, Profile
from tests.chaos.world import World, world

LEAST_SHARE = 0.70
SLOTS = ("INITIATOR_SLOTS_KEYGEN", "INITIATOR_SLOTS_SIGN", "INITIATOR_SLOTS_RESHARE")
LEAST_OF_A_KIND, LONG_RUN_S = 3, 120.0


async def run(
    profile: Profile, folder: Path, daemon: Sequence[str] = (), layers: Sequence[str] = LAYERS
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Run a profile; returns the judge's counts and findings.

    Args:
        folder: takes all logs, configurations and dumps.
        daemon: the command that runs a daemon; default: the product's.
        layers: where faults strike; fewer for a daemon that is at fault itself.
    """
    async with world(profile, folder, daemon) as one:
        counts = await _unleash(one, folder, layers)
        judge = await judged(one, folder)
        starts = [replica.starts for replica in one.replicas]
    return judge.verdict() | {"faults": counts, "daemon_starts": starts}, judge.findings


async def judged(one: World, folder: Path) -> Judge:
    """Wait until nothing moves any more, and have everything that is left looked at."""
    # late answers, and results that come back after mpcium's ack wait, may still change what is recorded
    await empty(one, accounts.NODES, "mpc")
    await empty(one, accounts.DAEMON, *SLOTS)
    await dump(one.nats.urls, one.login(accounts.DAEMON), one.login(accounts.NODES), folder)
    return Judge(Evidence.read(folder), one.key.spki)


async def _unleash(one: World, folder: Path, layers: Sequence[str]) -> dict[str, int]:
    with (folder / "submissions.jsonl").open("ab") as sent, (folder / "faults.jsonl").open("ab") as struck:
        load = Load(one.profile, one.nats.urls, dict(one.logins.passwords), sent)
        await load.connect()
        try:
            async with spy(one, folder):
                await load.make_wallets()
                until = time.monotonic() + one.profile.duration_s
                strikes = Faults(one, struck, layers)
                await asyncio.gather(load.run(until), strikes.run(until))
                await empty(one, accounts.DAEMON, *QUEUES)
        finally:
            await load.close()
        return strikes.counts


@contextlib.asynccontextmanager
async def spy(one: World, folder: Path) -> AsyncIterator[Client]:
    """Writes down every reshare, which no stream keeps."""
    with (folder / "reshares.jsonl").open("ab") as heard:

        async def on_reshare(message: Msg) -> None:
            write_line(heard, json.loads(message.data))

        nc = await connect(one.nats.urls, one.login(accounts.NODES))
        await nc.subscribe("mpc:reshare", cb=on_reshare)
        try:
            yield nc
        finally:
            await nc.close()


async def empty(one: World, user: str, *streams: str) -> None:
    """Wait until nothing is left in some streams, for as long as things may take."""
    nc = await connect(one.nats.urls, one.login(user))
    try:
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                found = [(await nc.jetstream().stream_info(stream)).state.messages for stream in streams]
                if not any(found):
                    return
            await asyncio.sleep(0.5)
    finally:
        await nc.close()


def failures(profile: Profile, verdict: dict[str, Any]) -> list[str]:
    """What is wrong with a verdict."""
    wrong = [f"{name}: expected 0, got {verdict[name]}" for name in ZEROS if verdict[name]]
    wrong += [f"left: {count} in {name}" for name, count in verdict["left"].items()]
    if verdict["completed_share"] < LEAST_SHARE:
        wrong.append(f"completed_share: expected at least {LEAST_SHARE}, got {verdict['completed_share']}")
    if profile.duration_s >= LONG_RUN_S:
        rare = [kind for kind, count in verdict["faults"].items() if count < LEAST_OF_A_KIND]
        wrong += [f"faults: {kind} came fewer than {LEAST_OF_A_KIND} times" for kind in rare]
    return wrong
