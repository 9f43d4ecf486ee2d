"""The whole system on one machine, as real processes on free loopback ports and in one temporary folder.

nats-server from the wheel, KMS through a real emulator over HTTP, the daemon, three simulated nodes. Each part has
a NATS account of its own. Nothing outlives the stack: everything is stopped and the folder removed at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from initiator.core.accounts import authorizer_user
from initiator.core.signer import PublicKey
from initiator.dev import accounts, servers
from initiator.dev.accounts import Logins
from initiator.dev.trust import AUDIENCE, Trust, authorizer_ids
from initiator.errors import Code, HaltError

REGION = "eu-central-1"
CHAIN_CODE = "11" * 32
Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What `initiator dev` can vary.

    Attributes:
        kms: the emulator, or `local` for a key file.
        routing: how the nodes route results; `unscoped` is v0.3.5's form.
        nats: where nats-server runs.
        settings: further settings of the daemon, nested as in its YAML file.
        authorizers: how many must sign, too.
        strict: a strict policy: clients sign their requests and use their own wallets alone.
        forward_wait_s: how long a node waits for the answer to a sign request before its redelivery (mpcium: 45).
    """

    kms: Literal["moto", "localstack", "local"] = "moto"
    routing: Literal["scoped", "unscoped"] = "scoped"
    clients: tuple[str, ...] = ("alice", "bob")
    node_delay_s: float = 0.0
    authorizers: int = 0
    strict: bool = False
    forward_wait_s: float = 45.0
    nats: servers.NatsHost = field(default_factory=servers.NatsProcess)
    settings: dict[str, Any] = field(default_factory=dict)


_MOTO_MAX_TX_BYTES = 2048


