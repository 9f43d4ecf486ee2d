"""A connection to servers that come and go: that of every part of a run but the daemon's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import nats
from nats.aio.client import Client


async def connect(urls: Sequence[str], login: Mapping[str, str], inbox_prefix: str = "_INBOX") -> Client:
    """A connection that comes back for as long as it takes."""
    return await nats.connect(
        list(urls), max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=_nothing, inbox_prefix=inbox_prefix,
        **login,
    )  # fmt: skip


async def _nothing(_error: Exception) -> None:
    """Disconnections are what a run is for."""
