"""The daemon dies at every boundary of its work, before and after each thing that it does, and another goes on.

One world (a NATS account with its own streams) for each death. Afterwards there is one final event, one signed event
at the nodes for each attempt, and nothing is left in the queue, among the results or in the slots.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from initiator import keyfile
from initiator.dev import servers
from tests.support.crashing import Forker, forker
from tests.support.harness import CHAIN_CODE, STREAM, Bench, sign_request

WORLDS = 160
AT_ONCE = 6
DEADLINE_S = 40.0
ACK_WAIT_S = 0.9
KEYGEN, SIGN = {"wallet_id": "w"}, sign_request("w0", tx_id="tx")
RESHARE = {"session_id": "s", "node_ids": ["node0", "node1"], "new_threshold": 1, "key_type": "ed25519"} | KEYGEN
STREAMS = ["INITIATOR_REQUESTS", "mpc", *(f"INITIATOR_SLOTS_{op}" for op in ("KEYGEN", "SIGN", "RESHARE"))]
FATE_UNKNOWN = "failed RESULT_TIMEOUT unknown"  # also what a reshare ends with if nobody knows whether it was sent
NOT_REACHED = "not reached"


class World(Bench):
    """One account, its nodes (this test) and its daemons."""

    def __init__(self, url: str, nc: Client, folder: Path, answer: Callable[[World, str, Any, int], Any]) -> None:
        super().__init__(url, nc)
        self.folder = folder
        self.heard: list[tuple[str, bytes]] = []
        self._answer = answer

    async def be_the_nodes(self) -> None:
        """Answer every event that arrives."""
        for subject, op in (
            ("mpc.keygen_request.*", "keygen"),
            ("mpc.signing_request.*", "sign"),
            ("mpc:reshare", "reshare"),
        ):
            await self.nc.subscribe(subject, cb=self._listener(op))
        await self.nc.flush()

    def _listener(self, op: str) -> Callable[[Msg], Any]:
        async def on_event(message: Msg) -> None:
            event = json.loads(message.data)
            self.heard.append((message.subject, message.data))
            body = self._answer(self, op, event, len(self.heard))
            if body is not None:
                await self.answer(op, event[_ID_FIELD[op]], body)

        return on_event

    def true_answer(self, op: str, event: dict[str, Any]) -> Any:
        if op == "keygen":
            return self.keygen_success(event["wallet_id"])
        if op == "sign":
            self.keygen_success("w0")
            return self.sign_success(SIGN)
        keys = self.keygen_success(event["wallet_id"])
        fields = {name: event[name] for name in ("wallet_id", "new_threshold", "key_type")}
        body = self.error("reshare", event["session_id"], "", "") | fields
        return body | {"result_type": "success", "pub_key": keys["eddsa_pub_key"]}

    async def end_of(self, op: str, operation_id: str) -> dict[str, Any]:
        """The final event, asked for: what was announced while nobody listened is not announced again."""
        question = json.dumps({"op": op, "id": operation_id}).encode()
        while True:
            with contextlib.suppress(nats.errors.Error):
                answer = await self.nc.request("initiator.query.alice.status", question, timeout=1)
                event: dict[str, Any] = json.loads(answer.data).get("event") or {"state": ""}
                if event["state"] in ("completed", "failed"):
                    return event
            await asyncio.sleep(0.03)

    async def over(self, story: Story) -> bool:
        """Nothing waits and nothing is held any more."""
        for name in STREAMS:
            with contextlib.suppress(nats.errors.Error):
                state = (await self.js.stream_info(name)).state
                if state.messages or (name == "INITIATOR_REQUESTS" and state.last_seq < story.repeats):
                    return False
        return True

    async def at_rest(self, story: Story) -> None:
        while not await self.over(story):
            await asyncio.sleep(0.03)

    async def rejections(self) -> int:
        info = await self.js.stream_info("INITIATOR_EVENTS", subjects_filter="initiator.reject.>")
        return sum((info.state.subjects or {}).values())


_ID_FIELD = {"keygen": "wallet_id", "sign": "tx_id", "reshare": "session_id"}


# --- what may happen to a request


@dataclass(frozen=True)
class Story:
    """A request, what the nodes answer, the steps that the daemon takes, and how it ends.

    Attributes:
        answer: the nodes' answer to the n-th event that they hear.
        attempts: publications to the nodes.
        repeats: how many times the same request is sent.
        dead: what lies in the dead letters afterwards.
        result_timeout_s: how long a keygen waits for the nodes.
        may_take: steps that a race decides about.
        may_end: how else it may end after a death between `publishing` and `published`.
    """

    name: str
    op: str
    request: dict[str, Any]
    steps: tuple[str, ...]
    ends: str = "completed"
    answer: Callable[[World, str, Any, int], Any] = lambda world, op, event, _: world.true_answer(op, event)
    attempts: int = 1
    repeats: int = 1
    dead: int = 0
    result_timeout_s: float = 120.0
    may_take: tuple[str, ...] = ()
    may_end: str = ""

    @property
    def operation_id(self) -> str:
        return str(self.request[_ID_FIELD[self.op]])


def _refused(world: World, op: str, event: Any, _count: int) -> Any:
    return world.error(op, event[_ID_FIELD[op]], "ERROR_UNKNOWN", wallet_id=event["wallet_id"])


def _not_ready_first(world: World, op: str, event: Any, count: int) -> Any:
    if count == 1:
        return world.error(op, event["tx_id"], "ERROR_CLUSTER_NOT_READY", wallet_id=event["wallet_id"])
    return world.true_answer(op, event)


def _lie(world: World, op: str, event: Any, _count: int) -> Any:
    return world.true_answer(op, event) | {"ecdsa_pub_key": base64.b64encode(bytes(64)).decode()}


_WAY_IN = ("record accepted", "sign", "record signed", "take slot", "publish to nodes", "record published")
_WAY_OUT = ("free slot", "free slot 2", "ack result", "ack request")
_DONE = (*_WAY_IN, "record completed", *_WAY_OUT)
_AGAIN = ("record retrying", "take slot 2", "publish to nodes 2", "record published 2", "free slot 3", "ack result 2")
STORIES = [
    Story("a keygen", "keygen", KEYGEN, _DONE),
    Story("a signature", "sign", SIGN, _DONE),
    # without a stream to read back from nobody knows whether a dead daemon sent it: then nobody sends it again
    Story("a reshare", "reshare", RESHARE, (*_DONE, "record publishing"), may_end=FATE_UNKNOWN),
    Story(
        "a refusal", "sign", SIGN | {"extra": 1}, ("bury", "record rejected", "ack request"), "rejected",
        attempts=0, dead=1,
    ),
    Story("a failure", "sign", SIGN, (*_WAY_IN, "record failed", *_WAY_OUT), "failed NODES_ERROR unknown", _refused),
    Story("a second attempt", "sign", SIGN, (*_DONE, *_AGAIN), answer=_not_ready_first, attempts=2),
    Story(
        "a lie", "keygen", KEYGEN, (*_WAY_IN, "bury", "record failed", *_WAY_OUT), "failed RESULT_INVALID unknown",
        _lie, dead=1,
    ),
    Story(
        "a silence", "keygen", KEYGEN, (*_WAY_IN, "record failed", "free slot", "bury", "ack request"), FATE_UNKNOWN,
        lambda *_: None, dead=1, result_timeout_s=1.5,
    ),
    Story(
        "a repeated request", "keygen", KEYGEN, (*_DONE, "announce", "ack request 2"),
        repeats=2, may_take=("record accepted 2",),
    ),
]  # fmt: skip


# --- worlds


@dataclass
class Universe:
    """All worlds of one test."""

    url: str
    folder: Path
    forker: Forker
    used: int = 0

    @contextlib.asynccontextmanager
    async def world(self, story: Story) -> AsyncIterator[World]:
        number, self.used = self.used, self.used + 1
        folder = self.folder / f"world{number}"
        folder.mkdir()
        login = {"servers": [self.url], "user": f"u{number}", "password_file": str(self.folder / "password")}
        config = {
            "nats": login,
            "signer": {"type": "local", "local": {"path": str(self.folder / "key")}},
            "mpcium": {
                "chain_code": CHAIN_CODE,
                "reshare": {"result_timeout_s": 3},
                "keygen": {"result_timeout_s": story.result_timeout_s},
            },
            "clients": {"alice": {}},
            "worker": {"ack_wait_s": ACK_WAIT_S, "heartbeat_s": ACK_WAIT_S / 3, "drain_timeout_s": 1},
            "http": {"enabled": False},
            "log": {"format": "json"},
        }
        (folder / "config.json").write_text(json.dumps(config))
        nc = await nats.connect(self.url, user=f"u{number}", password="p")
        try:
            world = World(self.url, nc, folder, story.answer)
            await world.be_the_nodes()
            yield world
        finally:
            await nc.close()


@pytest.fixture
async def universe(tmp_path: Path) -> AsyncIterator[Universe]:
    (tmp_path / "password").write_text("p")
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text(keyfile.generate("p256")[0])
    accounts = "\n".join(
        f'W{number} {{ jetstream: enabled, users: [{{ user: "u{number}", password: "p" }}] }}'
        for number in range(WORLDS)
    )
    # each world's streams reserve their sizes
    place = servers.NatsProcess().place(tmp_path).replace("jetstream {", "jetstream { max_file_store: 100TB,")
    async with servers.nats_server(f"{place}\naccounts {{ {accounts} }}\n", tmp_path) as url, forker() as started:
        yield Universe(url, tmp_path, started)


# --- lives and deaths


async def submit(world: World, story: Story) -> None:
    """Send the story's request as often as it says, as soon as there is a stream for it."""
    for _ in range(story.repeats):
        while True:
            with contextlib.suppress(nats.errors.Error):
                await world.submit(story.op, story.request)
                break
            await asyncio.sleep(0.02)


