"""What holds pages against reality can tell the difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import Command, commands, parse
from tests.support.terminal import Terminal, fits

SHOWN = """\
accepted     0.17 s
wallet w1
  ed25519    21fe1a4c27ac33a3
2026-11-26 14:47:57  keygen   w1   completed
"""


@pytest.mark.parametrize(
    ("was", "became", "same"),
    [
        ("0.17", "12.5", True),
        ("21fe1a4c27ac33a3", "00aa00aa00aa", True),
        ("2026-11-26 14:47:57", "2031-01-01 00:00:00", True),
        ("keygen   w1   completed", "keygen w1 completed", True),
        ("completed", "failed", False),
        ("wallet w1", "wallet w2", False),
        ("0.17", "soon", False),
        ("21fe1a4c27ac33a3", "no key", False),
        ("accepted     0.17 s\n", "", False),
        ("wallet w1\n", "wallet w1\nwallet w1\n", False),
    ],
)
def test_what_may_differ_and_what_may_not(was: str, became: str, same: bool) -> None:
    assert was in SHOWN
    assert fits(SHOWN, SHOWN)
    assert fits(SHOWN, SHOWN.replace(was, became)) is same


def test_dots_stand_for_anything_but_not_for_what_is_shown_around_them() -> None:
    assert fits("ready.\n…\nok 1\n", "ready.\na\nb\nok 2\n")
    assert fits("ready.\n…\nok 1\n", "ready.\nok 2\n")
    assert not fits("ready.\n…\nok 1\n", "ready.\na\nb\n")
    assert fits("key aade0451…\n", "key 00ff00ff00ff\n")
    assert not fits("key aade0451…\n", "lock 00ff00ff00ff\n")


def test_commands_and_what_is_shown_below_them() -> None:
    page = "# Top\n```console\n$ a b\nsaid\n$ c\n```\n```sh\n# why\nd  # how\n```\n"
    console, script = parse("p.md", page)
    assert (console.heading, console.line, script.language) == ("Top", 2, "sh")
    assert commands(console) == [
        Command(page="p.md", line=3, text="a b", shown="said\n"),
        Command(page="p.md", line=5, text="c", shown=""),
    ]
    assert commands(script) == [Command(page="p.md", line=9, text="d  # how", shown="")]


def test_a_block_without_an_end_is_none() -> None:
    with pytest.raises(AssertionError, match=r"p\.md:1"):
        list(parse("p.md", "```sh\nls\n"))


def test_a_shell_that_keeps_its_variables_and_tells_exit_codes(tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        assert terminal.type("export NAME='a b'; false") == (1, "")
        assert terminal.type('echo "$NAME" >&2; [ -t 1 ] && echo a terminal') == (0, "a b\na terminal\n")
        assert terminal.type("sleep 60 & echo on") == (0, "on\n")
        assert terminal.leave_running("sh -c 'echo up; sleep 60'", until="up") == "up\n"
        with pytest.raises(AssertionError, match="it ended"):
            terminal.leave_running("echo down", until="up")
