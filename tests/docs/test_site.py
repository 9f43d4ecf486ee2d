"""The site builds without a warning, and its reference leaves nothing of the code out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from prometheus_client.metrics import MetricWrapperBase

import initiator.client
import initiator.signer
import initiator.verify
from initiator.cli import cli
from initiator.config.example import flatten
from initiator.config.schema import Settings
from initiator.errors import Code
from initiator.metrics import Metrics
from tests.support.environment import environment
from tests.support.pages import ROOT


def build(source: Path, site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """As `make docs` does."""
    recipe = re.search(r"sphinx-build (.*) docs build/docs$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    command = [sys.executable, "-m", "sphinx", *recipe[1].split(), *options, str(source), str(site)]
    return subprocess.run(
        command, cwd=site.parent, capture_output=True, text=True, timeout=200, check=False, env=environment()
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT / "docs", folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def anchors(site: Path, page: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', (site / page).read_text()))


def test_every_page_is_in_the_site_and_can_be_found(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    menu = (site / "index.html").read_text()
    assert len(pages) > 30
    for page in pages:
        assert (site / page).is_file(), page
        assert f'href="{page}"' in menu or page == Path("index.html"), page


@pytest.mark.parametrize("module", [initiator.client, initiator.signer, initiator.verify])
def test_every_public_name_has_its_place(site: Path, module: object) -> None:
    name = module.__name__  # type: ignore[attr-defined]
    found = anchors(site, f"reference/{name.rpartition('.')[2]}.html")
    elsewhere = {"Operation", "Algorithm"} if module is initiator.verify else set()  # the client's, and a Literal
    missing = {public for public in module.__all__ if f"{name}.{public}" not in found}  # type: ignore[attr-defined]
    assert missing == elsewhere


def test_the_test_kit_has_its_place(site: Path) -> None:
    found = anchors(site, "reference/testing.html")
    assert {f"initiator.testing.{name}" for name in ("run_stack", "InitiatorStack", "InitiatorStack.connect")} <= found


def all_commands(command: click.Command, path: str = "initiator") -> dict[str, click.Command]:
    found = {path: command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found |= all_commands(inner, f"{path} {name}")
    return found


def test_every_command_and_option_is_told(site: Path) -> None:
    found = anchors(site, "reference/commands.html")
    for path, command in all_commands(cli).items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                option = max(parameter.opts, key=len)
                assert f"cmdoption-{path.replace(' ', '-')}-{option.lstrip('-')}" in found, f"{path} {option}"


def test_every_setting_is_told(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "reference" / "settings.html").read_text())
    names = {key.rpartition(".")[2] for key in flatten(Settings())}
    assert [name for name in sorted(names) if not re.search(rf"^#?\s*(- )?{name}:", text, re.MULTILINE)] == []


def test_every_code_leads_to_the_runbook(site: Path) -> None:
    found = anchors(site, "runbook.html")
    listed = (site / "reference" / "errors.html").read_text()
    for code in Code:
        assert code.lower() in {anchor.replace("-", "_") for anchor in found}
        assert re.search(rf'href="\.\./runbook\.html#[^"]+">(<[^>]+>)*{code}<', listed), code


def test_what_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text(
        "# Top\n\n[file](gone.md) [anchor](other.md#gone) [source](../gone.py)\n\n"
        "```{eval-rst}\n:py:class:`initiator.client.Gone`\n```\n\n```{toctree}\nother\nabsent\n```\n"
    )
    (source / "other.md").write_text("# Other\n")
    (source / "lost.md").write_text("# In no menu\n")
    done = build(source, tmp_path / "site", "--conf-dir", str(ROOT / "docs"))
    assert done.returncode == 1
    for missing in ("'gone.md'", "doc 'other': 'gone'", "'../gone.py'", "initiator.client.Gone", "'absent'", "lost.md"):
        assert missing in done.stderr, f"{missing}:\n{done.stderr}"


@pytest.mark.parametrize("name", ["README.md", "SECURITY.md", "CHANGELOG.md", "tests/vectors/README.md"])
def test_what_links_into_the_site_from_outside_leads_there(site: Path, name: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", (ROOT / name).read_text()):
        path = ((ROOT / name).parent / target).resolve()
        assert path.exists(), f"{name}: {target}"
        if anchor:
            page = path.relative_to(ROOT / "docs").with_suffix(".html")
            assert anchor in anchors(site, str(page)), f"{name}: {target}#{anchor}"


def test_the_readme_links_into_the_site() -> None:
    assert re.search(r"\]\(docs/\w+\.md#", (ROOT / "README.md").read_text())


def test_the_contract_lists_every_schema() -> None:
    folder = ROOT / "docs" / "contract"
    listed = re.findall(r"\]\(([^)]+\.json)\)", (folder / "README.md").read_text())
    assert sorted(set(listed)) == sorted(path.name for path in folder.glob("*.json"))


def test_the_table_of_metrics_is_the_codes() -> None:
    rows = re.findall(
        r"^\| `(initiator_\w+)` \| (\w+) \| ([^|]*)\| ([^|]+) \|$",
        (ROOT / "docs" / "metrics.md").read_text(),
        re.MULTILINE,
    )
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}
    metrics = [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    counted = {metric._name: (metric._type, tuple(metric._labelnames), metric._documentation) for metric in metrics}
    assert told == counted
    assert len(told) == len(rows) > 10


def test_every_log_event_is_listed_and_named_by_what_happened(site: Path) -> None:
    page = (site / "logs.html").read_text()
    found = set(re.findall(r'"([a-z_]+\.[a-z_]+)"', "".join(_calls_of_the_log())))
    assert len(found) > 60
    assert {name for name in found if f">{name}<" not in page} == set()


def _calls_of_the_log() -> list[str]:
    """Each by its first argument, found in another way than the page finds them."""
    texts = [path.read_text() for path in (ROOT / "initiator").rglob("*.py")]
    pattern = r'(?:log|get_logger\(\))\.(?:debug|info|warning|error|exception)\(\s*("[^"]+")'
    return [call for text in texts for call in re.findall(pattern, text)]
