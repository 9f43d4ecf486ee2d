"""What an authorizer checks, whoever asks: what must never be signed, and never twice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from initiator import keyfile
from initiator.authorizer import shown
from initiator.authorizer.decisions import Decisions
from initiator.authorizer.desk import Desk
from initiator.config.authorizer import load_authorizer
from initiator.config.policyfile import load_policy
from initiator.config.signers import LocalKeySettings
from initiator.core import authorization, message, subjects
from initiator.core.authorization import Asking
from initiator.core.model import KeygenRequest, KeyType, Operation, SignRequest
from initiator.errors import HaltError, RejectError
from tests.support.harness import ScriptedSigner
from tests.support.pages import ROOT

REQUEST = KeygenRequest(wallet_id="w1")


class Forger:
    """Makes askings, and a desk that they are put on."""

    def __init__(self, folder: Path, policy: Path | None = None) -> None:
        self.initiator = ScriptedSigner()
        content, _ = keyfile.generate("ed25519")
        path = folder / "risk.key"
        path.touch(mode=0o600)
        path.write_text(content)
        signer = keyfile.load_local_signer(LocalKeySettings(path=str(path)))
        rules = load_policy(str(policy)) if policy else None
        decisions = Decisions(str(folder / "decisions.db"))
        self.desk = Desk("risk", signer, self.initiator.public_key, "initiator", rules, "leave", decisions)

    async def asking(self, request: Any = REQUEST, signer: ScriptedSigner | None = None, **changes: Any) -> Asking:
        signed = await (signer or self.initiator).sign(message.signed_bytes(request))
        fields: dict[str, Any] = {
            "authorizer_id": "risk", "operation": request.operation, "operation_id": request.operation_id,
            "client": "alice", "message": message.event_bytes(request, signed.signature),
            "expires_at": time.time() + 60, "policy": {"version": "v", "rule": "r"}, "missing": ("risk",),
        }  # fmt: skip
        return Asking(**fields | changes)

    async def read(self, asking: Asking, subject: str | None = None) -> Any:
        named = subject or subjects.authorize(asking.authorizer_id, asking.operation, asking.operation_id)
        return await self.desk.read(named, authorization.encode_asking(asking), time.time())


async def test_what_is_right_is_signed_as_the_nodes_verify_it(tmp_path: Path) -> None:
    forger = Forger(tmp_path)
    asking = await forger.asking()
    case = await forger.read(asking)
    assert case.to_sign == asking.to_sign()
    assert (await forger.read(asking)).to_sign == case.to_sign  # asked again


async def test_every_swap_and_forgery_is_refused(tmp_path: Path) -> None:
    forger = Forger(tmp_path)
    sign = SignRequest(key_type=KeyType.ED25519, wallet_id="w1", network_internal_code="n", tx_id="t1", tx=b"\x01")
    other = await forger.asking(KeygenRequest(wallet_id="w2"))
    braced = KeygenRequest(wallet_id='{"key_type":"ed25519"}')
    refused = [
        (await forger.asking(authorizer_id="ops"), None),
        (await forger.asking(), subjects.authorize("risk", "keygen", "w2")),
        (await forger.asking(operation_id="w2"), None),
        (await forger.asking(operation=Operation.SIGN), None),
        (await forger.asking(signer=ScriptedSigner()), None),
        (await forger.asking(expires_at=time.time() - 1), None),
        (await forger.asking(braced), subjects.authorize("risk", "keygen", "x")),
        (dataclasses.replace(await forger.asking(), message=other.message), None),
        (dataclasses.replace(await forger.asking(sign), message=b"{}"), None),
    ]
    for asking, subject in refused:
        with pytest.raises(RejectError):
            await forger.read(asking, subject)


TX = SignRequest(key_type=KeyType.ED25519, wallet_id="w1", network_internal_code="n", tx_id="t1", tx=b"\x01")
ANOTHER = "another request was signed under this id before"


@pytest.mark.parametrize("changes", [{"tx": b"\x02"}, {"wallet_id": "w2"}, {"derivation_path": (0, 7)}])
async def test_one_id_is_never_signed_for_two_requests(changes: dict[str, Any], tmp_path: Path) -> None:
    """Nor by a process that comes later, nor where the second one is asked for before the first one is signed."""
    forger = Forger(tmp_path)
    other = await forger.asking(dataclasses.replace(TX, **changes))
    before = await forger.read(other)
    await forger.desk.sign(await forger.read(await forger.asking(TX)))
    with pytest.raises(RejectError, match=ANOTHER):
        await forger.desk.sign(before)
    with pytest.raises(RejectError, match=ANOTHER):
        await forger.read(other)
    later = Forger(tmp_path)
    with pytest.raises(RejectError, match=ANOTHER):
        await later.read(await later.asking(dataclasses.replace(TX, **changes)))
    with pytest.raises(RejectError, match=ANOTHER):
        await later.read(await later.asking(TX, client="mallory"))
    assert (
        await later.desk.sign(await later.read(await later.asking(TX)))
    ).signature  # the same again, by a newer key even


async def test_of_two_processes_one_decides(tmp_path: Path) -> None:
    path, digests = str(tmp_path / "d.db"), ["a" * 64, "b" * 64]
    both = [Decisions(path), Decisions(path)]

    def hold(number: int) -> bool:
        try:
            both[number].hold(Operation.SIGN, "t1", digests[number])
        except RejectError:
            return False
        return True

    assert sorted(await asyncio.gather(*(asyncio.to_thread(hold, number) for number in (0, 1)))) == [False, True]


@pytest.mark.parametrize("before", [None, 0o644])
def test_the_file_is_its_owners_alone_and_outlives_a_power_cut(tmp_path: Path, before: int | None) -> None:
    """A journal whose removal is not on disk comes back, and takes the decision away again: hence EXTRA (3)."""
    path = tmp_path / "d.db"
    if before is not None:
        path.touch()
        path.chmod(before)
    decisions = Decisions(str(path))
    decisions.hold(Operation.SIGN, "t1", "a" * 64)
    assert path.stat().st_mode & 0o777 == 0o600
    assert decisions._ask("PRAGMA synchronous") == (3,)


async def test_a_busy_disk_stops_nothing_else(tmp_path: Path) -> None:
    """Somebody else holds the file: whoever reads waits for it in a thread."""
    forger = Forger(tmp_path)
    asking = await forger.asking(TX)
    with contextlib.closing(sqlite3.connect(tmp_path / "decisions.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        reading = asyncio.create_task(forger.read(asking))
        turns = 0
        while not reading.done() and turns < 20:
            await asyncio.sleep(0.01)
            turns += 1
        assert not reading.done()
        database.execute("ROLLBACK")
    assert (await reading).digest


async def test_what_cannot_be_remembered_is_not_signed(tmp_path: Path) -> None:
    forger = Forger(tmp_path)
    case = await forger.read(await forger.asking(TX))
    with contextlib.closing(sqlite3.connect(tmp_path / "decisions.db")) as database:
        database.execute("DROP TABLE signed")
    with pytest.raises(HaltError, match="decisions"):
        await forger.desk.sign(case)
    (tmp_path / "rubbish.db").write_bytes(b"x" * 4096)
    with pytest.raises(HaltError, match="decisions"):
        Decisions(str(tmp_path / "rubbish.db"))
    with pytest.raises(HaltError, match="decisions"):
        Decisions(str(tmp_path / "nowhere" / "d.db"))


async def test_text_of_strangers_draws_nothing(tmp_path: Path) -> None:
    forger = Forger(tmp_path)
    case = await forger.read(
        await forger.asking(labels={"a\x1b[2J": "b\u202e\nc"}, policy={"version": "\x07", "rule": "r"})
    )
    text = "\n".join(shown.lines(case, time.time()))
    assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text) is None
    assert len(text.splitlines()) == len(list(shown.lines(case, time.time())))


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"rules": [{"id": "a", "effect": "allow", "owners": ["*"]}]}, "owners cannot be known here"),
        ({"limits": [{"id": "a", "most": 1, "period": "day"}]}, "limits are for the daemon"),
    ],
)
def test_rules_that_an_authorizer_cannot_answer_are_refused(
    tmp_path: Path, policy: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps({"version": 1, **policy}))
    with pytest.raises(HaltError, match=reason):
        Forger(tmp_path, path)


def test_the_example_is_one() -> None:
    assert load_authorizer(str(ROOT / "deploy" / "authorizer.example.yaml")).authorizer_id == "risk"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"authorizer_id": "Risk"}, "lower-case"),
        ({"authorizer": "x"}, "authorizer"),
        ({"unmatched": "allow"}, "unmatched"),
        ({"decisions": "decisions.db"}, "decisions: expected an absolute path"),
        ({"decisions": ""}, "decisions: expected an absolute path"),
    ],
)
def test_settings_that_are_wrong_are_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = tmp_path / "authorizer.yaml"
    path.write_text(json.dumps({"authorizer_id": "risk", "event_initiator_pubkey": "aa"} | change))
    with pytest.raises(HaltError, match=reason):
        load_authorizer(str(path))
