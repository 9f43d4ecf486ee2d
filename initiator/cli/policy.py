"""`initiator policy`: is it right, what may a client do by it, and does it do what we mean it to."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from initiator.cli import CliContext
from initiator.core.model import Operation
from initiator.errors import Code, HaltError

if TYPE_CHECKING:
    from initiator.config.policycases import CaseSection
    from initiator.config.policyfile import NamedSection, PolicySection
    from initiator.config.schema import Settings
    from initiator.core.policy.rules import Policy

_FILE = click.option("--file", "path", type=click.Path(dir_okay=False), help="The policy; default: policy.file.")


@click.group()
def policy() -> None:
    """Check a policy, explain what it allows, hold it against cases."""


def _chosen(context: CliContext, path: str | None) -> tuple[str, Settings]:
    settings = context.load().settings
    path = path or settings.policy.file
    if path is None:
        hint = "name one with --file, or set policy.file"
        raise HaltError(Code.POLICY_INVALID, "no policy is configured", field="policy.file", hint=hint)
    return path, settings


# --- check


@policy.command()
@_FILE
@click.pass_obj
def check(context: CliContext, path: str | None) -> None:
    """Read a policy and say what is wrong with it; connects to nothing. Notes on what looks odd go to stderr."""
    from initiator.config.policyfile import read_policy

    chosen, settings = _chosen(context, path)
    section, found = read_policy(chosen)
    click.echo(f"ok: version {found.version}, {len(found.rules)} rules, {len(found.limits)} limits")
    for note in _notes(section, found, settings):
        click.echo(f"note: {note}", err=True)


def _notes(section: PolicySection, found: Policy, settings: Settings) -> Iterator[str]:
    """What is no error and may all the same not be meant."""
    from initiator.core.policy.conditions import inapplicable, speaks_of

    for rule in found.rules:
        for operation in sorted(rule.when.operations or ()):
            if missing := inapplicable(rule.when, operation):
                yield f"rule {rule.id} never applies to {operation}, which has no {' or '.join(missing)}"
    for name in sorted(settings.clients):
        if not any(rule.allows and speaks_of(rule.when, name, op) for rule in found.rules for op in Operation):
            yield f"client {name} is configured, but no rule allows it anything"
    if settings.clients:
        for name in sorted(section.clients.keys() - settings.clients.keys()):
            yield f"client {name} has keys here, but is not among the configured clients"
    for name in sorted(_wanting_signatures(found) - found.keys.keys()):
        yield f"rules ask for the signature of {name}, but no key of it is here"


def _wanting_signatures(found: Policy) -> set[str]:
    """Clients by name of whom some rule wants a signature."""
    names: set[str] = set()
    for rule in found.rules:
        wanted = rule.when.signed if rule.allows else rule.unless is not None and rule.unless.signed
        if wanted:
            names |= {
                name for name in rule.when.clients or () if "*" not in name and "?" not in name and "{" not in name
            }
    return names


# --- explain


@policy.command()
@_FILE
@click.option("--client", "client", required=True, help="Whose rights.")
@click.option("--op", "op", type=click.Choice([op.value for op in Operation]), help="Only of this operation.")
@click.option("--request", "request", type=click.File("rb"), help="A request (JSON or YAML, as in a case); -: stdin.")
@click.option("--owner", help="Who made its wallet.")
@click.option("--signed", is_flag=True, help="It carries its client's signature.")
@click.option("--at", help="When: RFC 3339; default: now.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def explain(
    context: CliContext, path: str | None, client: str, op: str | None, request: Any, owner: str | None,
    signed: bool, at: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Say what a client effectively may do; or, of one request, which rule decides, and why no other does.

    Exit code of a request: 0 allowed, 3 denied.
    """
    from initiator.config.policyfile import read_policy

    chosen, settings = _chosen(context, path)
    section, found = read_policy(chosen)
    if request is None:
        rights = [_rights(section, settings, client, Operation(one)) for one in ([op] if op else [*Operation])]
        _print_rights(client, found.version, rights, as_json)
        return
    if op is None:
        raise click.UsageError("--request needs --op")
    fields = {"client": client, "operation": op, "request": _request(request), "signed": signed}
    fields |= {name: value for name, value in {"owner": owner, "at": at}.items() if value is not None}
    sys.exit(_explain_one(found, fields, as_json))


def _request(file: Any) -> dict[str, Any]:
    from initiator.config.load import parse_yaml

    content = parse_yaml(file.read())
    if isinstance(content, str):
        raise HaltError(Code.CONFIG_INVALID, content, field="--request")
    return content


def _rights(section: PolicySection, settings: Settings, client: str, operation: Operation) -> dict[str, Any]:
    """All that bears on one client and operation."""
    from initiator.core.policy.conditions import inapplicable, speaks_of

    def about(one: NamedSection) -> bool:
        when = one.conditions()
        return speaks_of(when, client, operation) and not inapplicable(when, operation)

    configured = settings.clients.get(client)
    closed = settings.clients and (configured is None or operation not in configured.operations)
    return {
        "operation": operation.value,
        "open": not closed,
        "deny": [_stated(rule) for rule in section.rules if rule.effect == "deny" and about(rule)],
        "allow": [_stated(rule) for rule in section.rules if rule.effect == "allow" and about(rule)],
        "limits": [
            {**_stated(limit), "most": limit.most, "period": limit.period, "per": list(limit.per)}
            for limit in section.limits
            if about(limit)
        ],
    }


