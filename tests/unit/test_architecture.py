"""The house rules that a machine can check: who may import what, and how long things may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES = 400
FUNCTION_LINES = 40

# Each edge is the only importer of its library; `dev` is no part of the daemon.
SOLE_IMPORTERS = {
    "boto3": ("initiator.kms", "initiator.audit.s3"),
    "botocore": ("initiator.kms", "initiator.audit.s3"),
    "nats": ("initiator.bus", "initiator.client", "initiator.dev"),
    "structlog": ("initiator.log",),
    "prometheus_client": ("initiator.metrics", "initiator.http"),
    "yaml": ("initiator.config", "initiator.dev"),
    "pydantic": ("initiator.config",),
    "h11": ("initiator.http",),
    "msgpack": ("initiator.core.codec", "initiator.dev"),
    "click": ("initiator.cli", "initiator.dev"),
    "pyrage": ("initiator.keyfile", "initiator.dev"),
    "moto": (),
    "nkeys": ("initiator.natsconfig.nkey",),
    "bcrypt": ("initiator.natsconfig.passwords",),
    "coincurve": ("initiator.core.secp256k1",),
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("initiator", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("library", SOLE_IMPORTERS)
def test_a_library_is_imported_by_its_own_edge_alone(graph: grimp.ImportGraph, library: str) -> None:
    if library not in graph.modules:
        assert not SOLE_IMPORTERS[library] or library in ("coincurve", "pyrage")
        return
    allowed = SOLE_IMPORTERS[library]
    strangers = {
        importer
        for importer in graph.find_modules_that_directly_import(library)
        if not any(importer == home or importer.startswith(f"{home}.") for home in allowed)
    }
    assert strangers == set()


def test_imports_keep_their_layers() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def sources() -> list[Path]:
    return sorted([*(ROOT / "initiator").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    long = {path.name: lines for path in sources() if (lines := len(path.read_text().splitlines())) > MODULE_LINES}
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = set()
    for path in (ROOT / "initiator").rglob("*.py"):
        for parent in ast.walk(ast.parse(path.read_text())):
            for node in ast.iter_child_nodes(parent):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _lines(node) > FUNCTION_LINES:
                    owner = f"{parent.name}." if isinstance(parent, ast.ClassDef) else ""
                    long.add(f"{owner}{node.name}")
    assert not long


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, docstring left out."""
    first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or 0) - first.lineno + 1


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "initiator").rglob("*.py")
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_nothing_in_the_project_names_a_registry_or_a_developers_machine() -> None:
    pattern = re.compile(r"--(extra-)?index-url|--find-links|/root/|/home/[a-z]")
    suspects = [*ROOT.glob("*.lock"), *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml", *sources()]
    found = [str(path.relative_to(ROOT)) for path in suspects if path.exists() and pattern.search(path.read_text())]
    assert [name for name in found if name != "tests/unit/test_architecture.py"] == []
