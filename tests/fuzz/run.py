"""The loop: draw, decode, look at what came of it."""

from __future__ import annotations

import base64
import random
import signal
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from tests.fuzz.targets import Target

HANG_S = 1.0
_MOST_FINDINGS = 50


class HangError(Exception):
    """A decoder took too long."""


@dataclass
class Report:
    """What a run did and found."""

    seed: int
    inputs: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    crashes: int = 0
    hangs: int = 0

    def summary(self) -> dict[str, Any]:
        counts = {"inputs": self.inputs.total(), "crashes": self.crashes, "hangs": self.hangs, "seed": self.seed}
        return counts | {"accepted": self.accepted.total(), "by_decoder": dict(self.inputs)}


def fuzz(targets: Sequence[Target], duration_s: float, seed: int) -> Report:
    """Feed all targets for a while; reproducible up to where the time ends."""
    draw, report = random.Random(seed), Report(seed)
    weights = [target.share for target in targets]
    before = signal.signal(signal.SIGALRM, _too_long)
    try:
        until = time.monotonic() + duration_s
        while time.monotonic() < until and len(report.findings) < _MOST_FINDINGS:
            for target in draw.choices(targets, weights, k=10):
                _feed(target, target.draw(draw), report)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return report


def _feed(target: Target, data: bytes, report: Report) -> None:
    report.inputs[target.name] += 1
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        target.decode(data)
    except target.errors as error:
        if target.holds_payload and len(data) > 40 and repr(data)[2:-1][:200] in str(error):
            _note(target, data, report, "its error repeats the input")
    except HangError:
        report.hangs += 1
        _note(target, data, report, f"longer than {HANG_S} s")
    except Exception:
        report.crashes += 1
        _note(target, data, report, traceback.format_exc(limit=-3))
    else:
        report.accepted[target.name] += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _note(target: Target, data: bytes, report: Report, what: str) -> None:
    shown = base64.b64encode(data[:5000]).decode()
    report.findings.append({"decoder": target.name, "what": what, "bytes": len(data), "input": shown})


def _too_long(_number: int, _frame: object) -> NoReturn:
    raise HangError
