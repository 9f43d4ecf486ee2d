"""`initiator run`: the daemon."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import click

from initiator.cli import CliContext


@click.command()
@click.pass_obj
def run(context: CliContext) -> None:
    """Run the daemon until SIGTERM: drain, then exit 0. A second signal aborts at once."""
    from initiator import log
    from initiator.app import App

    settings = context.load().settings
    log.configure(settings.log)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        sys.exit(runner.run(App(settings).run()))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the `fast` extra is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