async def live(universe: Universe, story: Story, deaths: tuple[str, ...]) -> tuple[list[str], str]:
    """Daemons that die one after the other, and one that goes on; its boundaries and how the request ended."""
    async with universe.world(story) as world:
        daemon = await universe.forker.start(world.folder, "daemon0", deaths[0] if deaths else "")
        try:
            async with asyncio.timeout(DEADLINE_S):
                await submit(world, story)
                for number, following in enumerate((*deaths[1:], "")[: len(deaths)], start=1):
                    while not (daemon.has_ended or await world.over(story)):
                        await asyncio.sleep(0.02)
                    if not daemon.has_ended:
                        return daemon.boundaries(), NOT_REACHED
                    daemon = await universe.forker.start(world.folder, f"daemon{number}", following)
                ended = await judge(world, story)
            assert await daemon.stop(signal.SIGTERM) == 0
            return daemon.boundaries(), ended
        finally:
            await daemon.stop(signal.SIGKILL)


async def judge(world: World, story: Story) -> str:
    """How the request ended; asserts that it did so once and left nothing behind."""
    if story.ends == "rejected":
        while await world.rejections() == 0:
            await asyncio.sleep(0.03)
        await world.at_rest(story)
        assert await world.rejections() == 1
        ended = "rejected"
    else:
        final = await world.end_of(story.op, story.operation_id)
        await world.at_rest(story)
        assert len(await world.finals(story.op, story.operation_id)) == 1
        ended = " ".join(str(final[name]) for name in ("state", "code", "outcome") if name in final)
    assert len(world.heard) == len(set(world.heard)), "an event was sent twice"
    if ended == story.ends:
        assert len(world.heard) == story.attempts
        assert len(await world.dead("initiator.dead.")) == story.dead
    if story.op in STREAM:
        assert await world.published(story.op) == len(world.heard)
    return ended


