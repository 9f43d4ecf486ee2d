"""An authorizer whose login does not do says so, and does not look idle."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import nats
import pytest
import pytest_asyncio

from initiator import keyfile
from initiator.authorizer.desk import Case
from initiator.authorizer.service import reply_to
from initiator.bus.connection import Connection
from initiator.config.schema import NatsSettings
from initiator.core import authorization, message, subjects
from initiator.core.authorization import Answer, Asking
from initiator.core.model import KeygenRequest, Operation
from initiator.dev import servers
from initiator.errors import Code
from tests.support.harness import ScriptedSigner

from .place import command

pytestmark = pytest.mark.asyncio(loop_scope="module")
REQUEST = KeygenRequest(wallet_id="w1")
USERS = {
    "daemon": {},
    "deaf": {"subscribe": {"deny": ["initiator.authorize.>"]}},
    "mute": {"publish": {"deny": ["initiator.authorized.>"]}},
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("denied")
    users = [{"user": name, "password": "right", "permissions": may} for name, may in USERS.items()]
    lines = (f"ports_file_dir: {json.dumps(str(folder))}", f"authorization: {json.dumps({'users': users})}")
    async with servers.nats_server("\n".join(('listen: "127.0.0.1:-1"', *lines)), folder) as ready:
        yield ready


class Desk:
    """An authorizer's settings, with one of these logins."""

    def __init__(self, url: str, folder: Path, user: str, password: str = "right") -> None:  # noqa: S107
        self.initiator = ScriptedSigner()
        content, _ = keyfile.generate("ed25519")
        secrets = {"risk.key": content, "password": password}
        for name, text in secrets.items():
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(text)
        self._config = folder / "authorizer.yaml"
        login = {"servers": [url], "user": user, "password_file": str(folder / "password")}
        settings = {"authorizer_id": "risk", "nats": login, "key": {"path": str(folder / "risk.key")}}
        pin = {"event_initiator_pubkey": self.initiator.public_key.hex}
        self._config.write_text(json.dumps({**settings, **pin, "decisions": str(folder / "decisions.db")}))

    async def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(command, "authorizer", words[0], "--config", str(self._config), *words[1:])

    async def asking(self) -> bytes:
        signed = await self.initiator.sign(message.signed_bytes(REQUEST))
        asking = Asking(
            authorizer_id="risk", operation=Operation.KEYGEN, operation_id="w1", client="alice",
            message=message.event_bytes(REQUEST, signed.signature), expires_at=time.time() + 600,
            policy={"version": "v", "rule": "r"}, missing=("risk",),
        )  # fmt: skip
        return authorization.encode_asking(asking)


@pytest.mark.parametrize("words", [("run",), ("approve", "--list", "--wait", "600")], ids=["run", "approve"])
@pytest.mark.parametrize(
    ("user", "password", "told"),
    [
        ("deaf", "wrong", "login refused"),
        ("deaf", "right", "NATS does not let this login listen to initiator.authorize.risk.*.*"),
    ],
    ids=["login", "permission"],
)
async def test_who_may_not_listen_is_told_so(
    url: str, tmp_path: Path, user: str, password: str, told: str, words: tuple[str, ...]
) -> None:
    done = await Desk(url, tmp_path, user, password).run(*words)
    assert done.returncode == 1
    assert "error: BUS_DENIED" in done.stderr
    assert told in done.stderr


async def test_who_may_not_answer_is_told_so(url: str, tmp_path: Path) -> None:
    desk = Desk(url, tmp_path, "mute")
    asking, subject = await desk.asking(), subjects.authorize("risk", Operation.KEYGEN, "w1")
    daemon = await nats.connect(url, user="daemon", password="right")

    async def ask() -> None:
        while True:
            await daemon.publish(subject, asking)
            await asyncio.sleep(0.2)

    asker = asyncio.create_task(ask())
    try:
        done = await desk.run("approve", "--op", "keygen", "--id", "w1", "--yes", "--wait", "50")
    finally:
        asker.cancel()
        await daemon.close()
    assert done.returncode == 1
    assert "error: BUS_DENIED NATS does not let this login answer on initiator.authorized.risk.keygen.w1" in done.stderr


async def test_each_answer_that_is_refused_is_told_and_no_other(url: str, tmp_path: Path) -> None:
    desk, asking = Desk(url, tmp_path, "mute"), None
    settings = {"servers": [url], "user": "mute", "password_file": str(tmp_path / "password")}
    connection = Connection(NatsSettings.model_validate(settings, strict=False), "authorizer-risk")
    await connection.open()
    try:
        asking = authorization.decode_asking(await desk.asking())
        cases = [
            cast("Case", SimpleNamespace(asking=dataclasses.replace(asking, operation_id=f"w{number}")))
            for number in range(8)
        ]
        said = await asyncio.gather(
            *(reply_to(connection, case, Answer("risk", denied="no")) for case in cases), return_exceptions=True
        )
    finally:
        await connection.close()
    assert [getattr(one, "code", one) for one in said] == [Code.BUS_DENIED] * 8
