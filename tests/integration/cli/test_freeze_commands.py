"""`initiator freeze`, `unfreeze` and `stopline` as an operator types them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from initiator.bus import queues
from initiator.bus.jetstream import JetStream
from initiator.cli import freeze
from initiator.config.schema import Settings
from initiator.errors import Code, RetryError
from tests.support import command
from tests.support.harness import Bench, bench, daemon, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    def __init__(self, server: Bench, settings: Settings, folder: Path) -> None:
        self.server = server
        self._config = folder / "initiator.yaml"
        self._config.write_text(settings.model_dump_json(exclude_unset=True))

    async def run(self, *arguments: str) -> Said:
        done = await asyncio.to_thread(command.run, "--config", str(self._config), *arguments)
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    async def events(self) -> list[dict[str, Any]]:
        """What the record says of orders, oldest first."""
        info = await self.server.js.stream_info("INITIATOR_EVENTS")
        found = []
        for sequence in range(1, info.state.last_seq + 1):
            message = await self.server.js.get_msg("INITIATOR_EVENTS", sequence)
            if message.subject == "initiator.control.orders":
                assert (message.headers or {})["Nats-TTL"] == "never"
                found.append(json.loads(message.data or b""))
        return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def terminal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Terminal]:
    async with bench(tmp_path_factory.mktemp("orders")) as server:
        settings = settings_for(server.url)
        async with daemon(settings):
            yield Terminal(server, settings, tmp_path_factory.mktemp("config"))


async def test_a_freeze_is_told_kept_listed_and_lifted(terminal: Terminal) -> None:
    done = await terminal.run("freeze", "--client", "alice", "--op", "sign", "--reason", "a leak", "--by", "carol")
    assert done.code == 0
    first, second = done.out.splitlines()
    assert first == "frozen: client alice sign, by carol: a leak"
    assert second.startswith("1 replica confirmed, in 0.")
    listed = (await terminal.run("freeze", "--list", "--json")).json["freezes"]
    assert [(one["scope"], one["by"], one["reason"]) for one in listed] == [("client alice sign", "carol", "a leak")]
    again = await terminal.run("freeze", "--client", "alice", "--op", "sign", "--reason", "me too", "--json")
    assert (again.code, again.json["already"], again.json["by"]) == (0, True, "carol")
    wrong = await terminal.run("unfreeze", "--client", "alice")
    assert wrong.code == 1
    assert "client alice is not frozen; frozen is: client alice sign" in wrong.err
    lifted = await terminal.run("unfreeze", "--client", "alice", "--op", "sign", "--by", "dave", "--json")
    assert (lifted.code, lifted.json["still_frozen"]) == (0, [])
    assert "nothing is frozen" in (await terminal.run("freeze", "--list")).out
    kept = [(event["change"], event["scope"], event["by"], event["reason"]) for event in (await terminal.events())[-2:]]
    assert kept == [
        ("freeze", "client alice sign", "carol", "a leak"), ("unfreeze", "client alice sign", "dave", ""),
    ]  # fmt: skip
    assert not [event for event in terminal.server.seen if "change" in event]  # nothing of it leaves the account


async def test_freezes_are_lifted_one_by_one(terminal: Terminal) -> None:
    await terminal.run("freeze", "--all", "--reason", "a drill")
    await terminal.run("freeze", "--client", "bob", "--reason", "a leak")
    lifted = await terminal.run("unfreeze", "--all")
    assert lifted.out.splitlines()[0] == "unfrozen: all; still frozen: client bob"
    await terminal.run("unfreeze", "--client", "bob")


@pytest.fixture
def with_login_alone(terminal: Terminal, tmp_path: Path) -> Terminal:
    """An operator's: its file has a login and no clients."""
    return Terminal(terminal.server, Settings.model_validate({"nats": {"servers": [terminal.server.url]}}), tmp_path)


async def test_a_name_that_nobody_has_is_refused(terminal: Terminal, with_login_alone: Terminal) -> None:
    """A misspelt one would look frozen, and the one that is meant would go on."""
    before = len(await terminal.events())
    for place in (terminal, with_login_alone):
        done = await place.run("freeze", "--client", "alcie", "--reason", "a leak")
        assert done.code == 1
        assert "error: NOT_FOUND no such client is known here: alcie; nothing was frozen" in done.err
        assert "did you mean alice?" in done.err
    assert len(await terminal.events()) == before


async def test_a_login_alone_is_enough(terminal: Terminal, with_login_alone: Terminal) -> None:
    done = await with_login_alone.run("freeze", "--client", "alice", "--reason", "a leak")
    assert (done.code, done.err) == (0, "")
    lifted = await with_login_alone.run("unfreeze", "--client", "alice")
    assert (lifted.code, lifted.err) == (0, "")


async def test_where_nobody_can_tell_a_name_is_frozen_and_doubted(tmp_path: Path) -> None:
    async with bench(tmp_path) as server:
        nobody = settings_for(server.url).model_copy(update={"clients": {}})
        async with daemon(nobody):
            done = await Terminal(server, nobody, tmp_path).run("freeze", "--client", "alice", "--reason", "a leak")
    told = "warning: nothing here says which clients there are: is there a client alice?\n"
    assert (done.code, done.err) == (0, told)


