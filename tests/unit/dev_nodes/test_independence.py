"""The simulated nodes read the wire for themselves: agreement with the daemon is then no accident of shared code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import initiator.dev.nodes

PACKAGE = Path(initiator.dev.nodes.__file__).parent


@pytest.mark.parametrize("module", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_a_module_of_the_nodes_imports_nothing_else_of_this_product(module: Path) -> None:
    imported = set()
    for item in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(item, ast.ImportFrom):
            assert item.level == 0
            imported.add(item.module or "")
        elif isinstance(item, ast.Import):
            imported |= {alias.name for alias in item.names}
    own = {name for name in imported if name.split(".")[0] == "initiator"}
    assert all(name.startswith("initiator.dev.nodes") for name in own), own
