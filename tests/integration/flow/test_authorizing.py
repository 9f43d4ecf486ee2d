"""Authorizers' signatures: collected one by one over the one signature of ours, whatever dies on the way."""

from __future__ import annotations

from typing import Any

import nats.errors
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from structlog.testing import capture_logs

from initiator.core import authorization, message
from initiator.core.authorization import Answer
from initiator.core.model import Operation
from initiator.core.signature import Verifier
from tests.support.authorizers import OPS, RISK, Authorizers, signed
from tests.support.governed import Governed, ask, later, name
from tests.support.harness import running


async def test_the_nodes_get_the_event_when_all_have_signed(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet, "labels": {"ticket": "7"}})
        first = await authorizers.asking("risk", wallet)
        assert (first.client, first.labels, first.missing) == ("alice", {"ticket": "7"}, ("risk", "ops"))
        assert first.policy["rule"] == "keygen"
        parsed = first.parsed()
        assert Verifier(governed.signer.public_key).verify(parsed.signed, parsed.signature)
        assert await authorizers.sign("risk", wallet) == {"state": "recorded", "missing": ["ops"]}
        assert await server.published("keygen") == 0
        assert await authorizers.sign("ops", wallet) == {"state": "recorded", "missing": []}
        await server.until("keygen", wallet, "published")
        data, _ = await server.event_at_nodes("keygen", wallet)
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet, "completed")
        assert await server.all_acked()
    event = message.parse_event(Operation.KEYGEN, data)
    assert [one.authorizer_id for one in event.authorizer_signatures] == ["risk", "ops"]
    asked = message.authorizer_bytes(event.request, event.signature)
    RISK.public_key().verify(event.authorizer_signatures[0].signature, asked)
    OPS.public_key().verify(event.authorizer_signatures[1].signature, asked, ec.ECDSA(hashes.SHA256()))
    assert governed.signer.calls == 1
    assert server.states("keygen", wallet) == ["accepted", "published", "completed"]  # no bytes reach clients before


async def test_a_signature_of_ours_is_made_once_though_every_holder_dies(
    governed: Governed, authorizers: Authorizers
) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        before = (await authorizers.asking("risk", wallet)).message
        await authorizers.sign("risk", wallet)
    seen = len(authorizers.asked)
    async with running(governed.app()):
        again = await authorizers.asking("ops", wallet, after=seen)
        assert again.message == before
        assert again.missing == ("ops",)  # who has answered is not asked again
        assert await authorizers.answer(again, authorization.encode_answer(signed(again))) == {
            "state": "recorded", "missing": []
        }  # fmt: skip
        await server.until("keygen", wallet, "published")
    assert governed.signer.calls == 1
    assert [one.authorizer_id for one in authorizers.asked[seen:] if one.operation_id == wallet] == ["ops"]


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda asking: Answer("risk", b"x" * 64), "does not verify"),
        (lambda asking: Answer("risk", RISK.sign(asking.message)), "does not verify"),
        (lambda asking: Answer("risk", ed25519.Ed25519PrivateKey.generate().sign(asking.to_sign())), "does not verify"),
        (lambda asking: Answer("ops", RISK.sign(asking.to_sign())), "expected the one that the subject names"),
    ],
)
async def test_a_forged_answer_is_refused_and_changes_nothing(
    governed: Governed, authorizers: Authorizers, forge: Any, reason: str
) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        asking = await authorizers.asking("risk", wallet)
        told = await authorizers.answer(asking, authorization.encode_answer(forge(asking)))
        assert told["state"] == "refused"
        assert reason in told["reason"]
        await authorizers.sign("risk", wallet)
        await authorizers.sign("ops", wallet)
        await server.until("keygen", wallet, "published")


async def test_rubbish_and_strangers_are_refused(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()) as app:
        await server.submit("keygen", {"wallet_id": wallet})
        asking = await authorizers.asking("risk", wallet)
        for rubbish in (
            b"",
            b"[]",
            b"{}",
            b'{"authorizer_id": "risk"}',
            b'{"authorizer_id": "risk", "signature": "!"}',
        ):
            assert (await authorizers.answer(asking, rubbish))["state"] == "refused"
        stranger = authorization.encode_answer(Answer("mallory", b"x"))
        told = await authorizers.answer(asking, stranger, "mallory")
        assert (told["state"], told["reason"]) == ("refused", "this authorizer is not asked")
        value = app.metrics.registry.get_sample_value
        assert value("initiator_authorizations_total", {"authorizer": "unknown", "outcome": "refused"}) == 1
        assert value("initiator_authorizations_total", {"authorizer": "risk", "outcome": "refused"}) == 5


