"""The whole system as processes: what users run.

Each scenario runs twice, unless its module says otherwise: on nats-server in a container, and as a process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from initiator.dev.requester import Requester, requester
from initiator.dev.servers import NatsHost, NatsProcess
from initiator.dev.stack import Stack, StackOptions, running_stack
from tests.e2e.stories import Universe, new_universe
from tests.support.nats_container import NatsContainer, in_ci, no_engine


@pytest.fixture(params=["container", "process"])
def nats_host(request: pytest.FixtureRequest) -> NatsHost:
    if request.param == "process":
        return NatsProcess()
    if reason := no_engine():
        assert not in_ci(), reason
        pytest.skip(f"{reason}; the same scenario runs on a nats-server process")
    return NatsContainer()


@pytest.fixture
async def universe(tmp_path: Path) -> AsyncIterator[Universe]:
    async with new_universe(tmp_path) as one:
        yield one


@pytest.fixture
def options() -> StackOptions:
    """The stack of a test; a module may have a fixture of its own by this name."""
    return StackOptions(kms="local", forward_wait_s=0.3)


@pytest.fixture
async def stack(options: StackOptions, nats_host: NatsHost) -> AsyncIterator[Stack]:
    async with running_stack(dataclasses.replace(options, nats=nats_host)) as running:
        yield running


@pytest.fixture
async def alice(stack: Stack) -> AsyncIterator[Requester]:
    async with requester(stack.nats_url, "alice", stack.password("alice")) as client:
        yield client


@pytest.fixture
async def bob(stack: Stack) -> AsyncIterator[Requester]:
    async with requester(stack.nats_url, "bob", stack.password("bob")) as client:
        yield client