async def test_no_control_character_of_a_reason_reaches_a_terminal(terminal: Terminal) -> None:
    done = await terminal.run("freeze", "--op", "reshare", "--reason", "\x1b[31mred\nsecond")
    assert "\x1b" not in done.out
    listed = await terminal.run("freeze", "--list")
    assert len(listed.out.splitlines()) == 1
    await terminal.run("unfreeze", "--op", "reshare")


@pytest.mark.parametrize(
    "arguments",
    [
        ("freeze",), ("freeze", "--all"), ("freeze", "--reason", "x"), ("freeze", "--all", "--reason", " "),
        ("freeze", "--all", "--reason", "x" * 501), ("freeze", "--all", "--client", "a", "--reason", "x"),
        ("freeze", "--client", "a.b", "--reason", "x"), ("freeze", "--client", "", "--reason", "x"),
        ("freeze", "--op", "transfer", "--reason", "x"), ("freeze", "--list", "--all"), ("unfreeze",),
        ("stopline", "set", "-1", "--reason", "x"), ("stopline", "set", "5"), ("stopline", "raise", "many"),
    ],
)  # fmt: skip
async def test_what_is_no_order_is_refused_and_changes_nothing(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    before = len(await terminal.events())
    assert (await terminal.run(*arguments)).code == 2
    assert len(await terminal.events()) == before


async def test_a_stop_line_is_set_shown_raised_and_cleared(terminal: Terminal) -> None:
    assert (await terminal.run("stopline", "show")).out == "no stop line\n"
    for words in (("raise", "5"), ("clear",)):
        none = await terminal.run("stopline", *words, "--reason", "x")
        assert none.code == 1
        assert "no stop line stands" in none.err
    assert (await terminal.run("stopline", "set", "5", "--reason", "a budget")).code == 0
    shown = (await terminal.run("stopline", "show", "--json")).json
    assert (shown["limit"], shown["spent"], shown["reason"]) == (5, 0, "a budget")
    assert "stop line: 0 of 5 calls spent" in (await terminal.run("freeze", "--list")).out
    lower = await terminal.run("stopline", "raise", "4", "--reason", "x")
    assert (lower.code, "the line stands at 5" in lower.err) == (1, True)
    assert (await terminal.run("stopline", "raise", "6", "--reason", "more", "--json")).json["limit"] == 6
    assert (await terminal.run("stopline", "set", "0", "--reason", "none at all")).code == 0
    assert (await terminal.run("stopline", "show")).code == 3
    assert (await terminal.run("stopline", "clear", "--reason", "done")).code == 0
    assert (await terminal.run("stopline", "show")).code == 0


async def test_orders_are_taken_again_where_an_older_version_had_taken_them_away(terminal: Terminal) -> None:
    js = terminal.server.js
    config = (await js.stream_info("INITIATOR_EVENTS")).config
    await js.update_stream(config.evolve(subjects=["initiator.event.>", "initiator.reject.>"]))
    assert (await terminal.run("freeze", "--op", "keygen", "--reason", "x")).code == 0
    assert (await terminal.run("unfreeze", "--op", "keygen")).code == 0


async def test_without_a_record_or_a_server_it_says_so(tmp_path: Path) -> None:
    async with bench(tmp_path) as server:
        alone = Terminal(server, settings_for(server.url), tmp_path)
        done = await alone.run("freeze", "--all", "--reason", "x")
        assert done.code == 1
        assert done.err.startswith("error: RECORD_LOST there is no INITIATOR_EVENTS")
    gone = await alone.run("freeze", "--all", "--reason", "x")
    assert (gone.code, gone.err.startswith("error: BUS_UNAVAILABLE")) == (1, True)


async def test_a_replica_that_knows_of_no_orders_is_named(terminal: Terminal) -> None:
    async def on_health(message: Any) -> None:
        await terminal.server.nc.publish(message.reply, json.dumps({"id": "old1", "version": "0.0.9"}).encode())

    older = await terminal.server.nc.subscribe("initiator.health", cb=on_health)
    await terminal.server.nc.flush()
    try:
        done = await terminal.run("freeze", "--op", "reshare", "--reason", "x")
    finally:
        await older.unsubscribe()
    assert done.code == 1
    assert "error: replica old1 (version 0.0.9) knows of no orders and goes on signing: stop it" in done.err
    await terminal.run("unfreeze", "--op", "reshare")


async def test_a_client_that_only_the_daemons_know_is_frozen_where_they_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def away(_js: object) -> frozenset[str]:
        raise RetryError(Code.BUS_UNAVAILABLE, "no leader")

    monkeypatch.setattr(queues, "clients", away)
    await freeze._check_known(cast("JetStream", None), "shop2", frozenset({"shop"}))
    assert "is there a client shop2?" in capsys.readouterr().err
    await freeze._check_known(cast("JetStream", None), "shop", frozenset({"shop"}))
    assert capsys.readouterr().err == ""
