"""One connection through everything that can happen to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from initiator.bus.connection import Connection, Message, NoRespondersError
from initiator.config.schema import NatsSettings
from initiator.errors import Code, HaltError, RetryError
from tests.support.nats_restart import RestartableServer, restartable_server

LIMITS = "max_payload: 4096"
USERS = """
authorization { users: [
  { user: all, password: right }
  { user: some, password: right, permissions: {
      publish: ["allowed", "allowed.silent"], subscribe: ["_INBOX_initiator.>", "allowed.silent"] } }
  { user: deaf, password: right, permissions: { publish: ["allowed"], subscribe: ["_INBOX_other.>"] } }
] }
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RestartableServer]:
    async with restartable_server(tmp_path, LIMITS) as running:
        yield running


def settings(url: str, **changes: object) -> NatsSettings:
    return NatsSettings.model_validate({"servers": [url], "request_timeout_s": 0.5, "connect_timeout_s": 0.5} | changes)


@pytest.fixture
async def connection(server: RestartableServer) -> AsyncIterator[Connection]:
    opened = Connection(settings(server.url), "test")
    await opened.open()
    yield opened
    await opened.close()


async def until(condition: object, timeout_s: float = 10.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


# --- coming about


async def test_no_server_is_told_soon_and_a_later_try_works(server: RestartableServer) -> None:
    await server.kill()
    states: list[bool] = []
    connection = Connection(settings(server.url), "test", lambda up, _reason: states.append(up))
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(RetryError) as error:
            await connection.open()
        assert error.value.code is Code.BUS_UNAVAILABLE
        assert server.url in error.value.reason
        assert time.monotonic() - started < 3
    await server.start()
    await connection.open()
    assert (connection.connected, states) == (True, [True])
    await connection.close()


async def test_closing_what_never_opened_is_harmless(server: RestartableServer) -> None:
    await Connection(settings(server.url), "test").close()
    connection = Connection(settings("nats://127.0.0.1:1"), "test")
    with pytest.raises(RetryError):
        await connection.open()
    await connection.close()


async def test_the_second_server_is_tried_when_the_first_is_away(server: RestartableServer) -> None:
    connection = Connection(settings("", servers=["nats://127.0.0.1:1", server.url]), "test")
    await connection.open()
    assert connection.connected
    await connection.close()


async def test_a_refused_login_is_told_at_once_and_names_no_password(tmp_path: Path) -> None:
    async with restartable_server(tmp_path, USERS) as server:
        url = server.url.replace("nats://", "nats://all:wrong@")
        for wrong in (settings(server.url, user="all", password="wrong"), settings(server.url), settings(url)):
            with pytest.raises(HaltError) as error:
                await Connection(wrong, "test").open()
            assert error.value.code is Code.BUS_DENIED
            assert "wrong" not in str(error.value)
        right = Connection(settings(server.url, user="all", password="right"), "test")
        await right.open()
        await right.close()


async def test_a_credentials_file_that_is_missing_is_named(server: RestartableServer) -> None:
    for name in ("creds_file", "nkey_seed_file"):
        with pytest.raises(HaltError) as error:
            await Connection(settings(server.url, **{name: "/nowhere"}), "test").open()
        assert (error.value.code, error.value.field) == (Code.CONFIG_INVALID, "/nowhere")


# --- talking


async def test_a_request_is_answered_and_many_at_once_get_their_own(connection: Connection) -> None:
    async def echo(message: Message) -> None:
        await connection.publish(message.reply, message.data)

    await connection.subscribe("echo", echo)
    answers = await asyncio.gather(*(connection.request("echo", str(number).encode()) for number in range(200)))
    assert [int(answer.data) for answer in answers] == list(range(200))


async def test_nobody_listening_is_told_at_once(connection: Connection) -> None:
    started = time.monotonic()
    with pytest.raises(NoRespondersError) as error:
        await connection.request("nobody", b"")
    assert not error.value.maybe_done
    assert time.monotonic() - started < 1.5


async def test_silence_is_an_unknown_outcome(connection: Connection) -> None:
    async def silent(_message: Message) -> None:
        return

    await connection.subscribe("silent", silent)
    with pytest.raises(RetryError) as error:
        await connection.request("silent", b"")
    assert (error.value.code, error.value.maybe_done) == (Code.BUS_UNAVAILABLE, True)


async def test_what_is_too_large_is_refused_here_and_the_connection_stays(connection: Connection) -> None:
    with pytest.raises(HaltError) as error:
        await connection.publish("subject", b"x" * 5000)
    assert error.value.code is Code.TOO_LARGE
    with pytest.raises(NoRespondersError):
        await connection.request("nobody", b"")
    assert connection.connected


async def test_headers_count_too_and_the_server_never_gets_to_end_the_connection(connection: Connection) -> None:
    limit = connection.max_payload_bytes
    for headers in ({"Content-Type": "application/json"}, {f"H{number}": "x" * 50 for number in range(20)}):
        with pytest.raises(HaltError) as error:
            await connection.publish("subject", b"x" * (limit - 10), headers)
        assert error.value.code is Code.TOO_LARGE
        size = len(b"NATS/1.0\r\n\r\n") + sum(len(name) + len(value) + 4 for name, value in headers.items())
        with pytest.raises(NoRespondersError):  # the largest that the server takes
            await connection.request("nobody", b"x" * (limit - size), headers)
    assert connection.connected


async def test_a_handler_that_raises_does_not_end_the_next_message(connection: Connection) -> None:
    heard: list[bytes] = []

    async def handler(message: Message) -> None:
        heard.append(message.data)
        raise ValueError("unforeseen")

    await connection.subscribe("subject", handler)
    for data in (b"1", b"2"):
        await connection.publish("subject", data)
    await until(lambda: heard == [b"1", b"2"])
    assert connection.connected


async def say_nothing(_message: Message) -> None:
    pass


async def test_a_denied_publish_is_told_and_its_outcome_unknown_and_the_connection_stays(tmp_path: Path) -> None:
    async with restartable_server(tmp_path, USERS) as server:
        connection = Connection(settings(server.url, user="some", password="right"), "test")
        await connection.open()
        await connection.subscribe("allowed.silent", say_nothing)
        silent = asyncio.create_task(connection.request("allowed.silent", b"", timeout_s=100.0))
        with pytest.raises(RetryError, match=r'permissions violation for publish to "For\.Bidden"') as error:
            await connection.request("For.Bidden", b"", timeout_s=100.0)
        assert (error.value.code, error.value.maybe_done) == (Code.BUS_DENIED, True)
        with pytest.raises(NoRespondersError):
            await connection.request("allowed", b"")
        assert not silent.done()
        silent.cancel()
        await connection.close()


async def test_a_login_that_may_hear_no_answer_is_told_so_at_once(tmp_path: Path) -> None:
    async with restartable_server(tmp_path, USERS) as server:
        connection = Connection(settings(server.url, user="deaf", password="right"), "test")
        with pytest.raises(HaltError, match="permissions violation for subscription") as error:
            await connection.open()
        assert error.value.code is Code.BUS_DENIED
        await connection.close()


# --- a server that goes and comes back


async def test_a_killed_server_is_told_and_its_return_too(server: RestartableServer) -> None:
    states: list[bool] = []
    returned = asyncio.Event()
    connection = Connection(settings(server.url), "test", lambda up, _reason: states.append(up))
    await connection.open()
    connection.on_return(returned.set)
    waiting = asyncio.create_task(_unanswered(connection))
    await asyncio.sleep(0.1)
    await server.kill()
    error = await waiting
    assert error.maybe_done  # it may have been heard before the end
    await until(lambda: states == [True, False])
    with pytest.raises(RetryError) as refused:
        await connection.publish("subject", b"ghost")
    assert not refused.value.maybe_done
    await server.start()
    async with asyncio.timeout(10):
        await returned.wait()
    assert (connection.connected, states) == (True, [True, False, True])
    with pytest.raises(NoRespondersError):
        await connection.request("nobody", b"")
    await connection.close()
    assert connection.closed.is_set()


async def test_a_long_absence_is_told_once_and_waited_for(server: RestartableServer) -> None:
    connection = Connection(settings(server.url), "test")
    await connection.open()
    await connection.until_connected()
    with capture_logs() as logs:
        await server.kill()
        await until(lambda: not connection.connected)
        waiting = asyncio.create_task(connection.until_connected())
        await asyncio.sleep(2.5)  # ten attempts
        assert not waiting.done()
        said = [line["event"] for line in logs]
        assert said.count("bus.connection_lost") == 1
        assert said.count("bus.error_reported") <= 2, logs
        await server.start()
        async with asyncio.timeout(10):
            await waiting
    assert connection.connected
    assert [line["event"] for line in logs][-1] == "bus.connection_restored"
    await connection.close()


async def _unanswered(connection: Connection) -> RetryError:
    async def silent(_message: Message) -> None:
        return

    await connection.subscribe("silent", silent)
    with pytest.raises(RetryError) as error:
        await connection.request("silent", b"", timeout_s=20)
    return error.value


async def test_what_was_refused_while_away_is_never_sent_later(server: RestartableServer) -> None:
    """A ghost: published by the library after the reconnect, when its caller has long given up."""
    connection = Connection(settings(server.url), "test")
    await connection.open()
    await server.kill()
    await until(lambda: not connection.connected)
    with pytest.raises(RetryError):
        await connection.publish("subject", b"ghost")
    await server.start()
    heard: list[bytes] = []

    async def handler(message: Message) -> None:
        heard.append(message.data)

    await until(lambda: connection.connected)
    await connection.subscribe("subject", handler)
    await connection.publish("subject", b"after")
    await until(lambda: bool(heard))
    assert heard == [b"after"]
    await connection.close()
