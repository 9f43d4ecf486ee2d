"""What the operators' commands share: they change the orders, then wait until every replica goes by them."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any, TypeVar

import click

from initiator.bus import streams
from initiator.bus.connection import Connection
from initiator.bus.jetstream import JetStream
from initiator.cli import CliContext
from initiator.config.schema import LogSettings
from initiator.core import events
from initiator.core.orders import MOST_TEXT, Orders
from initiator.core.text import plain
from initiator.orders import OrderBook
from initiator.rollcall import Heard, RollCall

T = TypeVar("T")
# What became of a change: how things stand, and who goes by it.
Changed = tuple[Orders, Heard]


class Text(click.types.StringParamType):
    """A text that is not empty and not too long."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if not 0 < len(text) <= MOST_TEXT:
            self.fail(f"expected 1 to {MOST_TEXT} characters, got {len(text)}", param, ctx)
        return text


def operator() -> str:
    """Who gives the order, where nobody says so."""
    with contextlib.suppress(Exception):  # nobody's account has no name
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return "somebody"


def who(by: str, reason: str) -> dict[str, Any]:
    """Who orders, when and why, as `Freeze` and `Line` take it."""
    return {"by": by, "at": time.time(), "reason": reason}


def told(change: str, by: str, reason: str, **more: Any) -> dict[str, Any]:
    """The same, as the event says it."""
    return {"change": change, "by": by, "at": events.format_time(time.time()), "reason": reason, **more}


def run(context: CliContext, act: Callable[[JetStream, OrderBook], Awaitable[T]]) -> T:
    """Act with the daemon's own login. Raises RetryError, NotFoundError or HaltError."""
    from initiator import log

    settings = context.load().settings
    log.configure(LogSettings(level="error"))

    async def connected() -> T:
        async with _connection(settings) as js:
            return await act(js, OrderBook(js))

    return asyncio.run(connected())


@contextlib.asynccontextmanager
async def _connection(settings: Any) -> AsyncIterator[JetStream]:
    connection = Connection(settings.nats, "initiator-orders")
    try:
        await connection.open()
        js = JetStream(connection, settings.nats.jetstream_domain)
        await streams.take_orders(js, settings)
        yield js
    finally:
        await connection.close()


async def call(js: JetStream, orders: Orders) -> Changed:
    """Wait until nobody can sign without having seen these orders."""
    return orders, await RollCall(js).call(orders.sequence)


def heard_as_json(heard: Heard) -> dict[str, Any]:
    return asdict(heard) | {"seconds": round(heard.seconds, 3)}


def show(as_json: bool, body: dict[str, Any], line: str, heard: Heard) -> int:
    """What was done and who goes by it; returns the exit code."""
    if as_json:
        click.echo(json.dumps(body | heard_as_json(heard)))
    else:
        click.echo(plain(line))
        out = f", {len(heard.waited_out)} waited out" if heard.waited_out else ""
        count = len(heard.confirmed)
        click.echo(f"{count} replica{'' if count == 1 else 's'} confirmed{out}, in {heard.seconds:.1f} s")
    for replica, version in heard.unaware.items():
        text = f"replica {replica} (version {version}) knows of no orders and goes on signing: stop it"
        click.echo(f"error: {plain(text)}", err=True)
    return 1 if heard.unaware else 0
