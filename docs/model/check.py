#!/usr/bin/env python3
"""Check the model, and check that each guard is needed: `docs/model/check.py`; needs spin and a C compiler.

One line for each variant; exit code 1 if any of them ends otherwise than it must.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).parent / "initiator.pml"
DEPTH = 1_000_000
TIMEOUT_S = 300


@dataclass(frozen=True)
class Variant:
    """The model with some macros set, and the assertion that must fail (empty: none)."""

    name: str
    macros: tuple[str, ...] = ()
    violates: str = ""


VARIANTS = (
    Variant("keygen and sign"),
    Variant("reshare", ("RESHARE",)),
    Variant("without compare-and-set", ("NO_COMPARE_AND_SET",), "failed"),
    Variant("without the fence", ("NO_FENCE",), "published<=1"),
    Variant("without the retention check", ("NO_RETENTION_CHECK",), "published<=1"),
    Variant("publishing before recording", ("PUBLISH_BEFORE_RECORD",), "said_none"),
    Variant("`none` after `signed`", ("NONE_AFTER_SIGNED",), "said_none"),
    Variant("ack before the final event", ("ACK_EARLY",), "rejected"),
    Variant("refusing without a look", ("NO_LOOK_BEFORE_REFUSAL",), "record=="),
    Variant("sending a reshare before recording", ("RESHARE", "SEND_BEFORE_RECORD"), "published<=1"),
    Variant("freezing longer than the stream keeps", ("NO_LIVENESS",), "published<=1"),
)


@dataclass(frozen=True)
class Outcome:
    """What the verifier said."""

    violated: str
    states: int
    depth: int
    seconds: float


def check(variant: Variant) -> Outcome:
    """Generate, compile and run the verifier of a variant."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="initiator-model-") as folder:
        macros = [f"-D{macro}" for macro in variant.macros]
        _run(["spin", "-a", *macros, str(MODEL)], folder)
        _run(["cc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=2000", "-o", "pan", "pan.c"], folder)
        said = _run(["./pan", f"-m{DEPTH}"], folder)
    found = re.search(r"pan:\d+: (?:assertion violated )?(.*) \(at depth", said)
    violated = found.group(1).strip() if found else ""
    if "max search depth too small" in said or ("Search not completed" in said and not violated):
        violated = "search not completed"
    return Outcome(violated, _number(r"(\d+) states, stored", said), _number(r"depth reached (\d+)", said),
                   time.monotonic() - began)  # fmt: skip


def _run(command: list[str], folder: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.stdout + done.stderr


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def as_expected(variant: Variant, outcome: Outcome) -> bool:
    if not variant.violates:
        return not outcome.violated and outcome.states > 1_000
    return variant.violates in outcome.violated.replace(" ", "").replace("(", "").replace(")", "")


def main() -> int:
    missing = [tool for tool in ("spin", "cc") if shutil.which(tool) is None]
    if missing:
        print(f"error: needs {' and '.join(missing)} (Debian: apt install spin gcc)", file=sys.stderr)
        return 2
    wrong = 0
    for variant in VARIANTS:
        outcome = check(variant)
        right = as_expected(variant, outcome)
        wrong += not right
        verdict = f"violates {outcome.violated}" if outcome.violated else "holds"
        numbers = f"{outcome.states:>9} states, depth {outcome.depth:>6}, {outcome.seconds:4.1f} s"
        print(f"{'ok   ' if right else 'WRONG'} {variant.name:<38} {numbers}: {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
