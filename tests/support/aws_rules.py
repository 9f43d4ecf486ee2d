"""As much of AWS's evaluation of policies and of EventBridge's patterns as the shipped files use; the rest raises."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

Policy = Mapping[str, Any]


def decides(policy: Policy, principal: str, action: str, context: Mapping[str, str], resource: str) -> str | None:
    """`Allow`, `Deny`, or None where no statement speaks of it; a Deny wins."""
    found = {
        statement["Effect"]
        for statement in policy["Statement"]
        if _speaks_of(statement, principal, action, context, resource)
    }
    return "Deny" if "Deny" in found else "Allow" if found else None


def _speaks_of(statement: Policy, principal: str, action: str, context: Mapping[str, str], resource: str) -> bool:
    who = statement.get("Principal", "*")
    named = who == "*" or principal in _listed(who["AWS"])
    acts = any(fnmatch.fnmatchcase(action, pattern) for pattern in _listed(statement["Action"]))
    there = any(fnmatch.fnmatchcase(resource, pattern) for pattern in _listed(statement["Resource"]))
    holds = all(
        _condition(operator, context.get(key), _listed(wanted))
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )
    return named and acts and there and holds


def _condition(operator: str, value: str | None, wanted: Sequence[str]) -> bool:
    match operator:
        case "StringEquals" | "ArnEquals":
            return value in wanted
        case "StringNotEquals" | "ArnNotEquals":  # also where the request says nothing of it
            return value not in wanted
    raise NotImplementedError(operator)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


# --- EventBridge


def matches(pattern: Mapping[str, Any], event: Any) -> bool:
    """Whether an event fits a pattern."""
    for key, wanted in pattern.items():
        if key == "$or":
            if not any(matches(one, event) for one in wanted):
                return False
            continue
        values = _values(event, key)
        if isinstance(wanted, Mapping):
            if not any(matches(wanted, value) for value in (values or [None])):
                return False
        elif not _fits(wanted, values):
            return False
    return True


def _values(event: Any, key: str) -> list[Any]:
    """What stands there; of a list of objects, in any of them."""
    if isinstance(event, list):
        return [value for one in event for value in _values(one, key)]
    if not isinstance(event, Mapping) or event.get(key) is None:
        return []
    value = event[key]
    return list(value) if isinstance(value, list) else [value]


def _fits(wanted: Sequence[Any], values: list[Any]) -> bool:
    return any(_rule(rule, values) for rule in wanted)


def _rule(rule: Any, values: list[Any]) -> bool:
    if not isinstance(rule, Mapping):
        return rule in values
    [(name, operand)] = rule.items()
    match name:
        case "exists":
            return bool(values) is operand
        case "anything-but":  # never where nothing stands
            return any(value not in operand for value in values)
        case "suffix":
            return any(isinstance(value, str) and value.endswith(operand) for value in values)
    raise NotImplementedError(name)
