"""`initiator run`: the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import sys

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
    with contextlib.suppress(ImportError):  # the `fast` extra
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sys.exit(runner.run(App(settings).run()))
    with asyncio.Runner() as runner:
        sys.exit(runner.run(App(settings).run()))
