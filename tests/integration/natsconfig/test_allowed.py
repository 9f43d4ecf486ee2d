"""What each login is there for, it can do, in every form; and nobody comes in who was not let in."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.errors import Error as NatsError

from initiator.bus.connection import Connection
from initiator.config.schema import NatsSettings
from initiator.core.subjects import ORDERS
from initiator.natsconfig import claims, nkey, token
from tests.support.deployment import KINDS, Deployment, tls_context

from .world import CLIENTS, World, world

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("world"), request.param) as found:
        yield found


async def test_a_client_asks_and_hears(one: World) -> None:
    nc = await one.one.connect("payments")
    for subject in ("initiator.query.payments.status", "initiator.cancel.payments"):
        assert (await nc.request(subject, b"{}", timeout=2)).data == b"{}"
    ack = json.loads((await nc.request("initiator.request.payments.keygen", b"{}", timeout=2)).data)
    assert ack["stream"] == "INITIATOR_REQUESTS_payments"
    heard = await nc.subscribe("initiator.out.payments.>")
    await nc.flush()
    daemon = await one.one.connect("initiator")
    await daemon.publish("initiator.out.payments.sign.tx_1.completed", b"x")
    assert (await heard.next_msg(timeout=2)).data == b"x"
    await nc.close()
    await daemon.close()


async def test_an_authorizer_is_asked_and_answers(one: World) -> None:
    risk, daemon = await one.one.connect("authorizer-risk"), await one.one.connect("initiator")
    heard = await risk.subscribe("initiator.authorize.risk.*.*")
    await risk.flush()
    await asyncio.sleep(0.1)  # ADR 20: over an import a subscription is not always seen at once
    await daemon.publish("initiator.authorize.risk.sign.tx_1", b"?")
    assert (await heard.next_msg(timeout=2)).data == b"?"
    assert (await risk.request("initiator.authorized.risk.sign.tx_1", b"yes", timeout=2)).data == b"{}"
    await risk.close()
    await daemon.close()


async def test_an_auditor_reads_the_record(one: World) -> None:
    nc = await one.one.connect("auditor-max")
    state = json.loads((await nc.request("$JS.initiator.API.STREAM.INFO.INITIATOR_EVENTS", b"", timeout=2)).data)[
        "state"
    ]
    assert state["messages"] >= 4
    asked = json.dumps({"seq": state["first_seq"]}).encode()
    found = json.loads((await nc.request("$JS.initiator.API.STREAM.MSG.GET.INITIATOR_EVENTS", asked, timeout=2)).data)
    assert found["message"]["subject"].startswith("initiator.event.payments.")
    direct = await nc.request("$JS.initiator.API.DIRECT.GET.INITIATOR_EVENTS", asked, timeout=2)
    assert direct.data == base64.b64decode(found["message"]["data"])
    batch = await nc.subscribe(inbox := nc.new_inbox())
    await nc.publish("$JS.initiator.API.DIRECT.GET.INITIATOR_EVENTS", b'{"seq":1,"batch":3}', reply=inbox)
    assert len([await batch.next_msg(timeout=2) for _ in range(3)]) == 3
    await nc.close()


async def test_an_operator_reads_and_orders_and_writes_no_record(one: World) -> None:
    against: list[str] = []
    nc = await one.one.connect("operator-ann", against.append, inbox_prefix="_INBOX_initiator")
    for stream in ("INITIATOR_EVENTS", "INITIATOR_REQUESTS_treasury"):
        found = json.loads((await nc.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=10)).data)
        asked = json.dumps({"seq": found["state"]["first_seq"]}).encode()
        assert "message" in json.loads((await nc.request(f"$JS.API.STREAM.MSG.GET.{stream}", asked, timeout=10)).data)
    order = json.loads((await nc.request(ORDERS, b"{}", timeout=10)).data)
    assert order["stream"] == "INITIATOR_EVENTS"
    assert against == []
    await nc.publish("initiator.event.payments.sign.tx_9.completed", b"{}")
    await nc.flush()
    async with asyncio.timeout(20):
        while not against:
            await asyncio.sleep(0.02)
    assert "violation" in against[0]
    await nc.close()


# --- who comes in


def deployment(folder: Path, kind: str) -> Deployment:
    found = Deployment(folder, kind, CLIENTS)
    found.generate()
    return found


async def refused(one: Deployment, **login: Any) -> None:
    """Raises where this login comes in."""
    quiet = {"allow_reconnect": False, "max_reconnect_attempts": 0, "connect_timeout": 3, "error_cb": _ignore}
    try:
        nc = await nats.connect(**({"servers": one.options("payments")["servers"]} | quiet | login))
        await nc.flush(2)
    except (OSError, TimeoutError, NatsError):
        return
    await nc.close()
    pytest.fail("it came in")


async def _ignore(_error: Exception) -> None:
    return


def written(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def serving(folder: Path, kind: str) -> AbstractAsyncContextManager[Deployment]:
    return deployment(folder, kind).serving()


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_and_a_stranger_are_refused(kind: str, tmp_path: Path) -> None:
    async with serving(tmp_path, kind) as one:
        seed = written(tmp_path, "stranger.nk", nkey.make(nkey.USER))
        if kind != "plain-mtls":  # there the certificate is the login
            await refused(one)
            await refused(one, nkeys_seed=seed)
            await refused(one, user="payments", password="guessed")
            await refused(one, user="sys", password="")
        else:
            await refused(one, tls=tls_context(str(one.out / "tls" / "ca.pem")))  # bare
            other = deployment(tmp_path / "other", kind)
            pair = (str(other.out / "logins" / "payments.pem"), str(other.out / "logins" / "payments.key"))
            await refused(one, tls=tls_context(str(one.out / "tls" / "ca.pem"), *pair))  # foreign


async def test_an_impostor_with_an_nkey_is_refused(tmp_path: Path) -> None:
    """It says another client's public key and signs with its own."""
    async with serving(tmp_path, "plain-nkey") as one:
        logins = one.out / "logins"
        own, other = (nkey.Pair((logins / f"{name}.nk").read_bytes(), nkey.USER) for name in ("payments", "treasury"))
        assert await says(one, own, own.public) == b"PONG"
        assert (await says(one, own, other.public)).startswith(b"-ERR 'Authorization Violation'")


