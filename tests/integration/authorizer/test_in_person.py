"""A person at an authorizer's desk: shown everything, asked, and held to what was said beforehand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from initiator.cli.authorizer import authorizer
from tests.support.environment import environment
from tests.support.governed import name, signature, soon
from tests.support.harness import Bench, running

from .place import Place, approve


async def test_in_person_with_everything_shown(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure([])
    fields = soon(wallet_id=name("w"), labels={"ticket": "OPS-7"})
    chosen = ("--op", "keygen", "--id", fields["wallet_id"])
    async with running(place.governed.app()):
        await server.submit("keygen", fields, **signature(fields))
        listed = await approve(place, *chosen, "--list", "--wait", "60")
        assert listed.returncode == 0
        for text in (
            "asked by     alice, its own signature verifies",
            "OPS-7",
            "yours is the last signature",
            "rule keygen",
        ):
            assert text in listed.stdout
        began = time.monotonic()
        told = json.loads((await approve(place, "--list", "--json", "--wait", "60")).stdout)
        assert time.monotonic() - began < 50  # not for as long as it would wait for the first one
        assert (told["id"], told["state"], told["missing"]) == (fields["wallet_id"], "waiting", ["risk"])
        assert f"digest       {told['digest']}" in listed.stdout
        done = await approve(place, *chosen, "--yes", "--digest", told["digest"])
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "signed and recorded; missing: nobody")
        await server.until("keygen", fields["wallet_id"], "published")
        nothing = await approve(place, *chosen, "--yes", "--wait", "1")
        assert (nothing.returncode, nothing.stderr) == (1, "nothing waits for you\n")


@contextlib.asynccontextmanager
async def at_a_terminal(place: Place) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """`approve` with a terminal as its input, and our end of that."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "initiator", "authorizer", "approve", "--config", str(place.config)]
    try:
        child = await asyncio.create_subprocess_exec(
            *words, stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment()
        )
        yield child, ours
    finally:
        os.close(ours)
        os.close(theirs)


async def test_a_key_that_was_hit_before_the_question_signs_nothing(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure([])
    wallet = name("w")
    async with running(place.governed.app()), at_a_terminal(place) as (child, ours):
        os.write(ours, b"y\n")
        await server.submit("keygen", {"wallet_id": wallet})
        seen = b""
        assert child.stdout is not None
        async with asyncio.timeout(60):
            while b"sign it?" not in seen:
                seen += await child.stdout.read(1000)
        os.write(ours, b"n\n")
        rest = (await asyncio.wait_for(child.stdout.read(), 60)).decode()
        assert await child.wait() == 1
    assert "left as it is" in rest
    assert server.states("keygen", wallet) == ["accepted"]


async def test_whoever_types_deny_signs_nothing_whatever_reason_is_given(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure([])
    wallet = name("w")
    async with running(place.governed.app()), at_a_terminal(place) as (child, ours):
        await server.submit("keygen", {"wallet_id": wallet})
        seen = b""
        assert child.stdout is not None
        async with asyncio.timeout(60):
            for question, typed in ((b"sign it?", b"deny\n"), (b"reason", b" \n"), (b"reason", b"x\x01y\n"),
                                    (b"reason", b"not on a Friday\n")):  # fmt: skip
                while question not in seen:
                    seen += await child.stdout.read(1000)
                seen = seen.partition(question)[2]
                os.write(ours, typed)
        rest = (await asyncio.wait_for(child.stdout.read(), 60)).decode()
        assert await child.wait() == 3, rest
        assert (await server.until("keygen", wallet))["reason"] == "risk says no: not on a Friday"


async def test_a_person_says_no(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure()
    wallet = name("w")
    async with running(place.governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        done = await approve(place, "--op", "keygen", "--id", wallet, "--deny", "not on a Friday")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "denied")
        assert (await server.until("keygen", wallet))["reason"] == "risk says no: not on a Friday"


async def test_for_a_program_it_is_an_object_each(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure(decisions=None)
    wallet = name("w")
    chosen = ("--op", "keygen", "--id", wallet, "--json", "--wait", "60")
    async with running(place.governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        other = await approve(place, *chosen, "--yes", "--digest", "0" * 64)
        assert not server.states("keygen", wallet)[1:]
        refused = json.loads(other.stdout)
        assert (other.returncode, refused["state"], refused["code"]) == (4, "refused", "CONFLICT")
        done = await approve(place, *chosen, "--yes", "--digest", refused["digest"].upper())
        assert "forgotten" in done.stderr  # no file of decisions
        signed = json.loads(done.stdout)
    assert (done.returncode, signed["state"], signed["missing"]) == (0, "signed", [])
    assert (signed["op"], signed["id"], signed["client"]) == ("keygen", wallet, "alice")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--yes", "--digest", ""), "64 hex digits"),
        (("--yes", "--digest", "52ab"), "64 hex digits"),
        (("--yes", "--deny", "no"), "at most one of them"),
        (("--yes", "--list"), "at most one of them"),
        (("--deny", " "), "printable characters"),
        (("--deny", "a\x1b[2J"), "printable characters"),
        (("--digest", "0" * 64), "--digest stands with --yes"),
        (("--json",), "--json asks nobody"),
        ((), "nobody can be asked here"),
        (("--id", "", "--yes"), "nothing is decided unseen"),
    ],
    ids=[
        "no digest",
        "half a digest",
        "yes and no",
        "yes and list",
        "no reason",
        "escape",
        "digest alone",
        "json",
        "no terminal",
        "unseen",
    ],
)
def test_what_is_no_decision_is_refused(options: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(authorizer, ["approve", "--config", "x.yaml", "--op", "sign", "--id", "t1", *options])
    assert done.exit_code == 2
    assert told in done.output
