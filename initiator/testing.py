"""The whole system for somebody else's tests: nats-server, an emulated KMS, the daemon and simulated nodes::

    # conftest.py
    pytest_plugins = ["initiator.testing"]

    # test_payments.py
    def test_a_payment(initiator_stack):
        with initiator_stack.connect() as initiator:
            wallet = initiator.keygen("w-1")

Real processes on free loopback ports and in a temporary folder, as `initiator dev` starts them; all of them end with
the test session. Needs the extra `testing` (`pip install initiator[testing]`). The nodes are simulated: they verify
requests as mpcium's do and sign with keys of their own, without any MPC.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from initiator.client import InitiatorClient, SyncInitiatorClient
from initiator.dev.stack import CHAIN_CODE, Stack, StackOptions, running_stack
from initiator.loopthread import LoopThread

KmsKind = Literal["moto", "localstack", "local"]


class InitiatorStack:
    """A running system; made by `run_stack` or the fixture `initiator_stack`. Any thread may use it."""

    chain_code = CHAIN_CODE
    """The simulated cluster's, 64 hex digits."""

    def __init__(self, stack: Stack, loop: LoopThread) -> None:
        self._stack = stack
        self._loop = loop

    @property
    def nats_url(self) -> str:
        """Where NATS listens."""
        return self._stack.nats_url

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of clients that may ask; each has an account of its own at NATS, with the same name as its user."""
        return self._stack.options.clients

    def password(self, client: str) -> str:
        """A client's password at NATS."""
        return self._stack.password(client)

    @property
    def public_key(self) -> str:
        """The initiator's public key, as nodes have it in `event_initiator_pubkey`."""
        key = self._stack.public_key
        return key.hex if key else ""

    def connect(
        self, client: str | None = None, **options: Any
    ) -> contextlib.AbstractContextManager[SyncInitiatorClient]:
        """A client without an event loop, for the length of a block (default: the first one)."""
        return SyncInitiatorClient.connect(self.nats_url, **self._login(client), **options)

    def connect_async(
        self, client: str | None = None, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[InitiatorClient]:
        """The same for code with an event loop."""
        return InitiatorClient.connect(self.nats_url, **self._login(client), **options)

    def _login(self, client: str | None) -> dict[str, Any]:
        name = client or self.clients[0]
        return {"client": name, "user": name, "password": self.password(name), "chain_code": self.chain_code}

    # --- faults

    def stop_daemon(self) -> None:
        """SIGTERM, and wait until it has drained. Requests wait in their queue."""
        self._loop.run(self._stack.stop_daemon())

    def kill_daemon(self) -> None:
        """kill -9: what it had in hand is taken over by the next one, after `worker.ack_wait_s`."""
        self._loop.run(self._kill())

    def start_daemon(self) -> None:
        """Start it again, and wait until it is ready."""
        self._loop.run(self._stack.start_daemon())

    async def _kill(self) -> None:
        child, self._stack.daemon = self._stack.daemon, None
        if child is not None:
            child.kill()
            await child.wait()

    def daemon_log(self) -> str:
        """What the daemon has logged so far, one JSON object a line."""
        return self._stack.daemon_log()

    @property
    def folder(self) -> Path:
        """Where all of it lives; gone afterwards."""
        return self._stack.folder


@contextlib.contextmanager
def run_stack(
    *,
    kms: KmsKind = "local",
    routing: Literal["scoped", "unscoped"] = "scoped",
    clients: tuple[str, ...] = ("alice", "bob"),
    settings: dict[str, Any] | None = None,
) -> Iterator[InitiatorStack]:
    """A system for the length of the block.

    Args:
        kms: the emulator that signs; `local` is a key file, and a second faster than `moto`.
        routing: how the nodes route results; `unscoped` is mpcium v0.3.5.
        settings: further settings of the daemon, nested as in its YAML file.
    """
    options = StackOptions(kms=kms, routing=routing, clients=clients, settings=settings or {}, forward_wait_s=0.3)
    with LoopThread("initiator-stack") as loop:
        running = running_stack(options)
        stack = loop.run(running.__aenter__())
        try:
            yield InitiatorStack(stack, loop)
        finally:
            loop.run(running.__aexit__(None, None, None))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`initiator_kms` in the configuration file, or `--initiator-kms`."""
    help_text = "KMS of the fixture initiator_stack: local (a key file, the fastest), moto or localstack"
    parser.addini("initiator_kms", help_text, default="local")
    parser.addoption("--initiator-kms", default=None, choices=["local", "moto", "localstack"], help=help_text)


@pytest.fixture(scope="session")
def initiator_stack(request: pytest.FixtureRequest) -> Iterator[InitiatorStack]:
    """A system for the whole session: take ids of your own in each test."""
    kms = request.config.getoption("--initiator-kms") or request.config.getini("initiator_kms")
    with run_stack(kms=kms) as stack:
        yield stack


@pytest.fixture
def initiator_client(initiator_stack: InitiatorStack) -> Iterator[SyncInitiatorClient]:
    """The first client of the stack, connected."""
    with initiator_stack.connect() as client:
        yield client
