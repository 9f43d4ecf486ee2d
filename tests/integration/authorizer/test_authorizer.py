"""An authorizer beside a daemon: as a service by rules, and in person."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from initiator.core import message
from initiator.core.model import Operation
from tests.support.environment import environment
from tests.support.governed import KEYGEN, Governed, keys_of, name, signature, soon
from tests.support.harness import Bench, bench, running


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("authorizer")) as ready:
        yield ready


class Place:
    """An authorizer's files, and a daemon that wants its signature."""

    def __init__(self, server: Bench, folder: Path, algorithm: Any = "ed25519") -> None:
        self.folder = folder
        self.governed = Governed(server, folder)
        self.key_file = folder / "risk.key"
        made = command("authorizer", "key", str(self.key_file), "--id", "risk", "--algorithm", algorithm)
        assert made.returncode == 0, made.stderr
        nodes, _, policy = made.stdout.partition("# the daemon's policy")
        # else mpcium's nodes take messages that no authorizer has signed
        assert yaml.safe_load(nodes)["authorization"]["required_authorizers"] == ["risk"]
        shown_ = yaml.safe_load(policy)
        self.authorizers = shown_["authorizers"]
        self.governed.write(
            [KEYGEN | {"authorizers": ["risk"]}], authorizers=self.authorizers, clients=keys_of("alice")
        )
        self.config = folder / "authorizer.yaml"

    def configure(self, rules: list[dict[str, Any]] | None = None, **changes: Any) -> None:
        settings: dict[str, Any] = {
            "authorizer_id": "risk",
            "nats": {"servers": [self.governed.server.url]},
            "key": {"path": str(self.key_file)},
            "event_initiator_pubkey": self.governed.signer.public_key.hex,
            "log": {"format": "json"},
        }
        if rules is not None:
            policy = self.folder / "own.yaml"
            policy.write_text(json.dumps({"version": 1, "rules": rules, "clients": keys_of("alice")}))
            settings["policy"] = str(policy)
        self.config.write_text(json.dumps(settings | changes))


