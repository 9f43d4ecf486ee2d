"""Every command of every page is typed, in the order of the page, and does what the page shows.

One page is one reader: a folder that looks like a checkout, and one `initiator dev` for the whole page; where the page
starts none itself, one with a local key runs already. The reader has, besides what the page makes:
- `message.bin`, something to sign; `event.json`, the first event for the nodes; `EVENT_INITIATOR_PUBKEY`;
- a `nats` command line (a stand-in where there is none);
- an editor: `initiator config example > initiator.yaml` is followed by writing the running stack's settings into it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nats
import pytest
from click import Command as ClickCommand
from click import Context, Group

from initiator.cli import cli
from initiator.dev.servers import free_port
from tests.support.pages import ROOT, Command, blocks, commands
from tests.support.terminal import Terminal, fits

# Not typed, and why; what can be seen of them without typing them is looked at below.
NOT_TYPED = {
    r"git clone ": "the tests are run in a checkout",
    r"make ": "one of them is these tests; that each target is there is looked at",
    r"pip install ": "installs from the network; that the files are there, with hashes, is looked at",
    r"docs/model/check\.py": "takes a minute of both processors; tests/model/test_protocol.py runs it",
}
# Pages whose commands run in tests of their own; that commands and options are there is looked at here.
ELSEWHERE = {
    "docs/dead-letters.md": "tests/integration/cli/test_dlq*.py",
}
# What does not end by itself is left running when it has said this.
STAYS = {
    r"(\.venv/bin/)?initiator dev(?! --once)( |$)": "Ctrl-C ends everything",
    r"initiator .*\brun$": "daemon.started",
    r"initiator events .*--follow": "completed",
    r"nats-server -c ": "Server is ready",
    r"python -m initiator\.dev\.nodes ": "cluster.started",
}


def all_commands() -> list[Command]:
    return [command for block in blocks("console", "sh") for command in commands(block)]


def said(pattern: str) -> list[Command]:
    return [command for command in all_commands() if re.match(pattern, command.text)]


def is_typed(command: Command) -> bool:
    return command.page not in ELSEWHERE and not any(re.match(pattern, command.text) for pattern in NOT_TYPED)


TYPED_PAGES = sorted({command.page for command in all_commands() if is_typed(command)})


class Reader(Terminal):
    """Somebody who types what a page says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "message.bin").write_bytes(b"pay 5 to Bob")
        if shutil.which("nats") is None:
            stand_in = folder / "bin" / "nats"
            stand_in.write_text(
                f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.support.nats_command "$@"\n'
            )
            stand_in.chmod(0o700)

    def follow(self, command: Command) -> None:
        """Type it, and see that it does what the page shows."""
        self._prepare(command.text)
        until = next((until for pattern, until in STAYS.items() if re.match(pattern, command.text)), None)
        if until is not None:
            output = self.leave_running(command.text, until)
        else:
            code, output = self.type(command.text)
            assert code == 0, f"{command}\nexit code {code}\n{output}"
        assert not command.shown or fits(command.shown, output), f"{command}\nshown:\n{command.shown}\ncame:\n{output}"
        if re.match(r"initiator config example > initiator.yaml\b", command.text):
            self._edit()

    def start_stack(self) -> None:
        self.leave_running("initiator dev --kms local --env-file dev.env", until="Ctrl-C ends everything")

    def variable(self, name: str) -> str:
        """As the stack has written it into dev.env."""
        found = re.search(rf"^export {name}='(.*)'$", (self.folder / "dev.env").read_text(), re.MULTILINE)
        assert found is not None
        return found[1]

    def _edit(self) -> None:
        """The example becomes a configuration: the stack's own, for a second replica beside its first."""
        assert "event_initiator_pubkey" in (self.folder / "initiator.yaml").read_text()
        settings = json.loads(Path(self.variable("INITIATOR_CONFIG")).read_text())
        settings["http"]["port"] = free_port()
        (self.folder / "initiator.yaml").write_text(json.dumps(settings))

    def _prepare(self, text: str) -> None:
        if "event.json" in text:
            code, output = self.type("initiator request keygen --wallet-id w1 --wait")
            assert code == 0, output
            login = json.loads(Path(self.variable("INITIATOR_CONFIG")).read_text())["mpcium"]["nats"]
            login["password"] = Path(login.pop("password_file")).read_text()
            (self.folder / "event.json").write_bytes(asyncio.run(first_event(**login)))
        if "$EVENT_INITIATOR_PUBKEY" in text:
            self.type(f"export EVENT_INITIATOR_PUBKEY={self.variable('EVENT_INITIATOR_PUBKEY')}")


