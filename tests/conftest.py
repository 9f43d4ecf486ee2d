"""What all tests share: which ones wait to be asked for."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("INITIATOR_SLOW") == "1":
        return
    skip = pytest.mark.skip(reason="slow or a large download: runs with INITIATOR_SLOW=1 (make test-full)")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)