def _stated(one: NamedSection) -> dict[str, Any]:
    when = {name: value for name, value in one.stated().items() if name not in ("clients", "operations")}
    stated: dict[str, Any] = {"id": one.id, "when": when}
    if one.unless is not None:
        stated["unless"] = one.unless.stated()
    return stated


def _print_rights(client: str, version: str, rights: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"client": client, "version": version, "operations": rights}, indent=2))
        return
    for right in rights:
        may = right["open"] and right["allow"]
        click.echo(f"{client} {right['operation']}: {'' if may else 'nothing is allowed'}".rstrip())
        if not right["open"]:
            click.echo(f"  closed by clients.{client}.operations of the configuration")
        for kind in ("deny", "allow", "limits"):
            for one in right[kind] if may else ():
                click.echo(f"  {_line(kind, one)}")


def _line(kind: str, one: dict[str, Any]) -> str:
    conditions = _words(one["when"])
    unless = f" unless {_words(one['unless'])}" if "unless" in one else ""
    if kind == "limits":
        each = " and ".join(one["per"])
        head = f"limit {one['id']}: {one['most']} a {one['period']}" + (f" for each {each}" if each else " in all")
        return f"{head}{f' of {conditions}' if one['when'] else ''}{unless}"
    return f"{kind} {one['id']}: {conditions if one['when'] else 'anything'}{unless}"


def _words(conditions: dict[str, Any]) -> str:
    return "; ".join(f"{name} {_value(value)}" for name, value in conditions.items())


def _value(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return ", ".join(_hours(item) for item in value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value)


def _hours(times: dict[str, Any]) -> str:
    from initiator.core.policy.patterns import parse_clock

    begin, end = (parse_clock(times.get(name, default)) for name, default in (("from", 0), ("until", 24 * 60)))
    days = ",".join(times.get("days", ["every day"]))
    hours = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
    return f"{days} {hours} {times.get('zone', 'UTC')}"


def _explain_one(found: Policy, fields: dict[str, Any], as_json: bool) -> int:
    from initiator.config.policycases import asked

    facts = asked(fields, "--request").facts(time.time())
    allowed, rule, reason, limits = _decide(found, facts)
    considered = [
        {"rule": one.rule.id, "effect": "allow" if one.rule.allows else "deny", "failing": one.failing}
        for one in found.consider(facts)
    ]
    if as_json:
        answer = {"allowed": allowed, "rule": rule, "reason": reason, "limits": limits, "version": found.version}
        click.echo(json.dumps(answer | {"considered": considered}, indent=2))
        return 0 if allowed else 3
    click.echo(f"{'allowed' if allowed else 'denied'} by {rule}{f': {reason}' if reason else ''}")
    for one in considered:
        click.echo(
            f"  {one['effect']} {one['rule']}: "
            + (f"does not apply ({one['failing']})" if one["failing"] else "applies")
        )
    if limits:
        click.echo(f"  counted by {', '.join(limits)}")
    return 0 if allowed else 3


def _decide(found: Policy, facts: Any) -> tuple[bool, str, str, list[str]]:
    from initiator.core.policy.rules import PolicyError

    try:
        grant = found.permit(facts)
    except PolicyError as denied:
        return False, denied.rule, denied.reason, []
    return True, grant.rule, "", [count.limit for count in grant.counts]


# --- test


@policy.command()
@click.argument("cases", type=click.Path(dir_okay=False))
@_FILE
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def test(context: CliContext, cases: str, path: str | None, as_json: bool) -> None:
    """Hold a policy against a file of cases. Exit code 0: each comes out as it says; 1: not."""
    from initiator.config.policycases import load_cases
    from initiator.config.policyfile import load_policy

    chosen, _ = _chosen(context, path)
    found, loaded, now = load_policy(chosen), load_cases(cases), time.time()
    failures = {case.name: wrong for case in loaded if (wrong := _wrong(found, case, now))}
    untested = sorted({rule.id for rule in found.rules} - {_decide(found, case.facts(now))[1] for case in loaded})
    if as_json:
        answer = {"passed": len(loaded) - len(failures), "failed": failures, "rules_that_decided_none": untested}
        click.echo(json.dumps(answer, indent=2))
    else:
        for name, wrong in failures.items():
            click.echo(f"FAIL {name}: {wrong}")
        click.echo(f"{len(loaded) - len(failures)} of {len(loaded)} as expected")
        if untested:
            click.echo(f"note: no case is decided by {', '.join(untested)}", err=True)
    sys.exit(1 if failures else 0)


def _wrong(found: Policy, case: CaseSection, now: float) -> str:
    """What came out otherwise than a case says; empty if nothing did."""
    allowed, rule, reason, limits = _decide(found, case.facts(now))
    got = "allow" if allowed else "deny"
    if got != case.expect:
        return f"expected {case.expect}, got {got} by {rule}{f': {reason}' if reason else ''}"
    if case.rule is not None and case.rule != rule:
        return f"expected {case.rule} to decide, got {rule}"
    if case.limits is not None and sorted(case.limits) != sorted(limits):
        return f"expected limits {', '.join(sorted(case.limits)) or 'none'}, got {', '.join(sorted(limits)) or 'none'}"
    return ""
