"""What is counted while requests go through: by states, by keys, aside, and waiting."""

from __future__ import annotations

import asyncio
import time

import pytest

from initiator import __version__
from initiator.app import App
from initiator.core.spki import fingerprint
from initiator.flow import census, watchdog
from tests.support.governed import name
from tests.support.harness import Bench, ScriptedSigner, running, settings_for, source


@pytest.fixture
def server(own_server: Bench) -> Bench:
    return own_server


def value(app: App, name: str, **labels: str) -> float:
    return app.metrics.registry.get_sample_value(f"initiator_{name}", labels) or 0.0


async def test_a_wallet_and_a_refusal_leave_their_numbers(server: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_S", 0.05)
    monkeypatch.setattr(census, "LOOK_S", 0.05)
    signer, wallet, before = ScriptedSigner(), name("w"), time.time()
    app = App(settings_for(server.url, mpcium={"keygen": {"in_flight": 2}}), source(signer))
    async with running(app):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "published")
        async with asyncio.timeout(10):
            while not value(app, "oldest_waiting_seconds", operation="keygen"):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert 0.2 < value(app, "oldest_waiting_seconds", operation="keygen") <= time.time() - before
        assert value(app, "oldest_waiting_seconds", operation="sign") == 0
        async with asyncio.timeout(10):
            while not value(app, "requests_in_flight", operation="keygen"):
                await asyncio.sleep(0.02)
        assert [value(app, f"requests_{where}", operation="keygen") for where in ("waiting", "in_flight")] == [1, 1]
        await server.answer("keygen", wallet, server.keygen_success(wallet))
        await server.until("keygen", wallet, "completed")
        await server.rejection(await server.submit("keygen", {"wallet_id": "a b"}))
        async with asyncio.timeout(10):
            while value(app, "oldest_waiting_seconds", operation="keygen"):
                await asyncio.sleep(0.02)
            while value(app, "requests_in_flight", operation="keygen"):
                await asyncio.sleep(0.02)
        for state in ("signed", "published", "completed"):
            assert value(app, "state_seconds_count", operation="keygen", state=state) == 1
        # the nodes were waited for in the last of them
        assert value(app, "state_seconds_sum", operation="keygen", state="completed") > 0.2
        assert value(app, "dead_letters_total", operation="keygen", code="INVALID_FIELD") == 1
        assert value(app, "takeovers_total", operation="keygen") == 0
        assert [value(app, "part_ok", part=part) for part in ("nats", "nodes", "signer", "worker")] == [1, 1, 1, 1]
        assert before <= value(app, "last_signature_timestamp_seconds") <= time.time()
        shown = {"fingerprint": fingerprint(signer.public_key), "algorithm": "p256"}
        assert value(app, "key_info", **shown) == 1
        built = {sample.labels["version"] for m in app.metrics.build_info.collect() for sample in m.samples}
        assert built == {__version__}


async def test_whoever_goes_on_after_another_is_counted(server: Bench) -> None:
    """A holder that went without a word, with the signature still to be made."""
    wallet = name("w")
    first = App(settings_for(server.url), source(ScriptedSigner(60.0)))
    async with running(first):
        await server.submit("keygen", {"wallet_id": wallet})
        await server.until("keygen", wallet, "accepted")
    second = App(settings_for(server.url), source(ScriptedSigner()))
    async with running(second):
        await server.until("keygen", wallet, "published")
        assert value(second, "takeovers_total", operation="keygen") == 1
