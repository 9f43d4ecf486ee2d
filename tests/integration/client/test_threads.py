"""The client without an event loop: no thread of its user waits for ever."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from initiator.client import ClientError, Event, StillRunningError, SyncInitiatorClient, UnavailableError
from initiator.dev import servers
from initiator.loopthread import LoopClosedError, LoopThread
from initiator.testing import InitiatorStack, run_stack


@pytest.fixture(scope="module")
def stack() -> Iterator[InitiatorStack]:
    with run_stack() as running:
        yield running


def test_who_waits_while_it_is_closed_is_told(stack: InitiatorStack) -> None:
    stack.kill_daemon()
    try:
        with ThreadPoolExecutor(3) as pool:
            with stack.connect() as alice:
                calls: list[Future[Any]] = [
                    pool.submit(alice.keygen, "closed", timeout=60.0),
                    pool.submit(lambda: list(alice.events(follow=True))),
                    pool.submit(alice.status, "keygen", "closed", timeout=60.0),
                ]
                time.sleep(1.0)
            began = time.monotonic()
            errors = [call.exception(timeout=10) for call in calls]
            assert time.monotonic() - began < 5
        assert isinstance(errors[0], StillRunningError)
        assert all(isinstance(error, ClientError) for error in errors)
    finally:
        stack.start_daemon()


def test_a_callback_that_asks_is_told_instead_of_waiting_for_itself(stack: InitiatorStack) -> None:
    with stack.connect() as alice:

        def asks(event: Event) -> None:
            alice.status(event.op, event.id)

        with pytest.raises(UnavailableError, match="wait for itself"):
            alice.keygen("callback", timeout=20.0, progress=asks)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_was_forked_is_told_to_connect_anew(stack: InitiatorStack) -> None:
    with stack.connect() as alice:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                alice.status("keygen", "w1", timeout=2.0)
            except UnavailableError as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as said:
            assert "after the fork" in said.read()
        os.waitpid(child, 0)
        assert alice.status("keygen", "nobody") is None  # the parent's goes on


def test_a_loop_that_was_just_started_runs() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            with LoopThread("test") as loop:
                assert loop.run(_one()) == 1
    finally:
        sys.setswitchinterval(before)
    with pytest.raises(LoopClosedError, match="is closed"):
        loop.run(_one())


async def _one() -> int:
    return 1


def test_what_comes_in_while_it_closes_is_ended_or_refused() -> None:
    for _ in range(50):
        ended: list[BaseException | int] = []

        def call(loop: LoopThread, ended: list[BaseException | int]) -> None:
            try:
                while True:
                    ended.append(loop.run(_one()))
            except LoopClosedError as error:
                ended.append(error)

        with LoopThread("test") as loop:
            threads = [threading.Thread(target=call, args=(loop, ended), daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_a_server_that_is_not_there_is_told_in_time() -> None:
    began = time.monotonic()
    with (
        pytest.raises(UnavailableError, match="is nats-server there"),
        SyncInitiatorClient.connect(f"nats://127.0.0.1:{servers.free_port()}", client="alice", connect_timeout=1.0),
    ):
        pass
    assert time.monotonic() - began < 5
