"""The policy in a running daemon: refusals, owners, limits over replicas, signatures, and changes in mid-flight."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from initiator.app import App
from tests.support.governed import KEYGEN, Governed, keys_of, name, signature, soon
from tests.support.harness import Bench, running, settings_for, sign_request, source

# --- refusals


async def test_what_no_rule_allows_is_refused_with_the_rule_that_came_nearest(governed: Governed) -> None:
    governed.write([KEYGEN | {"wallets": ["pay-*"]}])
    async with running(governed.app()):
        assert await governed.rejected("keygen", {"wallet_id": name("w")}) == ("POLICY_DENIED", "policy.rules.keygen")
        assert await governed.rejected("sign", sign_request("w")) == ("POLICY_DENIED", "policy.rules.default")
        wallet = name("pay-")
        await governed.server.submit("keygen", {"wallet_id": wallet})
        await governed.server.until("keygen", wallet, "published")
    assert governed.signer.calls == 1


async def test_a_signature_says_by_which_rule_of_which_version(governed: Governed) -> None:
    version = governed.write([KEYGEN])
    async with running(governed.app()):
        wallet = name("w")
        await governed.server.submit("keygen", {"wallet_id": wallet})
        await governed.server.until("keygen", wallet, "published")
    assert (await governed.sealed("keygen", wallet))["policy"] == {"version": version, "rule": "keygen"}


async def test_a_refusal_is_counted_by_its_rule(governed: Governed) -> None:
    governed.write([KEYGEN, {"id": "no-x", "effect": "deny", "wallets": ["x*"]}])
    async with running(governed.app()) as app:
        assert await governed.rejected("keygen", {"wallet_id": name("x")}) == ("POLICY_DENIED", "policy.rules.no-x")
        value = app.metrics.registry.get_sample_value
        async with asyncio.timeout(10):
            while value("initiator_policy_refusals_total", {"rule": "rules.no-x"}) != 1:
                await asyncio.sleep(0.02)


# --- owners


async def test_a_wallet_is_its_makers_alone(governed: Governed) -> None:
    governed.write([KEYGEN, {"id": "own", "effect": "allow", "owners": ["{client}"]}])
    server = governed.server
    async with running(governed.app()):
        wallet = name("w")
        await server.wallet(wallet)
        assert await governed.rejected("sign", sign_request(wallet), "bob") == ("POLICY_DENIED", "policy.rules.own")
        assert await governed.rejected("sign", sign_request(name("none"))) == ("POLICY_DENIED", "policy.rules.own")
        asked = sign_request(wallet)
        await server.submit("sign", asked)
        await server.until("sign", asked["tx_id"], "published")


async def test_the_operator_says_whose_a_wallet_made_before_is(governed: Governed, tmp_path: Path) -> None:
    governed.write([{"id": "own", "effect": "allow", "owners": ["{client}"]}])
    server = governed.server
    mine, nobodys = name("w"), name("w")
    lines = [server.keygen_success(mine) | {"client": "alice"}, server.keygen_success(nobodys)]
    file = tmp_path / "wallets.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    async with running(governed.app(mpcium={"wallets_file": str(file)})):
        asked = sign_request(mine)
        await server.submit("sign", asked)
        await server.until("sign", asked["tx_id"], "published")
        for wallet, client in ((mine, "bob"), (nobodys, "alice")):
            assert await governed.rejected("sign", sign_request(wallet), client) == (
                "POLICY_DENIED",
                "policy.rules.own",
            )


# --- limits


async def test_a_quota_holds_over_two_replicas_and_their_restarts(governed: Governed) -> None:
    limit = {"id": "daily", "most": 7, "period": "day", "operations": ["keygen"]}
    governed.write([KEYGEN], limits=[limit])
    server, wallets = governed.server, [name("w") for _ in range(20)]
    async with running(governed.app()), running(governed.app()):
        sequences = await asyncio.gather(*(server.submit("keygen", {"wallet_id": wallet}) for wallet in wallets[:12]))
        refused = await _refused_of(server, sequences, 12 - 7)
    async with running(governed.app()):
        sequences = await asyncio.gather(*(server.submit("keygen", {"wallet_id": wallet}) for wallet in wallets[12:]))
        refused += await _refused_of(server, sequences, 8)
        # another client has a count of its own
        await server.submit("keygen", {"wallet_id": (other := name("w"))}, "bob")
        await server.until("keygen", other, "published")
    assert {(event["code"], event["field"]) for event in refused} == {("QUOTA_EXCEEDED", "policy.limits.daily")}
    assert governed.signer.calls == 7 + 1


async def _refused_of(server: Bench, sequences: list[int], expected: int) -> list[dict[str, Any]]:
    def found() -> list[dict[str, Any]]:
        return [event for event in server.seen if event["state"] == "rejected" and event["request_seq"] in sequences]

    async with asyncio.timeout(10):
        while len(found()) < expected:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)  # none too many comes either
    assert len(found()) == expected
    return found()


async def test_a_repeated_request_joins_although_no_place_is_left(governed: Governed) -> None:
    governed.write([KEYGEN], limits=[{"id": "one", "most": 1, "period": "day"}])
    server, wallet = governed.server, name("w")
    async with running(governed.app()):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        await server.submit("keygen", {"wallet_id": wallet})
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet, "completed")
        assert await server.all_acked()
        assert await governed.rejected("keygen", {"wallet_id": name("w")}) == ("QUOTA_EXCEEDED", "policy.limits.one")


async def test_a_request_that_is_refused_otherwise_takes_no_place(governed: Governed) -> None:
    governed.write([KEYGEN | {"wallets": ["pay-*"]}], limits=[{"id": "one", "most": 1, "period": "day"}])
    server = governed.server
    async with running(governed.app()):
        for fields in ({"wallet_id": name("w")}, {"wallet_id": "a b"}, {"wallet_id": name("pay-"), "extra": 1}):
            await governed.rejected("keygen", fields)
        wallet = name("pay-")
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")


# --- changes


async def reloaded(app: App, act: Callable[[], Any], event: str = "policy.reloaded") -> dict[str, Any]:
    with capture_logs() as logs:
        act()
        async with asyncio.timeout(10):
            while True:
                for line in logs:
                    if line["event"] == event:
                        return dict(line)
                await asyncio.sleep(0.01)


async def test_a_changed_file_is_in_force_at_once(governed: Governed) -> None:
    before = governed.write([KEYGEN])
    async with running(governed.app()) as app:
        told = await reloaded(app, lambda: governed.write([]))
        assert (told["before"], told["rules"]) == (before, 0)
        assert await governed.rejected("keygen", {"wallet_id": name("w")}) == ("POLICY_DENIED", "policy.rules.default")
        await reloaded(app, lambda: governed.write([KEYGEN]))
        wallet = name("w")
        await governed.server.submit("keygen", {"wallet_id": wallet})
        await governed.server.until("keygen", wallet, "published")


async def test_a_bad_file_is_refused_once_and_the_old_policy_stays(governed: Governed) -> None:
    version = governed.write([KEYGEN])
    async with running(governed.app()) as app:
        with capture_logs() as logs:
            governed.path.write_text("version: 1\nrules: [{id: a, effect: maybe}]")
            async with asyncio.timeout(10):
                while not any(part.note for part in app.health.snapshot() if part.name == "policy"):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
        refusals = [line for line in logs if line["event"] == "policy.reload_refused"]
        assert len(refusals) == 1
        assert (refusals[0]["code"], refusals[0]["version"]) == ("POLICY_INVALID", version)
        assert "rules.0 (a).effect" in refusals[0]["reason"]
        assert app.health.ready
        wallet = name("w")
        await governed.server.submit("keygen", {"wallet_id": wallet})
        await governed.server.until("keygen", wallet, "published")
        governed.write([KEYGEN])  # what is in force again: the note goes
        async with asyncio.timeout(10):
            while any(part.note for part in app.health.snapshot()):
                await asyncio.sleep(0.01)


async def test_a_file_that_goes_away_leaves_the_policy_in_force(governed: Governed) -> None:
    governed.write([KEYGEN])
    async with running(governed.app()) as app:
        told = await reloaded(app, governed.path.unlink, "policy.reload_refused")
        assert "No such file" in told["reason"]
        wallet = name("w")
        await governed.server.submit("keygen", {"wallet_id": wallet})
        await governed.server.until("keygen", wallet, "published")


async def test_sighup_reads_it_without_a_second_look(governed: Governed) -> None:
    governed.write([KEYGEN])
    app = App(
        settings_for(governed.server.url, policy={"file": str(governed.path), "watch_s": 3600}), source(governed.signer)
    )
    async with running(app):
        governed.write([])
        told = await reloaded(app, app.reload)
        assert told["rules"] == 0


async def test_rules_that_change_while_kms_is_slow_stop_what_they_deny(governed: Governed) -> None:
    """Nothing that the rules deny leaves us, however long its signature took."""
    governed.write([KEYGEN])
    governed.signer.script = [1.0]
    server, wallet = governed.server, name("w")
    async with running(governed.app()) as app:
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "accepted")
        async with asyncio.timeout(5):
            while governed.signer.calls == 0:
                await asyncio.sleep(0.01)
        await reloaded(app, lambda: governed.write([{"id": "stop", "effect": "deny"}, KEYGEN]))
        event = await server.until("keygen", wallet)
        assert (event["code"], event["outcome"], event["field"]) == ("POLICY_DENIED", "none", "policy.rules.stop")
        assert await server.all_acked()
    assert await server.published("keygen") == 0


async def test_a_key_that_is_withdrawn_while_kms_is_slow_signs_nothing_more(governed: Governed) -> None:
    governed.write([KEYGEN | {"signed": True}], clients=keys_of("alice"))
    governed.signer.script = [1.0]
    server, fields = governed.server, soon(wallet_id=name("w"))
    async with running(governed.app()) as app:
        await server.submit("keygen", fields, **signature(fields))
        await server.until("keygen", fields["wallet_id"], "accepted")
        await reloaded(app, lambda: governed.write([KEYGEN | {"signed": True}]))
        event = await server.until("keygen", fields["wallet_id"])
        assert (event["code"], event["outcome"]) == ("REQUESTER_SIGNATURE_INVALID", "none")


async def test_what_is_recorded_goes_on_whatever_the_rules_say_now(governed: Governed) -> None:
    governed.write([KEYGEN])
    server, wallet = governed.server, name("w")
    async with running(governed.app()) as app:
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        await reloaded(app, lambda: governed.write([]))
        await server.submit("keygen", {"wallet_id": wallet})  # a repeat joins, too
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet, "completed")
        assert await server.all_acked()
