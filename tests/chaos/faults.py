"""Faults drawn from the seed: four layers, each with one fault at a time, every kind as often as the others."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import IO

import nats
from nats.errors import Error as NatsError

from initiator.dev import accounts
from tests.chaos import kms, nodes
from tests.chaos.files import write_line
from tests.chaos.profile import CLIENTS, QUEUES
from tests.chaos.world import World

STREAMS = (*QUEUES, "INITIATOR_EVENTS", "INITIATOR_SLOTS_SIGN", "INITIATOR_SLOTS_KEYGEN")
LAYERS = ("replicas", "bus", "kms", "nodes")
Inflict = Callable[[random.Random], Awaitable[None]]


class Faults:
    """What goes wrong, and when; each fault is written down with its beginning and end."""

    def __init__(self, world: World, log: IO[bytes], layers: Sequence[str] = LAYERS) -> None:
        self._world = world
        self._log = log
        self._where = layers
        self.counts: dict[str, int] = {}

    async def run(self, until: float) -> None:
        """Strike in all layers until a time of the monotonic clock; everything is mended at the end."""
        layers = {name: layer for name, layer in self._layers().items() if name in self._where}
        for layer in layers.values():
            self.counts |= dict.fromkeys(layer, 0)
        await asyncio.gather(*(self._layer(name, layer, until) for name, layer in layers.items()))

    def _layers(self) -> dict[str, dict[str, Inflict]]:
        bus: dict[str, Inflict] = {
            "nats_killed": self._kill_nats,
            "connections_cut": self._cut,
            "connections_slow": self._slow,
        }
        if self._world.profile.nats > 1:
            bus["leader_step_down"] = self._step_down
        replicas: dict[str, Inflict] = {
            "replica_killed": self._kill,
            "replica_frozen": self._freeze,
            "rolling_restart": self._roll,
            "clients_changed": self._change_clients,
        }
        return {
            "replicas": replicas,
            "bus": bus,
            "kms": {kind: self._kms(kind) for kind in kms.KINDS},
            "nodes": {kind: self._nodes(kind) for kind in nodes.KINDS},
        }

    async def _layer(self, name: str, layer: dict[str, Inflict], until: float) -> None:
        draw = random.Random(f"{self._world.profile.seed}:{name}")
        # every kind at least three times in a run of two minutes
        pause_s = self._world.profile.duration_s / (3.5 * len(layer)) if self._world.profile.duration_s < 300 else 8.0
        kinds: list[str] = []
        while time.monotonic() < until:
            if not kinds:
                kinds = draw.sample(sorted(layer), len(layer))
            kind = kinds.pop()
            began = time.time()
            due = time.monotonic() + min(pause_s, 8.0) * draw.uniform(0.7, 1.0)
            await layer[kind](draw)
            self.counts[kind] += 1
            write_line(self._log, {"kind": kind, "began": began, "ended": time.time()})
            await asyncio.sleep(max(0.0, min(due, until) - time.monotonic()))

    # --- replicas

    async def _kill(self, draw: random.Random) -> None:
        draw.choice(self._world.replicas).send(signal.SIGKILL)

    async def _freeze(self, draw: random.Random) -> None:
        replica = draw.choice(self._world.replicas)
        replica.send(signal.SIGSTOP)
        await asyncio.sleep(
            draw.choice((draw.uniform(0.2, 2.0), draw.uniform(5.5, 8.0)))
        )  # within the ack wait, or not
        replica.send(signal.SIGCONT)

    async def _roll(self, draw: random.Random) -> None:
        for replica in self._world.replicas:
            replica.send(signal.SIGTERM)
            await asyncio.sleep(draw.uniform(0.5, 2.0))

    async def _change_clients(self, draw: random.Random) -> None:
        """Somebody comes or goes, and turns weigh otherwise, by SIGHUP."""
        for replica in self._world.replicas:
            weights = {name: {"weight": draw.randint(1, 5)} for name in CLIENTS}
            guest: dict[str, dict[str, int]] = {"dave": {}} if draw.random() < 0.5 else {}
            settings = json.loads(replica.config.read_text()) | {"clients": weights | guest}
            replica.config.write_text(json.dumps(settings, indent=2))
            replica.send(signal.SIGHUP)
            await asyncio.sleep(draw.uniform(0.0, 0.5))

    # --- the bus

    async def _kill_nats(self, draw: random.Random) -> None:
        index = draw.randrange(len(self._world.nats.ports))
        await self._world.nats.kill(index)
        await asyncio.sleep(draw.uniform(0.1, 2.0))
        await self._world.nats.start(index)

    async def _cut(self, draw: random.Random) -> None:
        proxies = draw.choice(self._world.proxies)
        for one in proxies:
            one.cut()
        await asyncio.sleep(draw.choice((0.0, draw.uniform(0.5, 4.0))))
        for one in proxies:
            one.mend()

    async def _slow(self, draw: random.Random) -> None:
        proxies = draw.choice(self._world.proxies)
        for one in proxies:
            one.delay_s = draw.uniform(0.02, 0.4)
        await asyncio.sleep(draw.uniform(0.5, 3.0))
        for one in proxies:
            one.delay_s = 0.0

    async def _step_down(self, draw: random.Random) -> None:
        stream = draw.choice(STREAMS)
        urls, login = list(self._world.nats.urls), self._world.login(accounts.DAEMON)
        try:
            nc = await nats.connect(urls, connect_timeout=1, max_reconnect_attempts=1, **login)
            try:
                answer = await nc.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", b"", timeout=2)
                json.loads(answer.data)
            finally:
                await nc.close()
        except (NatsError, OSError):
            return  # no leader to step down: another fault is at work

    # --- KMS and nodes

    def _kms(self, kind: str) -> Inflict:
        async def inflict(draw: random.Random) -> None:
            self._world.kms.kind = kind
            await asyncio.sleep(draw.uniform(0.5, 3.0))
            self._world.kms.kind = ""

        return inflict

    def _nodes(self, kind: str) -> Inflict:
        async def inflict(draw: random.Random) -> None:
            cluster = self._world.cluster
            assert cluster is not None
            if kind == "nodes_not_ready":
                cluster.set_ready(False)
            else:
                self._world.behaviour.kind = kind
            await asyncio.sleep(draw.uniform(0.5, 2.0))
            self._world.behaviour.kind = ""
            cluster.set_ready(True)

        return inflict