def command(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "initiator", *arguments], capture_output=True, text=True, timeout=60, check=False,
        env=environment(), input=text, stdin=None if text is not None else subprocess.DEVNULL,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def served(place: Place) -> AsyncIterator[list[dict[str, Any]]]:
    """The service as a process, and what it logs."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "initiator", "authorizer", "run", "--config", str(place.config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment(),
    )  # fmt: skip
    lines: list[dict[str, Any]] = []
    assert child.stdout is not None
    stdout = child.stdout

    async def read() -> None:
        async for line in stdout:
            lines.append(json.loads(line))

    reader = asyncio.create_task(read())
    try:
        async with asyncio.timeout(20):
            while not any(line["event"] == "authorizer.started" for line in lines):
                await asyncio.sleep(0.02)
        yield lines
    finally:
        os.kill(child.pid, signal.SIGTERM)
        assert await child.wait() == 0
        await reader


async def said(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            for line in lines:
                if line["event"] == event:
                    return line
            await asyncio.sleep(0.02)


# --- the service


@pytest.mark.parametrize("algorithm", ["ed25519", "p256"])
async def test_what_its_rules_allow_is_signed(server: Bench, tmp_path: Path, algorithm: str) -> None:
    place = Place(server, tmp_path, algorithm)
    place.configure([KEYGEN | {"signed": True}])
    fields = soon(wallet_id=name("w"))
    async with running(place.governed.app()), served(place) as lines:
        await server.submit("keygen", fields, **signature(fields))
        await server.until("keygen", fields["wallet_id"], "published")
        line = await said(lines, "authorizer.approved")
        assert (line["id"], line["rule"], line["signed"], line["state"]) == (
            fields["wallet_id"],
            "keygen",
            True,
            "recorded",
        )
        unsigned = {"wallet_id": name("w")}
        await server.submit("keygen", unsigned)
        assert (await said(lines, "authorizer.left"))["id"] == unsigned["wallet_id"]
        assert server.states("keygen", unsigned["wallet_id"]) == ["accepted"]
    data, _ = await server.event_at_nodes("keygen", fields["wallet_id"])
    event = message.parse_event(Operation.KEYGEN, data)
    assert [one.authorizer_id for one in event.authorizer_signatures] == ["risk"]
    text = json.dumps(lines)
    assert event.signature.hex() not in text
    assert 'signature":' not in text


async def test_what_its_rules_deny_ends(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure([KEYGEN, {"id": "no-x", "effect": "deny", "wallets": ["x*"]}])
    wallet = name("x")
    async with running(place.governed.app()), served(place) as lines:
        await server.submit("keygen", {"wallet_id": wallet})
        event = await server.until("keygen", wallet)
        assert (event["code"], event["reason"]) == ("AUTHORIZATION_DENIED", "risk says no: rule no-x denies it")
        assert (await said(lines, "authorizer.denied"))["rule"] == "no-x"


async def test_what_it_does_not_know_may_be_denied_too(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure([], unmatched="deny")
    wallet = name("w")
    async with running(place.governed.app()), served(place):
        await server.submit("keygen", {"wallet_id": wallet})
        event = await server.until("keygen", wallet)
        assert event["reason"] == "risk says no: no rule of risk allows it"


async def test_it_comes_back_after_the_daemon_and_its_own_restart(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure([KEYGEN])
    wallet = name("w")
    async with running(place.governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "accepted")
    async with served(place), running(place.governed.app()):
        await server.until("keygen", wallet, "published")
    assert place.governed.signer.calls == 1


# --- a person


async def approve(place: Place, *options: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(command, "authorizer", "approve", "--config", str(place.config), *options, text=text)


async def test_in_person_with_everything_shown(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure([])
    fields = soon(wallet_id=name("w"), labels={"ticket": "OPS-7"})
    chosen = ("--op", "keygen", "--id", fields["wallet_id"])
    async with running(place.governed.app()):
        await server.submit("keygen", fields, **signature(fields))
        listed = await approve(place, "--list", "--wait", "7")
        assert listed.returncode == 0
        for text in (
            "asked by     alice, its own signature verifies",
            "OPS-7",
            "yours is the last signature",
            "rule keygen",
        ):
            assert text in listed.stdout
        unseen = await approve(place, "--yes")
        assert unseen.returncode != 0
        nobody = await approve(place)
        assert "nobody can be asked here" in nobody.stderr
        other = await approve(place, *chosen, "--yes", "--digest", "0" * 64)
        assert (other.returncode, "another request" in other.stderr) == (4, True)
        digest = re.findall(r"digest +([0-9a-f]{64})", listed.stdout)[0]
        done = await approve(place, *chosen, "--yes", "--digest", digest)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "signed and recorded; missing: nobody")
        await server.until("keygen", fields["wallet_id"], "published")
        nothing = await approve(place, *chosen, "--yes", "--wait", "1")
        assert (nothing.returncode, nothing.stderr) == (1, "nothing waits for you\n")


async def test_a_key_that_was_hit_before_the_question_signs_nothing(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure([])
    wallet = name("w")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "initiator", "authorizer", "approve", "--config", str(place.config)]
    async with running(place.governed.app()):
        child = await asyncio.create_subprocess_exec(
            *words, stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment()
        )
        os.write(ours, b"y\n")
        await server.submit("keygen", {"wallet_id": wallet})
        seen = b""
        assert child.stdout is not None
        async with asyncio.timeout(20):
            while b"sign it?" not in seen:
                seen += await child.stdout.read(1000)
        os.write(ours, b"n\n")
        rest = (await asyncio.wait_for(child.stdout.read(), 20)).decode()
        assert await child.wait() == 1
    os.close(ours)
    os.close(theirs)
    assert "left as it is" in rest
    assert server.states("keygen", wallet) == ["accepted"]


async def test_a_person_says_no(server: Bench, tmp_path: Path) -> None:
    place = Place(server, tmp_path)
    place.configure()
    wallet = name("w")
    async with running(place.governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        done = await approve(place, "--op", "keygen", "--id", wallet, "--deny", "not on a Friday")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "denied")
        assert (await server.until("keygen", wallet))["reason"] == "risk says no: not on a Friday"