@pytest.mark.timeout(300)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name.replace(" ", "_"))
async def test_a_death_at_any_boundary_loses_nothing_and_repeats_nothing(universe: Universe, story: Story) -> None:
    boundaries, ended = await live(universe, story, ())
    assert ended == story.ends
    # a new step is a new line in the table above, and so a new death
    assert set(boundaries) - sides(story.may_take) == sides(story.steps)
    assert_endings(story, await die_at_each(universe, story, [(boundary,) for boundary in boundaries]))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("story", STORIES[:3], ids=lambda story: story.name.replace(" ", "_"))
async def test_whoever_takes_over_may_die_at_any_boundary_too(universe: Universe, story: Story) -> None:
    pairs: list[tuple[str, ...]] = []
    for death in ("before publish to nodes", "after publish to nodes"):
        boundaries, _ = await live(universe, story, (death,))
        pairs += [(death, boundary) for boundary in boundaries]
    endings = await die_at_each(universe, story, pairs)
    # whether the result or the holder comes first is a race, and so is what the second one gets to do
    reached = {pair: ended for pair, ended in endings.items() if ended != NOT_REACHED}
    assert len(reached) >= 8, endings
    assert_endings(story, reached)


def sides(steps: tuple[str, ...]) -> set[str]:
    return {f"{side} {step}" for step in steps for side in ("before", "after")}


async def die_at_each(universe: Universe, story: Story, deaths: list[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def die(death: tuple[str, ...]) -> str:
        async with gate:
            try:
                return (await live(universe, story, death))[1]
            except (AssertionError, TimeoutError) as error:
                return repr(error)

    endings = await asyncio.gather(*(die(death) for death in deaths))
    return dict(zip(deaths, endings, strict=True))


def assert_endings(story: Story, endings: dict[tuple[str, ...], str]) -> None:
    odd = {death: ended for death, ended in endings.items() if ended != story.ends}
    assert all(ended == story.may_end for ended in odd.values()), odd
    # only where it may have been sent is its fate unknown
    assert all("publishing" in " ".join(death) or "publish to" in " ".join(death) for death in odd), odd
