"""A deployment whose streams hold something, with nobody at work, and observers in every account."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from initiator.client import InitiatorClient
from initiator.core.accounts import Layout, Parties, layout
from initiator.core.model import Operation
from initiator.natsconfig import nkey, plain
from tests.support.deployment import CHAIN_CODE, Deployment
from tests.support.forbidden import API, INITIATOR, NODES, RECORD, Action

CLIENTS: dict[str, Any] = {"payments": {}, "treasury": {"operations": ["sign"]}}
OBSERVERS = (INITIATOR, NODES, "payments", "treasury", "authorizer-risk", "authorizer-legal")
ANSWERED = ("initiator.query.>", "initiator.cancel.>", "initiator.authorized.>")
SETTLE_S = 0.03
# answers to those who observe or have just left, and what JetStream tells of itself
_OF_THEIR_OWN = ("_INBOX_initiator", "_INBOX_mpcium", "_R_", "$JS.EVENT")
_NO_JETSTREAM, _NO_SUCH_STREAM = 10039, 10059


def bare(found: Layout) -> Layout:
    """The same accounts without permissions, to see what accounts alone hold."""
    accounts = [
        dataclasses.replace(
            one,
            users=tuple(dataclasses.replace(user, publish=None, subscribe=None) for user in one.users),
        )
        for one in found.accounts
    ]
    return dataclasses.replace(found, accounts=tuple(accounts))


def rewrite(one: Deployment, *, accounts: bool) -> None:
    """The NKey form with accounts but no permissions, or with neither: everybody in one account."""
    operations = {name: [Operation(op) for op in about.get("operations", Operation)] for name, about in CLIENTS.items()}
    parties = Parties(clients=operations, authorizers=("risk", "legal"), auditors=("max",), operators=("ann",))
    found = layout(parties)
    logins: dict[str, plain.Login] = {}
    for _, user in found.users():
        path = one.out / "logins" / f"{user.name}.nk"
        if path.exists():
            logins[user.name] = {"nkey": nkey.Pair(path.read_bytes(), nkey.USER).public}
    password = (one.out / "logins" / "nodes.password").read_text()
    logins["nodes"] = plain.password("nodes", password)
    text = plain.accounts_block(bare(found), logins)
    if not accounts:
        users = "\n".join(f"{{ {', '.join(f'{k}: {v}' for k, v in login.items())} }}" for login in logins.values())
        text = f"authorization {{ users: [\n{users}\n] }}\n"
    (one.out / "accounts.conf").write_text(text)


@dataclass(slots=True)
class Effects:
    """What came of an attempt, where it must not."""

    stored: set[str] = field(default_factory=set)
    delivered: set[tuple[str, str]] = field(default_factory=set)
    answered: list[bytes] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.stored or self.delivered or self.answered or self.heard)


class World:
    """The observers, and one attempt after the other."""

    def __init__(self, one: Deployment) -> None:
        self.one = one
        self._seen: dict[str, list[str]] = defaultdict(list)
        self._connections: dict[str, Client] = {}
        self.form = ""

    async def open(self, exits: contextlib.AsyncExitStack) -> None:
        for user in OBSERVERS:
            self._connections[user] = nc = await self.one.connect(user)
            exits.push_async_callback(nc.close)
            for subject in self._observed(user):
                await nc.subscribe(subject, cb=self._on_seen(user))
        daemon = self._connections[INITIATOR]
        for subject in ANSWERED:
            await daemon.subscribe(subject, cb=_answer)
        await self._settle()

    def _observed(self, user: str) -> tuple[str, ...]:
        match user:
            case "initiator" | "nodes":
                return (">",)
            case "payments" | "treasury":
                return (f"initiator.out.{user}.>", f"_INBOX_{user}.>")
            case _:
                return (f"initiator.authorize.{user.removeprefix('authorizer-')}.*.*",)

    def _on_seen(self, user: str) -> Any:
        async def note(message: Msg) -> None:
            self._seen[user].append(message.subject)

        return note

    async def _settle(self, rounds: int = 2) -> None:
        for _ in range(rounds):
            await asyncio.gather(*(nc.flush() for nc in self._connections.values()))
            await asyncio.sleep(SETTLE_S)

    async def state(self) -> dict[str, Any]:
        """What every stream and consumer of both accounts is like."""
        found: dict[str, Any] = {}
        for user in (INITIATOR, NODES):
            for info in await self._listed(user, "STREAM.LIST", "streams"):
                name, consumers = info["config"]["name"], []
                if info["state"]["consumer_count"]:
                    consumers = await self._listed(user, f"CONSUMER.LIST.{name}", "consumers")
                found[f"{user} {name}"] = (info["config"], info["state"], list(map(_lasting, consumers)))
        return found

    async def _listed(self, user: str, call: str, what: str) -> list[dict[str, Any]]:
        """A whole list: each of them is shorter than a page of the server's."""
        answer = json.loads((await self._connections[user].request(f"{API}{call}", b"", timeout=10)).data)
        listed: list[dict[str, Any]] = answer[what] or []
        assert len(listed) == answer["total"]
        return listed

    async def attempt(self, action: Action) -> tuple[Effects, list[str]]:
        """Try it; returns its effects, and what the server said against it."""
        against: list[str] = []
        if self.form == "one account":  # there it has no other name
            action = dataclasses.replace(action, subject=action.subject.replace(RECORD, API))
        before = await self.state()
        await self._settle(rounds=1)
        self._seen.clear()
        effects = Effects()
        nc = await self.one.connect(action.who, against.append, inbox_prefix=f"_INBOX_{_inbox(action.who)}")
        try:
            await self._do(action, nc, effects)
            with contextlib.suppress(Error):
                await nc.flush()
            await self._settle()
        finally:
            await nc.close()
        effects.delivered = self._delivered(action)
        after = await self.state()
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        effects.stored = {name for name in changed if not _expected(action, name)}
        return effects, against

    async def _do(self, action: Action, nc: Client, effects: Effects) -> None:
        body = action.body.encode()
        match action.verb:
            case "send":
                await nc.publish(action.subject, body or b"{}")
            case "inject":
                await nc.publish(action.subject, body or b"{}", reply=action.reply)
            case "call":
                with contextlib.suppress(NatsTimeoutError, NoRespondersError):
                    answer = (await nc.request(action.subject, body, timeout=0.4)).data
                    if not _is_of_its_own_account(answer):
                        effects.answered.append(answer)
            case "hear":

                async def hear(message: Msg) -> None:
                    effects.heard.append(message.subject)

                await nc.subscribe(action.subject, cb=hear)
                await nc.flush()
                await asyncio.sleep(SETTLE_S)  # ADR 20: over an import a subscription is not always seen at once
                source = self._connections[action.source]
                await source.publish(action.spoken, b"overheard")
                await source.flush()

    def _delivered(self, action: Action) -> set[tuple[str, str]]:
        """What arrived where an effect would show: neither what was said to be overheard nor an allowed first step."""
        if action.verb == "hear":
            return set()
        allowed = (action.subject, action.subject.replace(RECORD, API)) if action.verb == "inject" else ()
        watched = {*action.watched, *(user for user in OBSERVERS if user not in (INITIATOR, NODES, action.who))}
        return {
            (user, subject)
            for user in watched
            for subject in self._seen[user]
            if subject not in allowed and not subject.startswith(_OF_THEIR_OWN)
        }


