"""What all tests share: which ones wait to be asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("INITIATOR_SLOW") == "1":
        return
    skip = pytest.mark.skip(reason="slow or a large download: runs with INITIATOR_SLOW=1 (make test-full)")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def log_configuration() -> Iterator[None]:
    """A command that runs in a test's process leaves the log as it was: the next test may look at it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