async def says(one: Deployment, key: nkey.Pair, public: str) -> bytes:
    """A login by hand; the server's answer."""
    host, _, port = one.options("payments")["servers"][0].removeprefix("nats://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        signature = base64.urlsafe_b64encode(key.sign(info["nonce"].encode())).decode().rstrip("=")
        login = {"nkey": public, "sig": signature, "verbose": False, "pedantic": False}
        writer.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nPING\r\n")
        return (await asyncio.wait_for(reader.readline(), 3)).strip()
    finally:
        writer.close()


async def test_an_impostor_with_a_certificate_is_refused(tmp_path: Path) -> None:
    """It says another client's name, and comes with its own certificate."""
    async with serving(tmp_path, "plain-mtls") as one:
        nc = await one.connect("payments")
        await nc.close()
        await refused(one, tls=one.options("payments")["tls"], user="treasury", password="x")


def parts(one: Deployment, user: str) -> tuple[str, str]:
    content = (one.out / "logins" / f"{user}.creds").read_text()
    lines = content.splitlines()
    return lines[1], next(line for line in lines if line.startswith("SU"))


def credentials(folder: Path, name: str, jwt: str, seed: str) -> str:
    text = (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    return written(folder, name, text.encode())


async def test_credentials_of_another_sort_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, "jwt") as one:
        treasury, _ = parts(one, "treasury")
        _, seed = parts(one, "payments")
        own = nkey.Pair(seed.encode(), nkey.USER)
        account = nkey.Pair((one.out / "keys" / "CLIENT_payments.nk").read_bytes(), nkey.ACCOUNT)
        stranger = nkey.Pair(nkey.make(nkey.ACCOUNT), nkey.ACCOUNT)
        now = int(time.time())
        about = claims.user(next(u for _, u in _users(one) if u.name == "payments"))
        good = token.mint(account, own.public, "payments", about, now)
        ended = token.mint(account, own.public, "payments", about, now - 20, expires=now - 10)
        foreign = token.mint(stranger, own.public, "payments", about, now)
        nc = await one.connect("payments", user_credentials=credentials(tmp_path, "good.creds", good, seed))
        await nc.close()
        await refused(one, user_credentials=credentials(tmp_path, "impostor.creds", treasury, seed))
        await refused(one, user_credentials=credentials(tmp_path, "ended.creds", ended, seed))
        await refused(one, user_credentials=credentials(tmp_path, "foreign.creds", foreign, seed))


def _users(one: Deployment) -> list[Any]:
    from initiator.core.accounts import Parties, layout
    from initiator.core.model import Operation

    return list(layout(Parties(clients={"payments": tuple(Operation)})).users())


def _note(told: list[str], _connected: bool, reason: str) -> None:
    told.append(reason)


async def test_a_connection_whose_login_ends_says_so(tmp_path: Path) -> None:
    """One whose credentials have run out, and one whose login was revoked: both are over at once, and for good."""
    async with serving(tmp_path, "jwt") as one:
        _, seed = parts(one, "payments")
        account = nkey.Pair((one.out / "keys" / "CLIENT_payments.nk").read_bytes(), nkey.ACCOUNT)
        now = int(time.time())
        public = nkey.Pair(seed.encode(), nkey.USER).public
        jwt = token.mint(account, public, "payments", claims.user(_users(one)[3][1]), now, expires=now + 5)
        short = one.login("payments") | {"creds_file": credentials(tmp_path, "short.creds", jwt, seed)}
        ends = {"nats: user authentication expired": short, "nats: user authentication revoked": one.login("initiator")}
        told: dict[str, list[str]] = {reason: [] for reason in ends}
        opened = []
        for reason, login in ends.items():
            opened.append(Connection(NatsSettings.model_validate(login), "test", partial(_note, told[reason])))
            await opened[-1].open()
        one.generate("--revoke", "initiator")
        await one.reload()
        async with asyncio.timeout(30):
            for connection in opened:
                await connection.closed.wait()
        for reason, found in told.items():
            assert found[-1].lower() == f"connection closed for good: {reason}"
        for connection in opened:
            await connection.close()


@pytest.mark.parametrize("kind", ["jwt", "plain-nkey"])
async def test_a_revoked_login_is_out_at_once_and_the_new_one_is_in(kind: str, tmp_path: Path) -> None:
    async with serving(tmp_path, kind) as one:
        stolen, closed = await with_a_copy(one, "payments")
        told = one.generate("--revoke", "payments")
        assert (told["removed"], told["made"]) == ([], [f"logins/payments.{suffix(kind)}"])
        await one.reload()
        async with asyncio.timeout(20):
            await closed.wait()
        await refused(one, **stolen)
        nc = await one.connect("payments")
        await nc.flush()
        await nc.close()


@pytest.mark.parametrize("kind", ["jwt", "plain-nkey"])
async def test_who_is_dropped_is_out_at_once_and_stays_out_under_the_same_name(kind: str, tmp_path: Path) -> None:
    """A client, whose account goes with it, and an operator, who shares the daemon's."""
    async with serving(tmp_path, kind) as one:
        left = {who: await with_a_copy(one, who) for who in ("treasury", "operator-ann")}
        stays = await one.connect("payments")
        one.set_clients({"payments": {}})
        one.generate("--drop", "treasury", "--drop", "operator-ann", but=("--operator", "ann"))
        await one.reload()
        async with asyncio.timeout(20):
            for _, closed in left.values():
                await closed.wait()
        await stays.flush()
        for stolen, _ in left.values():
            await refused(one, **stolen)
        one.set_clients(CLIENTS)
        one.generate()
        await one.reload()
        for who, (stolen, _) in left.items():
            await refused(one, **stolen)
            nc = await one.connect(who)
            await nc.close()
        await stays.close()


def suffix(kind: str) -> str:
    return "creds" if kind == "jwt" else "nk"


async def with_a_copy(one: Deployment, who: str) -> tuple[dict[str, Any], asyncio.Event]:
    """Somebody connects with a copy of a login; the options of the copy, and when it was thrown out."""
    copied = shutil.copy(one.out / "logins" / f"{who}.{suffix(one.kind)}", one.folder / f"{who}.copy")
    stolen: dict[str, Any] = {"user_credentials" if one.kind == "jwt" else "nkeys_seed": str(copied)}
    closed = asyncio.Event()

    async def note() -> None:
        closed.set()

    await one.connect(who, closed_cb=note, **stolen)
    return stolen, closed


async def test_the_nodes_are_out_and_in_again_with_their_new_password(tmp_path: Path) -> None:
    async with serving(tmp_path, "jwt") as one:
        old = one.options("nodes")
        closed = asyncio.Event()

        async def note() -> None:
            closed.set()

        await one.connect("nodes", closed_cb=note)
        one.generate("--revoke", "nodes")
        await one.reload()
        await one.reload("leaf.conf")
        async with asyncio.timeout(20):
            await closed.wait()
        await refused(one, **old)
        await one.leaf_reaches_streams()  # with its own new login, and theirs


async def test_a_client_that_comes_later_is_taken_in_by_a_reload(tmp_path: Path) -> None:
    for kind in ("plain-nkey", "jwt"):
        async with serving(tmp_path / kind, kind) as one:
            before = {path: path.read_bytes() for path in (one.out / "logins").iterdir()}
            one.set_clients(CLIENTS | {"late": {}})
            told = one.generate()
            assert all("late" in name for name in told["made"]), told
            assert {path: path.read_bytes() for path in before} == before
            await one.reload()
            nc = await one.connect("late")
            await nc.flush()
            await nc.close()
