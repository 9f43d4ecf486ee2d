"""Nothing lost, nothing twice, when the daemon is stopped or killed in the middle of its work."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from typing import Any

import nats
import nats.errors
import pytest

from initiator.dev import accounts
from initiator.dev.requester import Requester
from initiator.dev.servers import NatsHost, NatsProcess, free_port
from initiator.dev.stack import Stack, StackOptions
from tests.support.nats_container import NatsContainer, in_ci, no_engine

REQUESTS = 200


@pytest.fixture
def nats_host() -> NatsHost:
    """In a container where an engine runs, else as a process; not both, since these scenarios take long."""
    reason = no_engine()
    assert not (reason and in_ci()), reason
    return NatsProcess() if reason else NatsContainer()


@pytest.fixture
def options() -> StackOptions:
    settings = {
        "worker": {"ack_wait_s": 3, "heartbeat_s": 1, "drain_timeout_s": 5},
        "mpcium": {"keygen": {"in_flight": 50}},
    }
    return StackOptions(kms="local", node_delay_s=0.05, settings=settings)


async def completed(client: Requester, count: int) -> None:
    async with asyncio.timeout(60):
        while len({seen.id for seen in client.seen if seen.state == "completed"}) < count:
            await asyncio.sleep(0.02)


async def submit_all(client: Requester) -> None:
    for number in range(REQUESTS):
        await client.submit("keygen", {"wallet_id": f"w{number}"})


async def assert_nothing_lost_or_twice(stack: Stack, client: Requester) -> None:
    finals = Counter((seen.id, seen.state) for seen in client.seen if seen.state in ("completed", "failed", "rejected"))
    assert finals == Counter({(f"w{number}", "completed"): 1 for number in range(REQUESTS)})
    await assert_one_event_each(stack)


async def assert_one_event_each(stack: Stack) -> None:
    nodes = await nats.connect(stack.nats_url, user=accounts.NODES, password=stack.password(accounts.NODES))
    try:
        info = await nodes.jetstream().stream_info("mpc-keygen")
        assert info.state.messages == REQUESTS  # one signed event for each id, not one more
    finally:
        await nodes.close()


async def test_sigterm_in_the_middle_of_200_requests_loses_none(stack: Stack, alice: Requester) -> None:
    await submit_all(alice)
    await completed(alice, 20)
    assert await stack.stop_daemon() == 0
    assert len({seen.id for seen in alice.seen if seen.state == "completed"}) < REQUESTS
    await stack.start_daemon()
    await completed(alice, REQUESTS)
    await assert_nothing_lost_or_twice(stack, alice)


async def test_kill_9_in_the_middle_of_200_requests_loses_none_and_repeats_none(stack: Stack, alice: Requester) -> None:
    await submit_all(alice)
    for threshold in (20, 80):
        await completed(alice, threshold)
        assert stack.daemon is not None
        stack.daemon.send_signal(signal.SIGKILL)
        await stack.daemon.wait()
        await stack.start_daemon()
    await completed(alice, REQUESTS)
    await assert_nothing_lost_or_twice(stack, alice)


async def test_sighup_takes_a_client_away_and_brings_it_back(stack: Stack, alice: Requester, bob: Requester) -> None:
    """As an operator does it: the file is edited, the process is told."""
    config = json.loads(stack.config_path.read_text())

    async def reload(clients: dict[str, object], word: str) -> None:
        before = stack.daemon_log().count(word)
        stack.config_path.write_text(json.dumps(config | {"clients": clients}))
        assert stack.daemon is not None
        stack.daemon.send_signal(signal.SIGHUP)
        async with asyncio.timeout(10):
            while stack.daemon_log().count(word) == before:
                await asyncio.sleep(0.02)

    await reload({"alice": {}}, "config.reloaded")
    with pytest.raises(nats.errors.NoRespondersError):
        await bob.submit("keygen", {"wallet_id": "bobs"})
    await reload({"alice": {}, "bob": {"weight": 0}}, "config.reload_refused")
    with pytest.raises(nats.errors.NoRespondersError):
        await bob.submit("keygen", {"wallet_id": "bobs"})
    await reload({"alice": {}, "bob": {"weight": 2}}, "config.reloaded")
    await bob.submit("keygen", {"wallet_id": "bobs"})
    await completed(bob, 1)
    await alice.submit("keygen", {"wallet_id": "alices"})
    await completed(alice, 1)


async def test_a_second_signal_aborts_at_once(stack: Stack, alice: Requester) -> None:
    await submit_all(alice)
    daemon = stack.daemon
    assert daemon is not None
    daemon.send_signal(signal.SIGTERM)
    async with asyncio.timeout(5):
        while "daemon.stop_requested" not in stack.daemon_log():
            await asyncio.sleep(0.01)
    daemon.send_signal(signal.SIGTERM)
    async with asyncio.timeout(2):
        assert await daemon.wait() == 1
    assert "daemon.aborted" in stack.daemon_log()
    await stack.start_daemon()
    await completed(alice, REQUESTS)
    await assert_nothing_lost_or_twice(stack, alice)


async def test_a_frozen_replica_that_awakes_publishes_nothing_again(stack: Stack, alice: Requester) -> None:
    await submit_all(alice)
    await completed(alice, 20)
    frozen = stack.daemon
    assert frozen is not None
    frozen.send_signal(signal.SIGSTOP)
    try:
        await stack.start_daemon("--set", f"http.port={free_port()}")
        await completed(alice, REQUESTS)
    finally:
        frozen.send_signal(signal.SIGCONT)
    await asyncio.sleep(1)  # time for it to do what it must not
    frozen.send_signal(signal.SIGTERM)
    assert await frozen.wait() == 0
    await assert_nothing_lost_or_twice(stack, alice)


@pytest.mark.timeout(260)
async def test_kill_9_of_nats_in_the_middle_of_200_requests_loses_none_and_repeats_none(
    stack: Stack, alice: Requester, nats_host: NatsHost
) -> None:
    if not isinstance(nats_host, NatsContainer):
        pytest.skip("a killed process leaves no server to come back: integration/bus restarts one")
    await submit_all(alice)
    await completed(alice, 40)
    await nats_host.kill_and_restart()
    await eventually_completed(alice)
    await assert_one_event_each(stack)


async def eventually_completed(client: Requester) -> None:
    """Asked, not listened for: what was announced while nobody was connected is not announced again.

    What a killed server had handed out comes again after an ack wait of half a minute, or after two of them.
    """
    pending: dict[str, dict[str, Any]] = {f"w{number}": {} for number in range(REQUESTS)}
    try:
        async with asyncio.timeout(180):
            while pending:
                for wallet in sorted(pending):
                    answer = await client.query("status", {"op": "keygen", "id": wallet})
                    pending[wallet] = answer["event"] or {}
                    if pending[wallet].get("state") == "completed":
                        del pending[wallet]
                await asyncio.sleep(0.05)
    except TimeoutError:
        words = ("state", "code", "reason", "node_code")
        left = {wallet: [event.get(word) for word in words] for wallet, event in pending.items()}
        raise AssertionError(f"not completed: {left}") from None
