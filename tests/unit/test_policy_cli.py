"""`initiator policy`: check, explain and test, for people and for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner, Result

from initiator.cli import CliContext
from initiator.cli.check import _policy, _try
from initiator.cli.config import config
from initiator.cli.policy import policy
from initiator.config.load import load_settings
from initiator.errors import Code, HaltError

POLICY = """
version: 1
clients: {payments: {keys: []}}
rules:
  - id: pay
    effect: allow
    clients: [payments]
    operations: [sign]
    wallets: ["pay-*"]
    owners: ["{client}"]
    times: [{days: [mon-fri], from: "08:00", until: 18:00}]
  - {id: make, effect: allow, clients: [payments, onboarding], operations: [keygen]}
  - {id: no-tests, effect: deny, wallets: ["test-*"], unless: {clients: [tests]}}
limits:
  - {id: daily, clients: [payments], operations: [sign], per: [client, wallet], most: 100, period: day}
"""
THURSDAY, SATURDAY = "2026-11-26T10:00:00Z", "2026-11-28T10:00:00Z"


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("INITIATOR_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


def run(place: Path, *arguments: str, text: str = "", **overrides: str) -> Result:
    context = CliContext(overrides={"policy.file": str(place / "policy.yaml"), **overrides})
    return CliRunner().invoke(policy, arguments, obj=context, input=text)


# --- check


def test_a_policy_that_is_right(place: Path) -> None:
    done = run(place, "check")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: version ")
    assert done.stdout.endswith(", 3 rules, 1 limits\n")


def test_a_policy_that_is_wrong(place: Path) -> None:
    (place / "policy.yaml").write_text("version: 1\nrules: [{id: a}]")
    error = run(place, "check").exception
    assert isinstance(error, HaltError)
    assert error.code is Code.POLICY_INVALID
    assert "rules.0 (a).effect: field required" in error.reason


def test_no_policy_at_all(tmp_path: Path) -> None:
    error = CliRunner().invoke(policy, ["check"], obj=CliContext()).exception
    assert isinstance(error, HaltError)
    assert (error.code, error.field) == (Code.POLICY_INVALID, "policy.file")


def test_another_file_than_the_configured_one(place: Path) -> None:
    other = place / "other.yaml"
    other.write_text("version: 1")
    assert ", 0 rules, 0 limits" in run(place, "check", "--file", str(other)).stdout


def test_what_may_not_be_meant_is_noted(place: Path) -> None:
    (place / "policy.yaml").write_text(
        dedent("""
        version: 1
        clients: {ghost: {}}
        rules:
          - {id: a, effect: allow, clients: [payments], signed: true}
          - {id: b, effect: allow, operations: [keygen, sign], clients: [payments], networks: [eth]}
          - {id: c, effect: deny, clients: [ops], unless: {signed: true}}
        """)
    )
    notes = run(place, "check", clients="{payments: {}, idle: {}}").stderr.splitlines()
    assert notes == [
        "note: rule b never applies to keygen, which has no networks",
        "note: client idle is configured, but no rule allows it anything",
        "note: client ghost has keys here, but is not among the configured clients",
        "note: rules ask for the signature of ops, but no key of it is here",
        "note: rules ask for the signature of payments, but no key of it is here",
    ]


# --- explain


def test_what_a_client_may_do(place: Path) -> None:
    assert run(place, "explain", "--client", "payments").stdout.splitlines() == [
        "payments keygen:",
        "  deny no-tests: wallets test-* unless clients tests",
        "  allow make: anything",
        "payments sign:",
        "  deny no-tests: wallets test-* unless clients tests",
        "  allow pay: wallets pay-*; owners {client}; times mon-fri 08:00-18:00 UTC",
        "  limit daily: 100 a day for each client and wallet",
        "payments reshare: nothing is allowed",
    ]
    assert run(place, "explain", "--client", "onboarding", "--op", "sign").stdout == (
        "onboarding sign: nothing is allowed\n"
    )


def test_what_the_configuration_closes(place: Path) -> None:
    done = run(
        place, "explain", "--client", "payments", "--op", "sign", **{"clients": "{payments: {operations: [keygen]}}"}
    )
    assert done.stdout.splitlines() == [
        "payments sign: nothing is allowed",
        "  closed by clients.payments.operations of the configuration",
    ]


def test_what_a_client_may_do_for_programs(place: Path) -> None:
    found = json.loads(run(place, "explain", "--client", "payments", "--op", "sign", "--json").stdout)
    (sign,) = found["operations"]
    assert (sign["operation"], sign["open"]) == ("sign", True)
    assert sign["allow"][0]["id"] == "pay"
    assert sign["deny"][0]["unless"] == {"clients": ["tests"]}
    assert sign["limits"][0] == {"id": "daily", "when": {}, "most": 100, "period": "day", "per": ["client", "wallet"]}


@pytest.mark.parametrize(
    ("request_", "more", "code", "first"),
    [
        ('{"wallet_id": "pay-1"}', ["--owner", "payments", "--at", THURSDAY], 0, "allowed by pay"),
        ("wallet_id: pay-1", ["--owner", "payments", "--at", THURSDAY], 0, "allowed by pay"),
        (
            '{"wallet_id": "pay-1"}', ["--owner", "payments", "--at", SATURDAY], 3,
            "denied by pay: no rule allows it; rule pay would, but for times",
        ),
        (
            '{"wallet_id": "pay-1"}', ["--at", THURSDAY], 3,
            "denied by pay: no rule allows it; rule pay would, but for owners",
        ),
        ('{"wallet_id": "test-1"}', ["--at", THURSDAY], 3, "denied by no-tests: rule no-tests denies it"),
    ],
)  # fmt: skip
def test_which_rule_decides(place: Path, request_: str, more: list[str], code: int, first: str) -> None:
    arguments = ["explain", "--client", "payments", "--op", "sign", "--request", "-", *more]
    done = run(place, *arguments, text=request_)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (code, first)
    found = json.loads(run(place, *arguments, "--json", text=request_).stdout)
    assert found["allowed"] is (code == 0)
    assert {one["rule"]: one["effect"] for one in found["considered"]} == {"no-tests": "deny", "pay": "allow"}
    assert found["limits"] == (["daily"] if code == 0 else [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "at line"),
        ("{wallet: x}", "request.wallet: "),
        ("{tx_bytes: none}", "request.tx_bytes: "),
        ("- a", "expected a map"),
    ],
)
def test_a_request_that_is_none(place: Path, text: str, reason: str) -> None:
    error = run(place, "explain", "--client", "payments", "--op", "sign", "--request", "-", text=text).exception
    assert isinstance(error, HaltError)
    assert reason in error.reason


def test_a_time_that_is_none(place: Path) -> None:
    error = run(
        place, "explain", "--client", "a", "--op", "sign", "--request", "-", "--at", "2026-11-26T10:00:00", text="{}"
    ).exception
    assert isinstance(error, HaltError)
    assert error.reason == "at: expected a time with a zone, such as 2026-01-31T12:00:00Z"


# --- test


CASES = """
cases:
  - name: payments signs for its own wallets in office hours
    client: payments
    operation: sign
    request: {wallet_id: pay-1}
    owner: payments
    at: 2026-11-26T10:00:00Z
    expect: allow
    rule: pay
    limits: [daily]
  - name: and not on Saturdays
    {client: payments, operation: sign, request: {wallet_id: pay-1}, owner: payments, at: "2026-11-28T10:00:00Z",
     expect: deny, rule: pay}
  - {name: onboarding makes wallets, client: onboarding, operation: keygen, expect: allow, rule: make}
