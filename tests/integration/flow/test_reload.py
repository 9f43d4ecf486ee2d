"""Clients come, go and change while requests are under way; what is wrong changes nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from nats.js.errors import NoStreamResponseError
from structlog.testing import capture_logs

from initiator.app import App
from initiator.config.schema import Settings
from initiator.core.signer import Signer
from initiator.errors import Code, HaltError
from tests.support.harness import Bench, ScriptedSigner, bench, running, settings_for

CLIENTS: dict[str, Any] = {"alice": {}, "bob": {}}


@pytest_asyncio.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("reload")) as ready:
        yield ready


class Reloading:
    """A daemon, and the configuration that it reads at its next SIGHUP."""

    def __init__(self, server: Bench, **worker: int) -> None:
        self._server = server
        self._worker = {"lookahead": 1} | worker
        self.signer = ScriptedSigner()
        self.next: Settings | Exception = self.with_clients(CLIENTS)
        self.app = App(self.with_clients(CLIENTS), self._connect, self._load)

    async def _connect(self, _settings: Settings) -> Signer:
        return self.signer

    def with_clients(self, clients: dict[str, Any], **changes: Any) -> Settings:
        settings = settings_for(self._server.url, **{"worker": self._worker} | changes)
        return Settings.model_validate(settings.model_dump() | {"clients": clients})

    def _load(self) -> Settings:
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    async def reload(self, new: Settings | Exception) -> dict[str, Any]:
        """What the log says of it."""
        self.next = new
        with capture_logs() as logs:
            self.app.reload()
            async with asyncio.timeout(10):
                while True:
                    for line in logs:
                        if line["event"] in ("config.reloaded", "config.reload_refused"):
                            return dict(line)
                    await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def daemon(server: Bench) -> AsyncIterator[Reloading]:
    one = Reloading(server)
    async with running(one.app):
        yield one


async def complete(server: Bench, wallet: str) -> dict[str, Any]:
    await server.until("keygen", wallet, "published")
    await server.answer("keygen", wallet, server.keygen_success(wallet))
    return await server.until("keygen", wallet, "completed")


def wallet_id() -> str:
    return f"w{secrets.token_hex(6)}"


async def test_a_new_client_is_served_without_a_restart(server: Bench, daemon: Reloading) -> None:
    with pytest.raises(NoStreamResponseError):
        await server.submit("keygen", {"wallet_id": wallet_id()}, client="carol")
    said = await daemon.reload(daemon.with_clients(CLIENTS | {"carol": {"weight": 3}}))
    assert (said["added"], said["removed"], said["changed"]) == (["carol"], [], [])
    wallet = wallet_id()
    await server.submit("keygen", {"wallet_id": wallet}, client="carol")
    assert (await complete(server, wallet))["client"] == "carol"


async def test_a_client_that_leaves_keeps_what_it_has_begun_and_begins_nothing(
    server: Bench, daemon: Reloading
) -> None:
    begun = wallet_id()
    await server.submit("keygen", {"wallet_id": begun}, client="bob")
    await server.until("keygen", begun, "published")
    said = await daemon.reload(daemon.with_clients({"alice": {}}))
    assert said["removed"] == ["bob"]
    # its subject stays as long as a request of it is unfinished; what comes on it is refused, not lost
    sequence = await server.submit("keygen", {"wallet_id": wallet_id()}, client="bob")
    assert (await server.rejection(sequence, client="bob"))["code"] == "POLICY_DENIED"
    await complete(server, begun)
    assert await server.all_acked()
    await daemon.reload(daemon.with_clients({"alice": {}}))
    with pytest.raises(NoStreamResponseError):
        await server.submit("keygen", {"wallet_id": wallet_id()}, client="bob")
    wallet = wallet_id()
    await server.submit("keygen", {"wallet_id": wallet})
    await complete(server, wallet)


async def test_a_client_that_comes_back_is_served_again(server: Bench, daemon: Reloading) -> None:
    await daemon.reload(daemon.with_clients({"alice": {}}))
    await daemon.reload(daemon.with_clients(CLIENTS))
    wallet = wallet_id()
    await server.submit("keygen", {"wallet_id": wallet}, client="bob")
    await complete(server, wallet)


async def test_what_a_client_may_ask_for_changes(server: Bench, daemon: Reloading) -> None:
    said = await daemon.reload(daemon.with_clients({"alice": {"operations": ["sign"]}, "bob": {"weight": 5}}))
    assert (said["added"], said["removed"], said["changed"]) == ([], [], ["alice", "bob"])
    with pytest.raises(NoStreamResponseError):
        await server.submit("keygen", {"wallet_id": wallet_id()})


@pytest.mark.parametrize("section", ["worker", "mpcium"])
async def test_what_needs_a_restart_is_refused_as_a_whole(server: Bench, daemon: Reloading, section: str) -> None:
    change = {"worker": {"lookahead": 7}, "mpcium": {"sign": {"in_flight": 3}}}[section]
    said = await daemon.reload(daemon.with_clients(CLIENTS | {"carol": {}}, **{section: change}))
    assert (said["event"], said["field"]) == ("config.reload_refused", section)
    assert f"not {section}" in said["reason"]
    assert "restart the replicas" in said["hint"]
    with pytest.raises(NoStreamResponseError):
        await server.submit("keygen", {"wallet_id": wallet_id()}, client="carol")


async def test_a_wrong_configuration_is_told_and_changes_nothing(server: Bench, daemon: Reloading) -> None:
    said = await daemon.reload(HaltError(Code.CONFIG_INVALID, "expected a mapping", field="clients", hint="look"))
    assert (said["event"], said["code"], said["field"]) == ("config.reload_refused", "CONFIG_INVALID", "clients")
    wallet = wallet_id()
    await server.submit("keygen", {"wallet_id": wallet}, client="bob")
    await complete(server, wallet)
    reloads = daemon.app.metrics.reloads
    assert reloads.labels("refused")._value.get() == 1


async def test_what_waits_for_its_turn_when_its_client_leaves_is_refused(server: Bench, daemon: Reloading) -> None:
    daemon.signer.script.extend([1.0] * 4)
    wallets = [wallet_id() for _ in range(4)]
    sequences = [await server.submit("keygen", {"wallet_id": wallet}, client="bob") for wallet in wallets]
    await server.until("keygen", wallets[0], "accepted")
    await daemon.reload(daemon.with_clients({"alice": {}}))
    for sequence in sequences[1:]:
        assert (await server.rejection(sequence, client="bob"))["code"] == "POLICY_DENIED"
    await server.until("keygen", wallets[0], "published", "failed")
    assert [server.states("keygen", wallet) for wallet in wallets[1:]] == [["rejected"]] * 3
    assert daemon.signer.calls == 1


async def test_an_error_that_nobody_foresaw_does_not_end_reloading(server: Bench, daemon: Reloading) -> None:
    said = await daemon.reload(TypeError("odd"))
    assert (said["event"], said["reason"]) == ("config.reload_refused", "it cannot be read: TypeError")
    assert (await daemon.reload(daemon.with_clients(CLIENTS | {"carol": {}})))["added"] == ["carol"]


async def test_a_client_that_came_while_all_hands_were_full_is_served_when_they_are_not(server: Bench) -> None:
    daemon = Reloading(server, max_held=2, prefetch_per_client=2)
    async with running(daemon.app):
        first = [wallet_id(), wallet_id()]
        for wallet in first:
            await server.submit("keygen", {"wallet_id": wallet})
            await server.until("keygen", wallet, "published")
        await daemon.reload(daemon.with_clients(CLIENTS | {"carol": {}}))
        carols = wallet_id()
        await server.submit("keygen", {"wallet_id": carols}, client="carol")
        for wallet in first:
            await complete(server, wallet)
        await complete(server, carols)


async def test_requests_go_on_through_a_storm_of_reloads(server: Bench, daemon: Reloading) -> None:
    wallets = [wallet_id() for _ in range(60)]

    async def ask() -> None:
        for number, wallet in enumerate(wallets):
            await server.submit("keygen", {"wallet_id": wallet}, client=("alice", "bob")[number % 2])
            await asyncio.sleep(0.02)

    async def storm() -> None:
        for number in range(10):
            carol: dict[str, Any] = {"carol": {}} if number % 2 else {}
            await daemon.reload(daemon.with_clients(CLIENTS | carol | {"bob": {"weight": number + 1}}))

    await asyncio.gather(ask(), storm())
    for wallet in wallets:
        await complete(server, wallet)
    assert await server.all_acked()
    assert (await server.dead("initiator.dead.")) == []
