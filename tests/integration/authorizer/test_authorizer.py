"""An authorizer beside a daemon, as a service by rules."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from initiator.core import message
from initiator.core.model import Operation
from tests.support.governed import KEYGEN, name, signature, soon
from tests.support.harness import Bench, running

from .place import Place, served


async def said(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            for line in lines:
                if line["event"] == event:
                    return line
            await asyncio.sleep(0.02)


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


@pytest.mark.parametrize("kept", [True, False])
async def test_a_service_that_will_forget_says_so(server: Bench, tmp_path: Path, kept: bool) -> None:
    place = Place(server, tmp_path)
    place.configure([], **({} if kept else {"decisions": None}))
    async with served(place) as lines:
        pass
    warned = [line for line in lines if line["event"] == "authorizer.forgetful"]
    assert [(line["level"], "decisions" in line["reason"]) for line in warned] == ([] if kept else [("warning", True)])
