"""A back end that is gone for long: `python -m tests.chaos.outage --part kms|nats --seconds 3600`.

The daemons wait, say which part is missing, cost next to nothing, and go on by themselves when it is back. The last
line is one JSON object; exit 1 if anything was lost, done twice or restarted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from initiator.dev import accounts
from tests.chaos.files import folder_of, write_line
from tests.chaos.judge import ZEROS
from tests.chaos.load import Load
from tests.chaos.profile import QUEUES, Profile
from tests.chaos.run import empty, judged, spy
from tests.chaos.world import Replica, World, world

PARTS = ("kms", "nats")
BEFORE_S = 3.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Gauge:
    """What a daemon costs and says."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._proc = Path("/proc", str(replica.pid))
        lines = [json.loads(line) for line in replica.log.read_text().splitlines()]
        self._port = next(line["port"] for line in lines if line["event"] == "http.started")

    @property
    def log_lines(self) -> int:
        return len(self._replica.log.read_text().splitlines())

    @property
    def cpu_s(self) -> float:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    @property
    def rss_mb(self) -> float:
        status = (self._proc / "status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def readiness(self) -> tuple[bool, str]:
        """Whether it is ready, and its first words if not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz?verbose", timeout=3):
                return True, ""
        except urllib.error.HTTPError as error:
            return False, error.read().decode()


async def outage(part: str, seconds: float, folder: Path, rate: float = 0.5) -> dict[str, Any]:
    """Take a part away for some time under a little load; returns what was seen."""
    profile = Profile(duration_s=BEFORE_S + seconds, seed=1, expiry_s=2 * seconds + 120, rate=rate)
    async with world(profile, folder) as one:
        with (folder / "submissions.jsonl").open("ab") as sent:
            load = Load(profile, one.nats.urls, dict(one.logins.passwords), sent)
            await load.connect()
            try:
                async with spy(one, folder):
                    await load.make_wallets()
                    seen = await _watch(one, load, part, seconds)
            finally:
                await load.close()
        judge = await judged(one, folder)
        starts = [replica.starts for replica in one.replicas]
    verdict = judge.verdict()
    kept = ("requests", "completed", "failed", "rejected", *ZEROS)
    return {"part": part, "outage_s": seconds} | seen | {"starts": starts} | {name: verdict[name] for name in kept}


async def _watch(one: World, load: Load, part: str, seconds: float) -> dict[str, Any]:
    gauges = [Gauge(replica) for replica in one.replicas]
    asking = asyncio.create_task(load.run(time.monotonic() + BEFORE_S + seconds))
    await asyncio.sleep(BEFORE_S)
    began = time.time()
    before = [(gauge.cpu_s, gauge.rss_mb, gauge.log_lines) for gauge in gauges]
    await _take_away(one, part)
    await asyncio.sleep(seconds)
    said = [await asyncio.to_thread(gauge.readiness) for gauge in gauges]
    after = [(gauge.cpu_s, gauge.rss_mb, gauge.log_lines) for gauge in gauges]
    await _give_back(one, part)
    back = time.monotonic()
    with (one.folder / "faults.jsonl").open("ab") as struck:
        write_line(struck, {"kind": part, "began": began, "ended": time.time()})
    for gauge in gauges:
        while not (await asyncio.to_thread(gauge.readiness))[0]:
            await asyncio.sleep(0.1)
    ready_s = time.monotonic() - back
    await asking
    await empty(one, accounts.DAEMON, *QUEUES)
    pairs = list(zip(before, after, strict=True))
    return {
        "ready": [ready for ready, _ in said],
        "readiness": said[0][1],
        "cpu_share": max(round((b[0] - a[0]) / seconds, 5) for a, b in pairs),
        "rss_grown_mb": max(round(b[1] - a[1], 1) for a, b in pairs),
        "log_lines": max(b[2] - a[2] for a, b in pairs),
        "ready_after_s": round(ready_s, 2),
        "done_after_s": round(time.monotonic() - back, 2),
    }


async def _take_away(one: World, part: str) -> None:
    if part == "nats":
        await one.nats.kill(0)
    elif one.kms_proxy is not None:
        one.kms_proxy.cut()


async def _give_back(one: World, part: str) -> None:
    if part == "nats":
        await one.nats.start(0)
    elif one.kms_proxy is not None:
        one.kms_proxy.mend()


def failures(seen: dict[str, Any]) -> list[str]:
    """What is wrong with what was seen."""
    wrong = [f"{name}: expected 0, got {seen[name]}" for name in ZEROS if seen[name]]
    if any(seen["ready"]):
        wrong.append("a daemon called itself ready")
    if set(seen["starts"]) != {1}:
        wrong.append(f"a daemon was restarted: {seen['starts']}")
    if seen["completed"] < seen["requests"] * 0.7:
        wrong.append(f"completed: {seen['completed']} of {seen['requests']}")
    return wrong


def main() -> int:
    cli = argparse.ArgumentParser(prog="python -m tests.chaos.outage", description=__doc__)
    cli.add_argument("--part", choices=PARTS, required=True)
    cli.add_argument("--seconds", type=float, default=3600)
    cli.add_argument("--keep", type=Path, help="folder for all logs and dumps; default: a temporary one")
    options = cli.parse_args()
    with folder_of(options.keep) as folder:
        seen = asyncio.run(outage(options.part, options.seconds, folder))
    wrong = failures(seen)
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    print(json.dumps(seen))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
