"""What `initiator nats-config` wrote, running: nats-server on it, the daemon, the simulated nodes, and every login."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nats
import nats.errors
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from nats.aio.client import Client

from initiator.app import App
from initiator.config.load import load_settings
from initiator.core.signer import PublicKey
from initiator.core.spki import p256_public_key
from initiator.dev import servers
from initiator.dev.nodes.cluster import SimulatedCluster
from initiator.dev.nodes.config import AuthorizerKey, NodesConfig, Timing
from initiator.natsconfig import passwords
from tests.support.environment import environment
from tests.support.harness import running
from tests.support.typed import initiator

CHAIN_CODE = "33" * 32
KINDS: dict[str, tuple[str, ...]] = {
    "plain-password": ("--form", "plain", "--login", "password"),
    "plain-nkey": ("--form", "plain", "--login", "nkey"),
    "plain-mtls": ("--form", "plain", "--login", "mtls", "--host", "127.0.0.1", "--host", "localhost"),
    "jwt": ("--form", "jwt"),
    "jwt-tls": ("--form", "jwt", "--host", "127.0.0.1", "--host", "localhost"),
}
OTHERS = ("--authorizer", "risk", "--authorizer", "legal", "--auditor", "max", "--operator", "ann")


class Deployment:
    """One folder, and the servers that run on it.

    Args:
        host: where they listen; an address of version 6 in brackets.
        domain: their JetStream domain.
    """

    def __init__(
        self, folder: Path, kind: str, clients: Mapping[str, Any], host: str = "127.0.0.1", domain: str | None = None
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.kind = kind
        self.out = folder / "nats"
        self.config = folder / "initiator.yaml"
        self._domain = domain
        self._words = tuple(host.strip("[]") if word == "127.0.0.1" else word for word in KINDS[kind])
        self._ports = {name: f"{host}:{servers.free_port()}" for name in ("listen", "leaf-listen", "nodes-listen")}
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.set_clients(clients)
        self._servers: dict[str, asyncio.subprocess.Process] = {}

    def set_clients(self, clients: Mapping[str, Any]) -> None:
        self._clients = dict(clients)
        self.config.write_text(json.dumps({"clients": self._clients, "nats": {"jetstream_domain": self._domain}}))

    def generate(self, *more: str, but: tuple[str, ...] = ()) -> dict[str, Any]:
        """Run the command, with more words than each time, and without those of `but`; returns what it told."""
        ports = [word for name, where in self._ports.items() for word in (f"--{name}", where)]
        others = (word for pair in zip(OTHERS[::2], OTHERS[1::2], strict=True) if pair != but for word in pair)
        words = ["--config", str(self.config), "nats-config", str(self.out), *self._words, *others, *ports, *more]
        with patch.object(passwords, "_COST", 4):  # what a login costs the server's processor is not what is tested
            done = initiator(*words, "--json")
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    # --- servers

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Deployment]:
        """nats-server, and in JWT form the nodes' own beside it."""
        async with contextlib.AsyncExitStack() as exits:
            await self._start(exits, "nats.conf", self._ports["listen"])
            if self.kind.startswith("jwt"):
                await self._start(exits, "leaf.conf", self._ports["nodes-listen"])
                await self.leaf_reaches_streams()
            yield self

    async def leaf_reaches_streams(self) -> None:
        """Wait until the nodes' own server knows that there is JetStream behind it: a moment after they connected."""
        nc = await self.connect("nodes")
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(nats.errors.Error):
                    await nc.request("$JS.API.INFO", b"", timeout=2)
                    break
                await asyncio.sleep(0.02)
        await nc.close()

    async def _start(self, exits: contextlib.AsyncExitStack, name: str, where: str) -> None:
        output = exits.enter_context((self.folder / f"{name}.log").open("ab"))
        command = [servers.nats_server_binary(), "-c", str(self.out / name)]
        self._servers[name] = child = await exits.enter_async_context(servers.process(command, output=output))
        host, _, port = where.rpartition(":")
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                    writer.close()
                    return
                assert child.returncode is None, (self.folder / f"{name}.log").read_text()[-2000:]
                await asyncio.sleep(0.02)

    async def reload(self, name: str = "nats.conf") -> None:
        """A server takes over what a further run has written."""
        told = "Reloaded server configuration"
        before = (self.folder / f"{name}.log").read_text().count(told)
        os.kill(self._servers[name].pid, signal.SIGHUP)
        await self._told(name, told, before)

    async def _told(self, name: str, text: str, before: int) -> None:
        """Wait until a server's log says something once more than before."""
        async with asyncio.timeout(15):
            while (self.folder / f"{name}.log").read_text().count(text) <= before:
                await asyncio.sleep(0.02)

    # --- logins

    def login(self, user: str) -> dict[str, Any]:
        """The `nats` section that was written for a user."""
        if user in ("initiator", "initiator-nodes"):
            both = yaml.safe_load((self.out / "initiator.yaml").read_text())
            return dict(both["nats"] if user == "initiator" else both["mpcium"]["nats"])
        return dict(yaml.safe_load((self.out / f"{user}.yaml").read_text())["nats"])

    def options(self, user: str) -> dict[str, Any]:
        """The same, as nats-py takes it."""
        found = self.login(user)
        options: dict[str, Any] = {"servers": found["servers"]}
        if "password_file" in found:
            options |= {"user": found["user"], "password": Path(found["password_file"]).read_text()}
        if "nkey_seed_file" in found:
            options["nkeys_seed"] = found["nkey_seed_file"]
        if "creds_file" in found:
            options["user_credentials"] = found["creds_file"]
        if "tls" in found:
            options["tls"] = tls_context(**found["tls"])
        return options

    async def connect(self, who: str, told: Callable[[str], None] = lambda _text: None, **changes: Any) -> Client:
        """A connection with a user's login; `told` hears what the server says against it."""

        async def on_error(error: Exception) -> None:
            told(str(error))

        quiet = {"allow_reconnect": False, "max_reconnect_attempts": 0, "connect_timeout": 5, "error_cb": on_error}
        return await nats.connect(**(self.options(who) | quiet | changes))

    # --- the system

    @contextlib.asynccontextmanager
    async def nodes(self, authorizers: Mapping[str, PublicKey] | None = None) -> AsyncIterator[SimulatedCluster]:
        """The cluster; where there are authorizers, all of them must have signed."""
        listed = {
            name: AuthorizerKey(public_key=key.hex, algorithm=key.algorithm)
            for name, key in (authorizers or {}).items()
        }
        options = self.options("nodes")
        config = NodesConfig(
            servers=tuple(options["servers"]),
            user=options.get("user"),
            password=options.get("password"),
            tls=options.get("tls"),
            pubkey=self.pin(),
            chain_code=CHAIN_CODE,
            timing=Timing(forward_wait_s=0.3),
            authorizers=listed,
            required_authorizers=tuple(listed),
        )
        async with SimulatedCluster(config) as cluster:
            yield cluster

    def pin(self) -> str:
        """The initiator's public key."""
        return p256_public_key(self._key.public_key()).hex

    def write_settings(self, **more: Any) -> Path:
        """The daemon's configuration: the written logins as they are, a local key, the nodes' key."""
        key = self.folder / "event_initiator.key"
        if not key.exists():
            key.touch(mode=0o600)
            der = self._key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
            key.write_text(der.hex())
        written = yaml.safe_load((self.out / "initiator.yaml").read_text())
        pinned = {"event_initiator_pubkey": self.pin(), "chain_code": CHAIN_CODE}
        settings = {
            "nats": written["nats"],
            "mpcium": written["mpcium"] | pinned,
            "signer": {"type": "local", "local": {"path": str(key)}},
            "clients": self._clients,
            "http": {"port": servers.free_port()},
            "log": {"format": "json"},
        }
        path = self.folder / "run.yaml"
        path.write_text(json.dumps(settings | more, ensure_ascii=False))  # YAML knows no surrogates
        self.http = f"http://127.0.0.1:{settings['http']['port']}"
        return path

    @contextlib.asynccontextmanager
    async def daemon(self, **more: Any) -> AsyncIterator[asyncio.subprocess.Process]:
        path = self.write_settings(**more)
        log = self.folder / "initiator.log"
        with log.open("ab") as output:
            command = [sys.executable, "-m", "initiator", "--config", str(path), "run"]
            async with servers.process(command, output=output, environment=environment()) as child:
                async with asyncio.timeout(20):
                    while not await asyncio.to_thread(servers.is_ready, f"{self.http}/readyz"):
                        assert child.returncode is None, log.read_text()[-2000:]
                        await asyncio.sleep(0.05)
                yield child

    @contextlib.asynccontextmanager
    async def daemon_here(self) -> AsyncIterator[App]:
        """The daemon in this process, where one of its own would prove nothing more."""
        settings = load_settings(str(self.write_settings()), {}, {}).settings
        async with running(App(settings)) as app:
            yield app

    @contextlib.asynccontextmanager
    async def authorizer(
        self, name: str, key: Path, prefix: tuple[str, ...] = ()
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """`initiator authorizer run` with the login that was written for it, signing whatever it is asked."""
        rules, path = self.folder / f"{name}.policy.yaml", self.folder / f"{name}.run.yaml"
        rules.write_text(json.dumps({"version": 1, "rules": [{"id": "everything", "effect": "allow"}]}))
        login, pin = self.login(f"authorizer-{name}"), self.pin()
        settings = {"authorizer_id": name, "nats": login, "key": {"path": str(key)}, "policy": str(rules)}
        path.write_text(json.dumps(settings | {"event_initiator_pubkey": pin, "log": {"format": "json"}}))
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            words = [*prefix, sys.executable, "-m", "initiator", "authorizer", "run", "--config", str(path)]
            async with servers.process(words, output=output, environment=environment()) as child:
                async with asyncio.timeout(20):
                    while "authorizer.started" not in await asyncio.to_thread(log.read_text):
                        assert child.returncode is None, log.read_text()[-2000:]
                        await asyncio.sleep(0.05)
                yield child


def tls_context(ca_file: str, cert_file: str | None = None, key_file: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if cert_file and key_file:
        context.load_cert_chain(cert_file, key_file)
    return context
