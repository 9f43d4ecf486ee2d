"""The shipped alerts: what they name is there, each has its page and its test, and promtool agrees where it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from initiator import app
from initiator.core.events import State
from initiator.core.lifecycle import Verdict
from initiator.core.model import Operation
from initiator.errors import Code
from initiator.flow import room, unexported
from initiator.kms.breaker import BreakerState
from initiator.kms.region import Standing
from initiator.metrics import Metrics
from tests.chaos import kms, nodes
from tests.chaos.faults import Faults
from tests.chaos.world import World

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
TESTS = RULES.with_name("alerts_test.yaml")
RUNBOOK = ROOT / "docs" / "runbook.md"


def values(kind: type[Enum]) -> set[str]:
    return {str(member.value) for member in kind}


# what a label may be, for those whose values are ours; an outcome or a credential is a word in the code
KNOWN = {
    "code": values(Code) | {"OK", "ERROR"},  # the latter two of calls to KMS
    "operation": values(Operation),
    "state": values(State) | values(Standing) | values(BreakerState),
    "verdict": values(Verdict),
    "part": {*app._PARTS, room.PART, unexported.PART, "policy"},
    "credential": {f"{login} {kind}" for login in ("nats", "nodes") for kind in ("certificate", "jwt")} | {"kms"},
    "outcome": {"refused", "contradicted", "applied", "signed", "denied"},
}
ENDS = {"gauge": ("",), "counter": ("_total",), "histogram": ("_sum", "_count", "_bucket")}


def alerts() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found = {rule["alert"]: rule for rule in group["rules"]}
    assert len(found) == len(group["rules"])
    return found


def cases() -> list[dict[str, Any]]:
    return list(yaml.safe_load(TESTS.read_text())["tests"])


def series() -> dict[str, set[str]]:
    """Every name that a scrape has of ours, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            labels = set(metric._labelnames)
            ends = ENDS[str(metric._type)]
            found |= {metric._name + end: labels | ({"le"} if end == "_bucket" else set()) for end in ends}
    return found


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for name, inside in re.findall(r"\b(initiator_\w+)(?:\{([^}]*)\})?", expression):
        yield name, re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', inside)


def options(pattern: str) -> list[str]:
    """The words of a selector's value: `a|b`, or `(a|b) (c|d)`."""
    groups = re.findall(r"\(([^)]*)\)", pattern)
    if not groups:
        return pattern.split("|")
    first, second = (group.split("|") for group in groups)
    return [f"{one} {other}" for one in first for other in second]


def check(expression: str, extra: set[str]) -> int:
    known, count = series(), 0
    for name, labels in selectors(expression):
        count += 1
        assert name in known, name
        for label, pattern in labels:
            assert label in known[name] | extra, f"{name}: {label}"
            for word in options(pattern) if pattern else []:
                assert word in KNOWN.get(label, {word}), f"{name}: {label}={word}"
    return count


def test_what_an_expression_names_is_counted() -> None:
    found = sum(check(rule["expr"], {"job", "instance"}) for rule in alerts().values())
    assert found > len(alerts())


def test_what_the_tests_are_fed_is_counted() -> None:
    for case in cases():
        for fed in case["input_series"]:
            assert fed["series"].startswith("up{") or check(fed["series"], {"job", "instance"}) == 1, fed


def test_outcomes_are_words_of_the_code() -> None:
    code = "".join(path.read_text() for path in (ROOT / "initiator").rglob("*.py"))
    assert [word for word in KNOWN["outcome"] if f'"{word}"' not in code] == []


def test_every_alert_says_how_urgent_it_is_and_where_to_read_on() -> None:
    for name, rule in alerts().items():
        assert name.startswith("Initiator")
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


@pytest.mark.parametrize("name", ["InitiatorResultInvalid", "InitiatorSignatureInvalid", "InitiatorKeyMismatch"])
def test_what_is_an_incident_pages_at_once_and_at_the_first(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] == "page"
    assert "for" not in rule
    firsts = [case for case in fired_by().get(name, []) if any("_x" in one["values"] for one in case["input_series"])]
    assert firsts


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    headings = re.findall(r"^### (Initiator\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert headings == list(alerts())


def fired_by() -> dict[str, list[dict[str, Any]]]:
    """For each alert, the cases in which it must fire."""
    found: dict[str, list[dict[str, Any]]] = {}
    for case in cases():
        for query in case["promql_expr_test"]:
            for sample in query["exp_samples"]:
                found.setdefault(re.findall(r'"(\w+)"', sample["labels"])[0], []).append(case)
    return found


def test_every_alert_fires_in_some_case() -> None:
    assert set(fired_by()) == set(alerts())


def test_every_fault_of_the_chaos_harness_fires_something() -> None:
    stub = SimpleNamespace(profile=SimpleNamespace(nats=3))
    layers = Faults(cast(World, stub), cast(Any, None))._layers()
    kinds = {kind for layer in layers.values() for kind in layer}
    assert kinds > {*kms.KINDS, *nodes.KINDS}
    firing = {case["name"].partition(":")[0] for found in fired_by().values() for case in found}
    assert kinds - firing == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize(("command", "file"), [("check", RULES), ("test", TESTS)])
def test_promtool_agrees(command: str, file: Path) -> None:
    done = subprocess.run(
        ["promtool", command, "rules", str(file)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
