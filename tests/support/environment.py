"""The environment of programs that tests start."""

from __future__ import annotations

import os


def environment() -> dict[str, str]:
    """Nothing of what the tests themselves are told."""
    return {name: value for name, value in os.environ.items() if not name.startswith("INITIATOR_")}
