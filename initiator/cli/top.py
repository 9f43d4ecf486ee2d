"""`initiator top`: what is going on, live in a terminal of 80 by 24, with the daemon's own login."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict

import click

from initiator.cli import CliContext
from initiator.cli.seconds import Seconds
from initiator.config.schema import LogSettings, Settings
from initiator.core.text import plain
from initiator.errors import InitiatorError
from initiator.overview import Failure, LaneView, Overview, Replica, Snapshot

_ENTER, _LEAVE, _HOME, _REST = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[K\n"
_CLEAR_BELOW = "\x1b[J"


@click.command()
@click.option("--interval", type=Seconds(60, least=0.5), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="One picture after one interval, and end.")
@click.option("--json", "as_json", is_flag=True, help="JSON, a line for each picture.")
@click.pass_obj
def top(context: CliContext, interval: float, once: bool, as_json: bool) -> None:
    """Replicas, lanes, waiting requests, rates, latencies and the last failures, live. Ctrl-C ends it."""
    from initiator import log

    settings = context.load().settings
    log.configure(LogSettings(level="error"))
    live = sys.stdout.isatty() and not once and not as_json
    sys.exit(asyncio.run(_top(settings, interval, once=once, as_json=as_json, live=live)))


async def _top(settings: Settings, interval: float, *, once: bool, as_json: bool, live: bool) -> int:
    from initiator.bus.connection import Connection
    from initiator.bus.jetstream import JetStream

    connection = Connection(settings.nats, "initiator-top")
    await connection.open()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        overview = Overview(JetStream(connection, settings.nats.jetstream_domain), settings)
        await overview.start()
        with _screen(live):
            while not stopped.is_set():
                await _pause(stopped, interval if once else 0.0)
                seen = await _show(overview, connection.describe(), as_json=as_json, live=live)
                if once:
                    return 0 if seen else 1
                await _pause(stopped, interval)
    finally:
        await connection.close()
    return 0


async def _pause(stopped: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopped.wait()


async def _show(overview: Overview, where: str, *, as_json: bool, live: bool) -> bool:
    """One picture; returns whether there was anything to see."""
    size = shutil.get_terminal_size((80, 24))
    try:
        snapshot = await overview.look()
    except InitiatorError as error:
        if as_json:
            click.echo(json.dumps({"error": {"code": error.code, "reason": error.reason}}))
            return False
        seen, lines = False, [f"initiator top  {where}", "", f"{error.code}: {plain(error.reason)}"]
    else:
        if as_json:
            click.echo(json.dumps(asdict(snapshot)))
            return True
        clock = time.strftime("%H:%M:%SZ", time.gmtime())
        seen, lines = True, picture(snapshot, where, clock, size.columns, size.lines - 1 if live else 1000)
    if live:
        lines = [line[: size.columns] for line in lines[: size.lines - 1]]
        sys.stdout.write(_HOME + _REST.join(lines) + _REST + _CLEAR_BELOW)
        sys.stdout.flush()
    else:
        click.echo("\n".join(lines))
    return seen


@contextlib.contextmanager
def _screen(live: bool) -> Iterator[None]:
    """The terminal's other screen, so that nothing of the user's own is lost."""
    if not live:
        yield
        return
    sys.stdout.write(_ENTER)
    try:
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def picture(snapshot: Snapshot, where: str, clock: str, width: int, height: int) -> list[str]:
    """A snapshot as lines; what does not fit into `height` is left out from the failures."""
    ready = sum(replica.ready for replica in snapshot.replicas)
    lines = [f"initiator top  {clock}  {where}", f"replicas ready: {ready} of {len(snapshot.replicas)}"]
    lines += [f"HELD BACK  {said}" for said in snapshot.held_back[:2]]
    if len(snapshot.held_back) > 2:
        lines += [f"HELD BACK  and {len(snapshot.held_back) - 2} more: initiator freeze --list"]
    lines += [""]
    lines += ["lane     waiting  at nodes   done/s  failed/s  refused/s     p50     p95     p99"]
    lines += [_lane(lane) for lane in snapshot.lanes]
    if snapshot.clients:
        most = "  ".join(f"{client} {count}" for client, count in snapshot.clients[:4])
        lines += ["", f"most waiting: {most}"]
    lines += ["", "replica           version  ready   held  not well"]
    lines += [_replica(replica) for replica in snapshot.replicas] or ["(nobody answers)"]
    keys = sorted({replica.key_fingerprint for replica in snapshot.replicas if replica.key_fingerprint})
    lines += [f"key {key}" for key in keys]
    lines += ["", f"last failures (rates and latencies: last {snapshot.window_s:.0f} s)"]
    room = max(1, height - len(lines))
    failures = [line for failure in snapshot.failures for line in _failure(failure, width)]
    lines += failures[:room] or ["(none since the start of this view)"]
    return [plain(line)[:width] for line in lines]


def _lane(lane: LaneView) -> str:
    at_nodes = f"{lane.in_flight}/{lane.cap}" if lane.cap else "no cap"
    took = "".join(f"{_seconds(value):>8}" for value in lane.latencies_s) or f"{'-':>8}{'-':>8}{'-':>8}"
    rates = f"{lane.completed_per_s:>9.1f}{lane.failed_per_s:>10.1f}{lane.rejected_per_s:>11.1f}"
    return f"{lane.operation.value:<7}{lane.waiting:>9}{at_nodes:>10}{rates}{took}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _replica(replica: Replica) -> str:
    word = "yes" if replica.ready else "NO"
    return f"{replica.id:<16}  {replica.version:<7}  {word:<5}{replica.held:>7}  {replica.trouble}"


def _failure(failure: Failure, width: int) -> list[str]:
    """One line, or two where the reason does not fit."""
    outcome = f" ({failure.outcome})" if failure.outcome else ""
    head = f"{failure.time[11:19]}Z  {failure.client} {failure.operation} {failure.id}  {failure.code}{outcome}"
    whole = f"{head}: {failure.reason}"
    return [whole] if len(whole) <= width else [head, f"           {failure.reason}"]
