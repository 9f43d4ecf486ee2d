"""Worlds of their own, and what may happen to a request in them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.aio.client import Client
from nats.aio.msg import Msg

from initiator import keyfile
from initiator.core import subjects
from initiator.core.authorization import Answer, decode_asking, encode_answer
from initiator.dev import servers
from tests.support.crashing import Forker, forker
from tests.support.harness import CHAIN_CODE, STREAM, Bench, sign_request

WORLDS = 160
DEADLINE_S = 40.0
ACK_WAIT_S = 0.9
KEYGEN, SIGN = {"wallet_id": "w"}, sign_request("w0", tx_id="tx")
RESHARE = {"session_id": "s", "node_ids": ["node0", "node1"], "new_threshold": 1, "key_type": "ed25519"} | KEYGEN
RISK = Ed25519PrivateKey.generate()
AUTHORIZED = {
    "version": 1,
    "authorizers": {"risk": {"algorithm": "ed25519", "public_key": RISK.public_key().public_bytes_raw().hex()}},
    "rules": [{"id": "all", "effect": "allow", "authorizers": ["risk"]}],
}
QUEUE = "INITIATOR_REQUESTS_alice"
STREAMS = [QUEUE, "mpc", *(f"INITIATOR_SLOTS_{op}" for op in ("KEYGEN", "SIGN", "RESHARE"))]
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

    async def be_the_authorizer(self) -> None:
        """Sign whatever is asked."""

        async def on_asking(message: Msg) -> None:
            asking = decode_asking(message.data)
            answer = encode_answer(Answer("risk", RISK.sign(asking.to_sign())))
            # where nobody hears it, it is asked for again
            await self.nc.publish(subjects.authorized("risk", asking.operation, asking.operation_id), answer)

        await self.nc.subscribe("initiator.authorize.risk.>", cb=on_asking)
        await self.nc.flush()

    def _listener(self, op: str) -> Callable[[Msg], Any]:
        async def on_event(message: Msg) -> None:
            event = json.loads(message.data)
            if op in STREAM and (message.subject, message.data) in self.heard:
                return  # core subscribers also hear what the stream refuses to take twice
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

    def configure(self, **sections: Any) -> None:
        """Settings of the daemons that start from now on, section by section."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | sections))

    async def ask(self, story: Story) -> None:
        """Send the story's request as often as it says, as soon as there is a stream for it."""
        for _ in range(story.repeats):
            while True:
                with contextlib.suppress(nats.errors.Error):
                    await self.submit(story.op, story.request)
                    break
                await asyncio.sleep(0.02)

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
                if state.messages or (name == QUEUE and state.last_seq < story.repeats):
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
        may_end: how else it may end after a death between `publishing` and `published`.
        authorized: an authorizer has to sign, too.
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
    may_end: str = ""
    authorized: bool = False

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


_WAY_IN = (
    "handle request", "record accepted", "sign", "record signed", "take slot", "publish to nodes", "record published",
)  # fmt: skip
_WAY_OUT = ("handle result", "free slot", "free slot 2", "ack result", "ack request")
_DONE = (*_WAY_IN, "record completed", *_WAY_OUT)
_AGAIN = (
    "record retrying", "take slot 2", "publish to nodes 2", "record published 2",
    "handle result 2", "free slot 3", "ack result 2",
)  # fmt: skip
_AUTHORIZED = ("record authorizing", "ask authorizer", "record authorizing 2")
STORIES = [
    Story("a keygen", "keygen", KEYGEN, _DONE),
    Story("a signature", "sign", SIGN, _DONE),
    # without a stream to read back from nobody knows whether a dead daemon sent it: then nobody sends it again
    Story("a reshare", "reshare", RESHARE, (*_DONE, "record publishing"), may_end=FATE_UNKNOWN),
    Story(
        "a refusal", "sign", SIGN | {"extra": 1}, ("handle request", "bury", "record rejected", "ack request"),
        "rejected", attempts=0, dead=1,
    ),
    Story("a failure", "sign", SIGN, (*_WAY_IN, "record failed", *_WAY_OUT), "failed NODES_ERROR unknown", _refused),
    Story("a second attempt", "sign", SIGN, (*_DONE, *_AGAIN), answer=_not_ready_first, attempts=2),
    Story("an authorized signature", "sign", SIGN, (*_DONE, *_AUTHORIZED), authorized=True),
    Story(
        "a lie", "keygen", KEYGEN, (*_WAY_IN, "bury", "record failed", *_WAY_OUT), "failed RESULT_INVALID unknown",
        _lie, dead=1,
    ),
    Story(
        "a silence", "keygen", KEYGEN, (*_WAY_IN, "record failed", "free slot", "bury", "ack request"), FATE_UNKNOWN,
        lambda *_: None, dead=1, result_timeout_s=1.5,
    ),
    Story(
        "a repeated request", "keygen", KEYGEN, (*_DONE, "handle request 2", "announce", "ack request 2"),
        repeats=2,
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
        if story.authorized:
            (folder / "policy.json").write_text(json.dumps(AUTHORIZED))  # JSON is YAML
            config["policy"] = {"file": str(folder / "policy.json")}
        (folder / "config.json").write_text(json.dumps(config))
        nc = await nats.connect(self.url, user=f"u{number}", password="p")
        try:
            world = World(self.url, nc, folder, story.answer)
            await world.be_the_nodes()
            await world.be_the_authorizer()
            yield world
        finally:
            await nc.close()


@contextlib.asynccontextmanager
async def new_universe(tmp_path: Path) -> AsyncIterator[Universe]:
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
