"""The table of all log events, read from the code."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

LEVELS = ("debug", "info", "warning", "error", "exception")
PACKAGE = Path(__file__).parents[1] / "initiator"


def events() -> dict[str, tuple[set[str], set[str]]]:
    """By name: levels, and fields."""
    found: dict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (level := _level(node)) and (name := _name(node)):
                levels, fields = found[name]
                levels.add({"exception": "error", "say": "any"}.get(level, level))
                fields.update(keyword.arg for keyword in node.keywords if keyword.arg)
    return dict(found)


def _level(call: ast.Call) -> str | None:
    if isinstance(call.func, ast.Name) and call.func.id == "say":
        return "say"
    return call.func.attr if isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS else None


def _name(call: ast.Call) -> str | None:
    first = call.args[0] if call.args else None
    dotted = isinstance(first, ast.Constant) and isinstance(first.value, str) and "." in first.value
    return str(first.value) if dotted and " " not in first.value else None


def table() -> str:
    """In Markdown."""
    rows = [
        f"| `{name}` | {', '.join(sorted(levels))} | {', '.join(f'`{field}`' for field in sorted(fields))} |"
        for name, (levels, fields) in sorted(events().items())
    ]
    return "\n".join(["| event | level | fields |", "| --- | --- | --- |", *rows])
