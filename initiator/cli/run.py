"""`initiator run`: the daemon."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import click

from initiator.cli import CliContext, tell_memory_open


@click.command()
@click.pass_obj
def run(context: CliContext) -> None:
    """Run the daemon until SIGTERM: drain, then exit 0. A second signal aborts at once. SIGHUP takes over what
    changed in the configuration's clients.
    """
    from initiator import log, memory

    unclosed = memory.close()  # before the first secret is read
    from initiator.app import App

    settings = context.load().settings
    log.configure(settings.log)
    if settings.process.core_dumps:
        memory.open_again()
    tell_memory_open(unclosed or ("process.core_dumps is true" if settings.process.core_dumps else None))
    app = App(settings, load=lambda: context.load().settings)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(app.run())
        if app.aborted:
            # at once: no waiting for threads that ask KMS; the record says how far each request got
            sys.stderr.flush()
            os._exit(code)
        sys.exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the `fast` extra is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