def _inbox(user: str) -> str:
    return "initiator" if user in ("initiator", "initiator-nodes", "operator-ann") else user


def _expected(action: Action, name: str) -> bool:
    """An attempt's own first step, which is allowed."""
    if action.verb == "inject":
        return name == f"{INITIATOR} INITIATOR_REQUESTS_payments"
    if action.verb == "hear":  # said by those who may
        return True
    who, _, _ = name.partition(" ")
    return who not in action.watched and who == action.who


def _lasting(consumer: dict[str, Any]) -> Any:
    return consumer["name"], consumer["delivered"]["stream_seq"], consumer["ack_floor"], consumer["num_ack_pending"]


def _is_of_its_own_account(answer: bytes) -> bool:
    """ "There is no such thing here": the account's own JetStream has answered, not the daemon's."""
    if not answer.startswith(b"{"):  # a message itself
        return False
    error = json.loads(answer).get("error") or {}
    return error.get("err_code") in (_NO_JETSTREAM, _NO_SUCH_STREAM)


async def _answer(message: Msg) -> None:
    if message.reply:
        await message.respond(b"{}")


@contextlib.asynccontextmanager
async def world(folder: Path, form: str) -> AsyncIterator[World]:
    """Form: of `KINDS`, or `accounts alone` (no permissions), or `one account` (neither)."""
    one = Deployment(folder, form if form.startswith(("jwt", "plain")) else "plain-nkey", CLIENTS)
    one.generate()
    if form in ("accounts alone", "one account"):
        rewrite(one, accounts=form == "accounts alone")
    async with contextlib.AsyncExitStack() as exits:
        await exits.enter_async_context(one.serving())
        async with one.nodes(), one.daemon_here():
            options = one.options("payments")
            servers = options.pop("servers")
            async with InitiatorClient.connect(servers, client="payments", chain_code=CHAIN_CODE, **options) as client:
                await client.keygen("w-1")
                await client.sign("w-1", b"pay", tx_id="tx_1", key_type="ed25519")
        treasury = await one.connect("treasury")  # something waits in its queue while nobody is at work
        await treasury.publish("initiator.request.treasury.sign", b"{}")
        await treasury.flush()
        await treasury.close()
        found = World(one)
        found.form = form
        await found.open(exits)
        yield found
