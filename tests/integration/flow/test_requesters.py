"""Requests that their clients have signed: a stolen NATS login alone moves nothing."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric import ed25519

from initiator.app import App
from initiator.core import codec, requester, validate
from initiator.core.model import ContentType, Operation
from tests.support.governed import KEYGEN, RULES, Governed, keys_of, name, signature, soon
from tests.support.harness import Bench, ScriptedSigner, running, settings_for, sign_request, source


async def test_a_stolen_login_alone_moves_nothing(governed: Governed) -> None:
    governed.write([KEYGEN | {"signed": True}], clients=keys_of("alice"))
    server = governed.server
    async with running(governed.app()):
        wallet = name("w")
        fields = soon(wallet_id=wallet)
        denied = ("POLICY_DENIED", "policy.rules.keygen")
        invalid = ("REQUESTER_SIGNATURE_INVALID", "Initiator-Signature")
        assert await governed.rejected("keygen", fields) == denied
        thief = ed25519.Ed25519PrivateKey.generate()
        assert await governed.rejected("keygen", fields, **signature(fields, key=thief)) == invalid
        assert await governed.rejected("keygen", fields, **signature(soon(wallet_id=name("w")))) == invalid
        assert await governed.rejected("keygen", fields, **signature(fields, client="bob")) == invalid
        assert await governed.rejected("keygen", fields, **signature(fields, audience="other")) == invalid
        assert await governed.rejected("keygen", fields, "bob", **signature(fields)) == invalid
        assert await governed.rejected("keygen", fields, **{requester.HEADER: "rubbish"}) == invalid
        assert governed.signer.calls == 0
        await server.submit("keygen", fields, **signature(fields))
        await server.until("keygen", wallet, "published")
    found = (await governed.sealed("keygen", wallet))["requester"]
    request = codec.decode(ContentType.MSGPACK, msgpack.packb(fields))
    assert found["key"].startswith("U")
    parsed = validate.parse_request(Operation.KEYGEN, request, ContentType.MSGPACK, RULES, time.time())
    covered = requester.canonical_bytes(found["audience"], "alice", parsed, found["reopens"])
    requester.verify(requester.parse_key(found["key"]), found["signature"], covered)


async def test_a_path_is_not_swapped_under_a_signature(governed: Governed) -> None:
    governed.write([{"id": "all", "effect": "allow", "signed": True}], clients=keys_of("alice"))
    async with running(governed.app()):
        wallet = name("w")
        made = soon(wallet_id=wallet)
        await governed.server.submit("keygen", made, **signature(made))
        await governed.server.until("keygen", wallet, "published")
        asked = sign_request(wallet, derivation_path=[44, 501], **soon())
        header = signature(asked, op=Operation.SIGN)
        for changed in (
            asked | {"derivation_path": [44, 502]},
            asked | {"derivation_path": None},
            asked | {"tx": b"\x02"},
        ):
            assert (await governed.rejected("sign", changed, **header))[0] == "REQUESTER_SIGNATURE_INVALID"
        await governed.server.submit("sign", asked, **header)
        await governed.server.until("sign", asked["tx_id"], "published")


async def test_the_encoding_is_free_and_the_expiry_is_not(governed: Governed) -> None:
    governed.write([KEYGEN | {"signed": True}], clients=keys_of("alice"))
    async with running(governed.app()):
        fields: dict[str, Any] = {"wallet_id": name("w"), "expires_at": _in(600), "labels": {"b": "2", "a": "1"}}
        header = signature(fields)
        later = fields | {"expires_at": _in(6000)}
        assert (await governed.rejected("keygen", later, **header))[0] == "REQUESTER_SIGNATURE_INVALID"
        assert (await governed.rejected("keygen", fields | {"labels": {}}, **header))[
            0
        ] == "REQUESTER_SIGNATURE_INVALID"
        await governed.server.submit("keygen", fields, encoding="json", **header)
        await governed.server.until("keygen", fields["wallet_id"], "published")


def _in(seconds: float) -> str:
    return datetime.fromtimestamp(int(time.time() + seconds), UTC).isoformat().replace("+00:00", ".250Z")


async def test_a_replayed_signature_only_joins_its_own_operation(governed: Governed) -> None:
    governed.write([KEYGEN | {"signed": True}], clients=keys_of("alice"))
    server = governed.server
    async with running(governed.app()):
        fields = soon(wallet_id=name("w"))
        header = signature(fields)
        await server.submit("keygen", fields, **header)
        await server.until("keygen", fields["wallet_id"], "published")
        await server.submit("keygen", fields, **header)
        await server.answer("keygen", fields["wallet_id"], server.keygen_success(fields["wallet_id"]))
        await server.until("keygen", fields["wallet_id"], "completed")
        assert await server.all_acked()
    assert (governed.signer.calls, await server.published("keygen")) == (1, 1)


async def test_a_signed_request_that_failed_is_not_opened_again_by_who_has_seen_it(governed: Governed) -> None:
    """Replay: what failed may have been asked for under another id since."""
    rule = KEYGEN | {"signed": True}
    governed.write([rule], clients=keys_of("alice"))
    governed.signer.script = [1.0]
    server, fields = governed.server, soon(wallet_id=name("w"))
    async with running(governed.app()) as app:
        await server.submit("keygen", fields, **signature(fields))
        await server.until("keygen", fields["wallet_id"], "accepted")
        governed.write([{"id": "stop", "effect": "deny"}, rule], clients=keys_of("alice"))
        app.reload()
        failed = await server.until("keygen", fields["wallet_id"])
        assert (failed["code"], failed["outcome"]) == ("POLICY_DENIED", "none")
        governed.write([rule], clients=keys_of("alice"))
        app.reload()
        await asyncio.sleep(0.3)
        thief = signature(fields) | {"Initiator-Reopen": failed["event_id"]}
        invalid = ("REQUESTER_SIGNATURE_INVALID", "Initiator-Signature")
        assert await governed.rejected("keygen", fields, **thief) == invalid
        owner = signature(fields, reopens=failed["event_id"]) | {"Initiator-Reopen": failed["event_id"]}
        await server.submit("keygen", fields, **owner)
        await server.until("keygen", fields["wallet_id"], "published")


async def test_what_is_signed_must_expire(governed: Governed) -> None:
    governed.write([KEYGEN], clients=keys_of("alice"))
    async with running(governed.app()):
        fields = {"wallet_id": name("w")}
        assert await governed.rejected("keygen", fields, **signature(fields)) == ("MISSING_FIELD", "expires_at")


async def test_a_signature_without_keys_to_hold_it_against_is_refused(own_server: Bench) -> None:
    server = own_server
    async with running(App(settings_for(server.url), source(ScriptedSigner()))):
        fields = soon(wallet_id=name("w"))
        event = await server.rejection(await server.submit("keygen", fields, **signature(fields)))
    assert event["code"] == "REQUESTER_SIGNATURE_INVALID"
