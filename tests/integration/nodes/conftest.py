"""A server, an initiator's key and a recorder of what the nodes tell."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from initiator.dev.nodes import NodesConfig, Timing

from .bench import nats_server, spki_hex

FAST = Timing(forward_wait_s=0.2, progress_s=0.1)


@dataclass
class Told:
    """What the nodes told, in order."""

    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self.lines.append((event, fields))

    def of(self, event: str, **wanted: Any) -> list[dict[str, Any]]:
        """The fields of all lines of one event that hold the wanted values."""
        return [fields for name, fields in self.lines if name == event and wanted.items() <= fields.items()]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(scope="session")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with nats_server(tmp_path) as address:
        yield address


@pytest.fixture
def config(url: str, key: ec.EllipticCurvePrivateKey) -> Callable[..., NodesConfig]:
    """Makes a config for the test's server and key."""

    def make(**changes: Any) -> NodesConfig:
        return replace(NodesConfig(servers=(url,), pubkey=spki_hex(key), timing=FAST), **changes)

    return make
