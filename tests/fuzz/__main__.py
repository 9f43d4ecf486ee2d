"""`python -m tests.fuzz --duration 60 --seed 1`: the last line is one JSON object; 1 if there is a finding."""

from __future__ import annotations

import argparse
import json
import sys

from tests.fuzz.run import fuzz
from tests.fuzz.targets import all_targets


def main() -> int:
    cli = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Odd inputs for every decoder.")
    cli.add_argument("--duration", type=float, default=60, help="seconds (default: %(default)s)")
    cli.add_argument("--seed", type=int, default=1)
    cli.add_argument("--only", default="", help="only decoders whose names contain this")
    options = cli.parse_args()
    targets = [target for target in all_targets() if options.only in target.name]
    report = fuzz(targets, options.duration, options.seed)
    for finding in report.findings:
        print(json.dumps(finding), file=sys.stderr)
    print(json.dumps(report.summary()))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