async def first_event(servers: list[str], user: str, password: str) -> bytes:
    """What the nodes were sent, read with the daemon's login there."""
    async with await nats.connect(servers, user=user, password=password, inbox_prefix=b"_INBOX_initiator") as nc:
        answer = await nc.request("$JS.API.STREAM.MSG.GET.mpc-keygen", b'{"seq":1}', timeout=5)
    return base64.b64decode(json.loads(answer.data)["message"]["data"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", TYPED_PAGES)
def test_the_commands_of_a_page_do_what_it_shows(page: str, tmp_path: Path) -> None:
    typed = [command for command in all_commands() if command.page == page and is_typed(command)]
    with Reader(tmp_path) as reader:
        if not any("initiator dev" in command.text for command in typed):
            reader.start_stack()
        for command in typed:
            reader.follow(command)
        assert all(reader.running().values()), reader.running()


def test_there_are_pages_to_follow() -> None:
    assert {"README.md", "docs/start.md", "docs/clients.md", "docs/requests.md", "docs/running.md"} <= set(TYPED_PAGES)


@pytest.mark.parametrize("pattern", [*NOT_TYPED, *STAYS])
def test_no_exception_outlives_its_command(pattern: str) -> None:
    assert said(pattern)


@pytest.mark.parametrize("command", said("make "), ids=str)
def test_each_target_of_make_is_there(command: Command) -> None:
    words = command.text.partition("#")[0].split()
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", said("pip install "), ids=str)
def test_what_pip_installs_is_there_with_hashes(command: Command) -> None:
    lock = re.search(r"--require-hashes -r (\S+)", command.text)
    assert lock is not None
    pinned = re.findall(r"^\S+==.*?(?=^\S|\Z)", (ROOT / lock[1]).read_text(), re.DOTALL | re.MULTILINE)
    assert len(pinned) > 10
    assert [item for item in pinned if "--hash=sha256:" not in item] == []


def test_the_models_check_can_be_called_and_is_run_by_its_own_test() -> None:
    assert os.access(ROOT / "docs" / "model" / "check.py", os.X_OK)
    assert "check.py" in (ROOT / "tests" / "model" / "test_protocol.py").read_text()


@pytest.mark.parametrize("page", ELSEWHERE)
def test_commands_that_run_elsewhere_have_their_tests_there(page: str) -> None:
    tests = "".join(path.read_text() for path in ROOT.glob(ELSEWHERE[page]))
    found = [command for command in all_commands() if command.page == page]
    assert found
    for command in found:
        path, called, options = resolve(command.text)
        named = {option for parameter in called.params for option in parameter.opts}
        assert set(options) <= named, f"{command}: {sorted(set(options) - named)}"
        assert f'"{path[-1]}"' in tests, f"{command}: no test calls {path}"


def resolve(text: str) -> tuple[list[str], ClickCommand, list[str]]:
    """The words that name an `initiator` command, the command, and the options that it is given."""
    program, *words = re.split(r" [|>&]", text)[0].split()
    assert program == "initiator", text
    command: ClickCommand = cli
    path: list[str] = []
    options: list[str] = []
    for word in words:
        if isinstance(command, Group) and (inner := command.get_command(Context(command), word)):
            command, path, options = inner, [*path, word], []
        elif word.startswith("--"):
            options.append(word.partition("=")[0])
    return path, command, options
