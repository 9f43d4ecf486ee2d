"""A JetStream of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.config.schema import NatsSettings
from tests.support.nats_restart import restartable_server


@pytest.fixture
async def js(tmp_path: Path) -> AsyncIterator[JetStream]:
    async with restartable_server(tmp_path) as server:
        connection = Connection(NatsSettings(servers=(server.url,)), "test")
        await connection.open()
        yield JetStream(connection)
        await connection.close()