class Stack:
    """A running stack.

    Attributes:
        nats_url: the server, for any login of `logins`.
        config_path: the daemon's configuration file.
        on_node_event: told of everything that the nodes say.
    """

    def __init__(self, options: StackOptions, folder: Path) -> None:
        self.options = options
        self.folder = folder
        names = authorizer_ids(options.authorizers)
        self.logins = Logins.generate(options.clients, names)
        self.trust = Trust(folder, options.clients, names, strict=options.strict) if names or options.strict else None
        self.nats_url = ""
        self.kms_url: str | None = None
        self.public_key: PublicKey | None = None
        self.config_path = folder / "initiator.yaml"
        self.http_port = servers.free_port()
        self.daemon: Process | None = None
        self.on_node_event: Listener = lambda _event: None

    @property
    def environment(self) -> dict[str, str]:
        """The daemon's environment: nothing of the caller's own settings and credentials."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("INITIATOR_", "AWS_"))}

    def password(self, user: str) -> str:
        return self.logins.passwords[user]

    # --- start

    async def start(self, exits: contextlib.AsyncExitStack) -> None:
        """Start all parts; what was started is ended by `exits`."""
        host = self.options.nats
        client_id = "initiator" if self.options.routing == "scoped" else None
        config = accounts.server_config(self.logins, host.place(self.folder), client_id)
        self.nats_url = await exits.enter_async_context(host.start(config, self.folder))
        await self._start_kms(exits)
        await self._start_nodes(exits)
        exits.push_async_callback(self.stop_daemon)
        await self.start_daemon()
        await self._start_authorizers(exits)

    async def _start_kms(self, exits: contextlib.AsyncExitStack) -> None:
        signer: dict[str, Any]
        if self.options.kms == "local":
            signer = {"type": "local", "local": {"path": str(self._write_local_key())}}
        else:
            start = servers.moto_server if self.options.kms == "moto" else _localstack()
            self.kms_url = url = await exits.enter_async_context(start(self.folder))
            arn = await asyncio.to_thread(servers.create_kms_key, url, REGION)
            # emulators take any credentials; from files, so that the settings serve every command as they are
            static = {f"{name}_file": self._file(name, "dev") for name in ("access_key_id", "secret_access_key")}
            signer = {"type": "kms", "kms": {"region": REGION, "key_id": arn, "endpoint_url": url, **static}}
        self._write_config(signer, pin=None)
        self.public_key = await self._read_public_key()
        self._write_config(signer, pin=self.public_key.hex)

    def _write_local_key(self) -> Path:
        """A P-256 key in mpcium's own format, for this stack alone."""
        path = self.folder / "event_initiator.key"
        key = ec.generate_private_key(ec.SECP256R1())
        der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        path.touch(mode=0o600)
        path.write_text(der.hex())
        return path

    def secret_file(self, user: str) -> str:
        """Where a user's password lies."""
        return self._file(f"{user}.password", self.password(user))

    def _file(self, name: str, content: str) -> str:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(content)
        return str(path)

    def _login(self, user: str) -> dict[str, Any]:
        return {"servers": [self.nats_url], "user": user, "password_file": self.secret_file(user)}

    def _write_config(self, signer: dict[str, Any], pin: str | None) -> None:
        mpcium: dict[str, Any] = {
            "nats": self._login(accounts.DAEMON_AT_NODES),
            "routing": self.options.routing,
            "chain_code": CHAIN_CODE,
        }
        if pin:
            mpcium["event_initiator_pubkey"] = pin
        config = {
            "nats": self._login(accounts.DAEMON),
            "signer": signer,
            "mpcium": mpcium,
            "clients": {name: {} for name in self.options.clients},
            "http": {"port": self.http_port},
            "log": {"format": "json"},
        }
        if self.trust is not None:
            config["policy"] = {"file": str(self.trust.policy_path), "audience": AUDIENCE}
        if self.options.kms == "moto":
            # of messages over 4,096 bytes KMS is asked to sign the digest, and moto signs the digest of that
            config["limits"] = {"max_tx_bytes": _MOTO_MAX_TX_BYTES}
        _merge(config, self.options.settings)
        self.config_path.touch(mode=0o600)
        self.config_path.write_text(json.dumps(config, indent=2))  # JSON is YAML

    async def _read_public_key(self) -> PublicKey:
        """The event-initiator public key, read in a process of its own environment."""
        command = [sys.executable, "-m", "initiator", "--config", str(self.config_path), "key", "show", "--json"]
        child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=self.environment)
        output, errors = await child.communicate()
        if child.returncode != 0:
            raise HaltError(Code.KMS_UNAVAILABLE, f"the public key cannot be read: {errors.decode()[-500:].strip()}")
        shown = json.loads(output)
        return PublicKey(algorithm=shown["algorithm"], encoded=bytes.fromhex(shown["event_initiator_pubkey"]))

    async def _start_nodes(self, exits: contextlib.AsyncExitStack) -> None:
        assert self.public_key is not None  # noqa: S101 - set by _start_kms
        command = [
            *(sys.executable, "-m", "initiator.dev.nodes"),
            *("--servers", self.nats_url, "--user", accounts.NODES),
            *("--password-file", self.secret_file(accounts.NODES)),
            *("--pubkey", self.public_key.hex, "--algorithm", self.public_key.algorithm),
            *("--routing", self.options.routing, "--chain-code", CHAIN_CODE),
            *("--delay-s", str(self.options.node_delay_s), "--forward-wait-s", str(self.options.forward_wait_s)),
        ]
        for one in self.trust.authorizers if self.trust else ():
            command += ["--authorizer", f"{one.id}:{one.public_key.algorithm}:{one.public_key.hex}"]
        child = await exits.enter_async_context(servers.process(command, output=PIPE, environment=self.environment))
        started = asyncio.Event()
        reader = asyncio.create_task(self._read_nodes(child, started))
        exits.callback(reader.cancel)
        async with asyncio.timeout(servers.START_TIMEOUT_S):
            await started.wait()

    async def _start_authorizers(self, exits: contextlib.AsyncExitStack) -> None:
        for one in self.trust.authorizers if self.trust else ():
            assert self.trust is not None and self.public_key is not None  # noqa: S101, PT018 - set before
            path = self.trust.authorizer_config(one, self._login(authorizer_user(one.id)), self.public_key)
            command = [sys.executable, "-m", "initiator", "authorizer", "run", "--config", str(path)]
            await exits.enter_async_context(self._logged(command, self.folder / f"{one.id}.log"))

    @contextlib.asynccontextmanager
    async def _logged(self, command: list[str], path: Path) -> AsyncIterator[None]:
        """A process that logs into a file, once it has said that it started."""
        with path.open("ab") as log:
            async with servers.process(command, output=log, environment=self.environment):
                async with asyncio.timeout(servers.START_TIMEOUT_S):
                    while ".started" not in await asyncio.to_thread(path.read_text):  # noqa: ASYNC110 - another process
                        await asyncio.sleep(0.05)
                yield

    async def _read_nodes(self, child: Process, started: asyncio.Event) -> None:
        assert child.stdout is not None  # noqa: S101 - PIPE above
        with (self.folder / "nodes.log").open("ab") as log:
            async for line in child.stdout:
                log.write(line)
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event.get("event") == "cluster.started":
                        started.set()
                    self.on_node_event(event)

    async def start_daemon(self, *options: str) -> None:
        """Start the daemon as a process of its own, wait until it is ready, and make it `daemon`.

        Args:
            options: further options of the command line; a second daemon beside the first needs a port of its own.
        """
        command = [sys.executable, "-m", "initiator", "--config", str(self.config_path), *options, "run"]
        with (self.folder / "initiator.log").open("ab") as output:
            self.daemon = await asyncio.create_subprocess_exec(
                *servers.tied(command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        port = next((option.partition("=")[2] for option in options if option.startswith("http.port=")), self.http_port)
        await self._until_ready(self.daemon, f"http://127.0.0.1:{port}/readyz")

    async def _until_ready(self, child: Process, url: str) -> None:
        async with asyncio.timeout(servers.START_TIMEOUT_S):
            while child.returncode is None:
                if await asyncio.to_thread(servers.is_ready, url):
                    return
                await asyncio.sleep(0.05)
        raise HaltError(Code.CONFIG_INVALID, f"the daemon ended at once:\n{self.daemon_log()[-2000:]}")

    async def stop_daemon(self) -> int | None:
        """SIGTERM, and wait for the drain; returns its exit code."""
        child, self.daemon = self.daemon, None
        return await servers.stop(child) if child is not None else None

    def daemon_log(self) -> str:
        path = self.folder / "initiator.log"
        return path.read_text() if path.exists() else ""


def _localstack() -> Any:
    from initiator.dev.localstack import localstack

    return localstack


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


@contextlib.asynccontextmanager
async def running_stack(options: StackOptions | None = None) -> AsyncIterator[Stack]:
    """A stack for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="initiator-dev-") as folder:
        stack = Stack(options or StackOptions(), Path(folder))
        async with contextlib.AsyncExitStack() as exits:
            await stack.start(exits)
            yield stack
