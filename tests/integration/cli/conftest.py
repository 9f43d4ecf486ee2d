"""One nats-server for a module, and an operator's command line before it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.desk import Desk
from tests.support.harness import bench, daemon, settings_for


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with bench(tmp_path_factory.mktemp("dlq")) as server:
        yield Desk(server, settings_for(server.url), tmp_path_factory.mktemp("config"))


@pytest_asyncio.fixture(loop_scope="module")
async def served(desk: Desk) -> AsyncIterator[Desk]:
    """With a daemon, and no dead letters of earlier tests."""
    desk.configure(settings_for(desk.server.url))
    async with daemon(desk.settings):
        await desk.server.js.purge_stream("INITIATOR_DEAD")
        yield desk
