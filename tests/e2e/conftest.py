"""The whole system as processes: what users run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from initiator.dev.requester import Requester, requester
from initiator.dev.stack import Stack, StackOptions, running_stack


@pytest.fixture
def options() -> StackOptions:
    """The stack of a test; override with `indirect` parameters or a fixture of the same name."""
    return StackOptions(kms="local", forward_wait_s=0.3)


@pytest.fixture
async def stack(options: StackOptions) -> AsyncIterator[Stack]:
    async with running_stack(options) as running:
        yield running


@pytest.fixture
async def alice(stack: Stack) -> AsyncIterator[Requester]:
    async with requester(stack.nats_url, "alice", stack.password("alice")) as client:
        yield client


@pytest.fixture
async def bob(stack: Stack) -> AsyncIterator[Requester]:
    async with requester(stack.nats_url, "bob", stack.password("bob")) as client:
        yield client
