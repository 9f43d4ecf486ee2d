"""One nats-server and one daemon for a module; tests take ids of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.authorizers import AUTHORIZERS, BOTH, Authorizers
from tests.support.governed import Governed
from tests.support.harness import Bench, bench, daemon, settings_for


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("flow")) as ready:
        yield ready


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def served(server: Bench) -> AsyncIterator[Bench]:
    """With a daemon that does nothing unusual, and a wallet `w`."""
    async with daemon(settings_for(server.url)):
        await server.wallet("w")
        yield server


@pytest_asyncio.fixture
async def own_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A nats-server for one test alone."""
    async with bench(tmp_path_factory.mktemp("own")) as ready:
        yield ready


@pytest.fixture
def governed(own_server: Bench, tmp_path: Path) -> Governed:
    """Daemons under a policy, for one test alone."""
    return Governed(own_server, tmp_path)


@pytest.fixture
def by_both(governed: Governed) -> Governed:
    """Under a policy that wants two authorizers."""
    governed.write([BOTH], authorizers=AUTHORIZERS)
    return governed


@pytest_asyncio.fixture
async def authorizers(by_both: Governed) -> Authorizers:
    """They are there, and hear what they are asked."""
    one = Authorizers(by_both.server)
    await one.listen()
    return one