async def test_who_says_no_ends_it(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.sign("risk", wallet)
        asking = await authorizers.asking("ops", wallet)
        denied = authorization.encode_answer(Answer("ops", denied="no such ticket"))
        assert (await authorizers.answer(asking, denied))["state"] == "recorded"
        event = await server.until("keygen", wallet)
        assert (event["code"], event["outcome"]) == ("AUTHORIZATION_DENIED", "none")
        assert (event["reason"], event["field"]) == ("ops says no: no such ticket", "authorizers.ops")
        assert await server.all_acked()
    assert await server.published("keygen") == 0


async def test_who_has_signed_may_still_say_no(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    with capture_logs() as logs:
        async with running(governed.app()) as app:
            await server.submit("keygen", {"wallet_id": wallet})
            await authorizers.sign("risk", wallet)
            asking = await authorizers.asking("risk", wallet)
            false = authorization.encode_answer(Answer("risk", b"x" * 64))
            assert (await authorizers.answer(asking, false))["state"] == "refused"
            denied = authorization.encode_answer(Answer("risk", denied="stop"))
            assert (await authorizers.answer(asking, denied))["state"] == "recorded"
            event = await server.until("keygen", wallet)
            assert (event["code"], event["outcome"]) == ("AUTHORIZATION_DENIED", "none")
            value = app.metrics.registry.get_sample_value
            for outcome in ("signed", "denied", "refused", "contradicted"):
                labels = {"authorizer": "risk", "outcome": outcome}
                assert value("initiator_authorizations_total", labels) == 1
    alarms = {line["event"]: line for line in logs if line["event"].startswith("authorizing.answer_")}
    for what, code in (("refused", "INVALID_FIELD"), ("contradicted", "AUTHORIZATION_DENIED")):
        alarm = alarms[f"authorizing.answer_{what}"]
        assert (alarm["log_level"], alarm["code"]) == ("warning", code)
        assert (alarm["authorizer"], alarm["op"], alarm["id"]) == ("risk", "keygen", wallet)


async def test_at_the_deadline_it_fails_naming_who_is_missing(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet, "expires_at": later(3)})
        await authorizers.sign("risk", wallet)
        event = await server.until("keygen", wallet)
        assert (event["code"], event["outcome"]) == ("AUTHORIZERS_MISSING", "none")
        assert event["reason"].endswith("without ops")
        assert await server.all_acked()
        with pytest.raises(nats.errors.TimeoutError):  # nobody holds it any more
            await authorizers.sign("ops", wallet)
    assert await server.published("keygen") == 0


async def test_opened_again_it_goes_on_with_the_signature_that_authorizers_hold(
    governed: Governed, authorizers: Authorizers
) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet, "expires_at": later(2)})
        before = (await authorizers.asking("risk", wallet)).message
        await authorizers.sign("risk", wallet)
        failed = await server.until("keygen", wallet)
        seen = len(authorizers.asked)
        await server.submit("keygen", {"wallet_id": wallet}, **{"Initiator-Reopen": failed["event_id"]})
        again = await authorizers.asking("ops", wallet, after=seen)
        assert (again.message, again.missing) == (before, ("ops",))
        await authorizers.answer(again, authorization.encode_answer(signed(again)))
        await server.until("keygen", wallet, "published")
    assert governed.signer.calls == 1


async def test_it_can_be_cancelled_while_it_waits(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.sign("risk", wallet)
        status = await ask(server, "query.alice.status", {"op": "keygen", "id": wallet})
        assert (status["event"]["state"], status["event"]["awaits"]) == ("authorizing", ["ops"])
        assert not {"message", "collected", "session", "digest"} & status["event"].keys()
        told = await ask(server, "cancel.alice", {"op": "keygen", "id": wallet})
        assert told["cancelled"] is True
        assert await server.all_acked()
    assert await server.published("keygen") == 0


async def test_a_result_for_what_nobody_could_have_got_is_forged(governed: Governed, authorizers: Authorizers) -> None:
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await authorizers.asking("risk", wallet)
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.results_settled()
        assert len(await server.dead("initiator.dead.$results")) == 1
        await authorizers.sign("risk", wallet)
        await authorizers.sign("ops", wallet)
        await server.until("keygen", wallet, "published")
