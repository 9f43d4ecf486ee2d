"""One nats-server and one daemon for a module; tests take ids of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

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