"""
CASES = CASES.replace(
    """  - name: and not on Saturdays
    {client""",
    """  - {name: and not on Saturdays, client""",
)


def test_cases_that_come_out_as_they_say(place: Path) -> None:
    (place / "cases.yaml").write_text(CASES)
    done = run(place, "test", str(place / "cases.yaml"))
    assert (done.exit_code, done.stdout) == (0, "3 of 3 as expected\n")
    assert done.stderr == "note: no case is decided by no-tests\n"


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (("expect: allow\n    rule: pay", "expect: deny"), "expected deny, got allow by pay"),
        (
            ("owner: payments\n    at", "at"),
            "expected allow, got deny by pay: no rule allows it; rule pay would, but for owners",
        ),
        (("rule: pay\n    limits", "rule: make\n    limits"), "expected make to decide, got pay"),
        (("limits: [daily]", "limits: []"), "expected limits none, got daily"),
    ],
)
def test_a_case_that_does_not(place: Path, change: tuple[str, str], wrong: str) -> None:
    (place / "cases.yaml").write_text(CASES.replace(*change, 1))
    done = run(place, "test", str(place / "cases.yaml"))
    assert (done.exit_code, done.stdout.splitlines()) == (
        1,
        [f"FAIL payments signs for its own wallets in office hours: {wrong}", "2 of 3 as expected"],
    )
    found = json.loads(run(place, "test", str(place / "cases.yaml"), "--json").stdout)
    assert (found["passed"], list(found["failed"].values())) == (2, [wrong])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("cases: []", "cases: "),
        ("cases: [{name: a}]", "cases.0.client: field required"),
        ("cases: [{name: a, client: b, operation: sign, expect: yes}]", "cases.0.expect: "),
        ("case: []", "case: "),
    ],
)
def test_cases_that_are_none(place: Path, text: str, reason: str) -> None:
    (place / "cases.yaml").write_text(text)
    error = run(place, "test", str(place / "cases.yaml")).exception
    assert isinstance(error, HaltError)
    assert reason in error.reason


# --- the configuration that names it


def test_a_configuration_with_a_bad_policy_is_bad(place: Path) -> None:
    context = CliContext(overrides={"policy.file": str(place / "policy.yaml")})
    assert CliRunner().invoke(config, ["check"], obj=context).exit_code == 0
    (place / "policy.yaml").write_text("version: 2")
    error = CliRunner().invoke(config, ["check"], obj=context).exception
    assert isinstance(error, HaltError)
    assert error.code is Code.POLICY_INVALID


async def test_initiator_check_reads_it(place: Path) -> None:
    settings = load_settings(overrides={"policy.file": str(place / "policy.yaml")}, environ={}).settings
    finding = await _try("policy", lambda: _policy(settings.policy.file))
    assert (finding.ok, finding.detail.split(", ")[1:]) == (True, ["3 rules", "1 limits"])
    (place / "policy.yaml").unlink()
    finding = await _try("policy", lambda: _policy(settings.policy.file))
    assert (finding.ok, finding.detail.split(" ")[0]) == (False, "POLICY_INVALID")
