"""All parts of a run: nats-servers behind proxies, KMS, nodes, replicas of the daemon under a supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO

from nats.errors import Error as NatsError

from initiator.dev import accounts, servers
from initiator.dev.accounts import Logins
from initiator.dev.nodes.cluster import SimulatedCluster
from initiator.dev.nodes.config import NodesConfig
from initiator.dev.nodes.jetstream import ApiError
from tests.chaos.kms import ChaosKms
from tests.chaos.nodes import ChaosBehaviour
from tests.chaos.profile import CLIENTS, Profile
from tests.chaos.proxy import Proxy, proxy
from tests.support.kms_stub import REGION, Key, serving
from tests.support.nats_servers import NatsServers

CHAIN_CODE = "22" * 32
_RESTART_AFTER_S = 0.5


class Replica:
    """One daemon under a supervisor that starts it again whenever it ends, as a cluster does."""

    def __init__(self, command: Sequence[str], config: Path, log: Path) -> None:
        self._command = [*command, "--config", str(config), "run"]
        self.config = config
        self.log = log
        self._child: Process | None = None
        self.starts = 0
        self._wanted = True

    async def supervise(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("INITIATOR_", "AWS_"))}
        while self._wanted:
            with self.log.open("ab") as output:
                self._child = await asyncio.create_subprocess_exec(
                    *self._command, stdin=DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
                )
            self.starts += 1
            await self._child.wait()
            await asyncio.sleep(_RESTART_AFTER_S)

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def send(self, number: int) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.send_signal(number)

    async def stop(self) -> None:
        self._wanted = False
        self.send(signal.SIGCONT)
        if self._child is not None:
            await servers.stop(self._child, grace_s=8)


class World:
    """A running system."""

    def __init__(self, profile: Profile, folder: Path, daemon: Sequence[str]) -> None:
        self.profile = profile
        self.folder = folder
        self._daemon = daemon
        self.logins = Logins.generate(CLIENTS)
        self.nats = NatsServers(folder, profile.nats, self._nats_config)
        self.kms = ChaosKms()
        self.key: Key = self.kms.add()
        self.kms_proxy: Proxy | None = None
        self.behaviour = ChaosBehaviour(profile.node_delay_s, profile.seed, self._file("answers.jsonl"))
        self.cluster: SimulatedCluster | None = None
        self.replicas: list[Replica] = []
        self.proxies: list[list[Proxy]] = []

    def _nats_config(self, index: int, place: str) -> str:
        return accounts.server_config(self.logins, place).replace(
            "server_name: initiator-dev", f"server_name: n{index}"
        )

    def login(self, user: str) -> dict[str, str]:
        return {"user": user, "password": self.logins.passwords[user]}

    def _file(self, name: str) -> IO[bytes]:
        return (self.folder / name).open("ab")

    def _secret(self, name: str, content: str) -> str:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(content)
        return str(path)

    async def start(self, exits: contextlib.AsyncExitStack) -> None:
        exits.push_async_callback(self.nats.stop)
        await self.nats.start_all()
        exits.enter_context(serving(self.kms))
        self.kms_proxy = await exits.enter_async_context(proxy(int(self.kms.url.rpartition(":")[2])))
        await self._start_nodes(exits)
        for index in range(self.profile.replicas):
            await self._start_replica(exits, index)

    async def _start_nodes(self, exits: contextlib.AsyncExitStack) -> None:
        config = NodesConfig(
            servers=self.nats.urls,
            user=accounts.NODES,
            password=self.logins.passwords[accounts.NODES],
            pubkey=self.key.spki.hex(),
            chain_code=CHAIN_CODE,
            max_concurrent_keygen=10,
            max_concurrent_signing=40,
        )
        async with asyncio.timeout(60):
            while self.cluster is None:  # a cluster of servers takes its time to choose its leaders
                with contextlib.suppress(ApiError, NatsError, OSError, TimeoutError):
                    cluster = SimulatedCluster(config, behaviour=self.behaviour)
                    self.cluster = await exits.enter_async_context(cluster)
                await asyncio.sleep(0.2)

    async def _start_replica(self, exits: contextlib.AsyncExitStack, index: int) -> None:
        proxies = [await exits.enter_async_context(proxy(port)) for port in self.nats.ports]
        self.proxies.append(proxies)
        config = self.folder / f"replica{index}.yaml"
        config.touch(mode=0o600)
        config.write_text(json.dumps(self._settings(index, proxies), indent=2))
        replica = Replica(self._daemon, config, self.folder / f"replica{index}.log")
        self.replicas.append(replica)
        task = asyncio.create_task(replica.supervise())
        exits.callback(task.cancel)
        exits.push_async_callback(replica.stop)

    def _settings(self, index: int, proxies: list[Proxy]) -> dict[str, object]:
        urls = [f"nats://127.0.0.1:{one.port}" for one in proxies]
        urls = urls[index % len(urls) :] + urls[: index % len(urls)]

        def login(user: str) -> dict[str, object]:
            password = self._secret(f"{user}.password", self.logins.passwords[user])
            return {"servers": urls, "user": user, "password_file": password}

        assert self.kms_proxy is not None
        chosen = self.profile.settings
        static = {f"{name}_file": self._secret(name, "dev") for name in ("access_key_id", "secret_access_key")}
        pinned = {"event_initiator_pubkey": self.key.spki.hex(), "chain_code": CHAIN_CODE}
        return {
            "nats": login(accounts.DAEMON),
            "signer": {
                "kms": {
                    "region": REGION,
                    "key_id": self.key.arn,
                    "endpoint_url": f"http://127.0.0.1:{self.kms_proxy.port}",
                    **static,
                    **chosen["kms"],
                },
            },
            "mpcium": {"nats": login(accounts.DAEMON_AT_NODES), **pinned, **chosen["mpcium"]},
            "worker": chosen["worker"],
            "streams": chosen["streams"],
            "clients": {name: {} for name in CLIENTS},
            "http": {"port": 0},
            "log": {"format": "json"},
        }


@contextlib.asynccontextmanager
async def world(profile: Profile, folder: Path, daemon: Sequence[str] = ()) -> AsyncIterator[World]:
    """A world for the length of the block.

    Args:
        daemon: the command that runs a daemon, without its options; default: the product's.
    """
    one = World(profile, folder, daemon or (sys.executable, "-m", "initiator"))
    async with contextlib.AsyncExitStack() as exits:
        await one.start(exits)
        yield one
