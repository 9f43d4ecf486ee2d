"""`python -m tests.chaos --duration 120 --seed 1 [--replicas 2] [--nats 1|3]`; the last line is one JSON object."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from tests.chaos.files import folder_of
from tests.chaos.profile import Profile
from tests.chaos.run import failures, run


def main() -> int:
    cli = argparse.ArgumentParser(prog="python -m tests.chaos", description="The whole system under faults, judged.")
    cli.add_argument(
        "--duration", type=float, default=120, help="seconds in which faults strike (default: %(default)s)"
    )
    cli.add_argument("--seed", type=int, default=1)
    cli.add_argument("--replicas", type=int, default=2)
    cli.add_argument("--nats", type=int, choices=(1, 3), default=1, help="nats-servers (default: %(default)s)")
    cli.add_argument("--rate", type=float, default=20, help="requests a second (default: %(default)s)")
    cli.add_argument("--keep", type=Path, help="folder for all logs and dumps; default: a temporary one")
    options = cli.parse_args()
    profile = Profile(
        duration_s=options.duration, seed=options.seed, replicas=options.replicas, nats=options.nats, rate=options.rate
    )
    print(json.dumps({"profile": profile.shown()}))
    with folder_of(options.keep) as folder:
        return _report(profile, folder)


def _report(profile: Profile, folder: Path) -> int:
    verdict, findings = asyncio.run(run(profile, folder))
    for what, why in findings.items():
        for one in why[:20]:
            print(f"{what}: {one}", file=sys.stderr)
    wrong = failures(profile, verdict)
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    print(json.dumps(verdict))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
