"""The guard of `conftest.py` holds: no test of this tree can reach a network, and what is local still works."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import Callable

import pytest

from tests.unit.conftest import NetworkUsedError, no_network

NOBODY = ("192.0.2.1", 9)  # RFC 5737: an address that is never given out
SOCKETS: dict[str, Callable[[socket.socket], object]] = {
    "connect": lambda sock: sock.connect(NOBODY),
    "connect_ex": lambda sock: sock.connect_ex(NOBODY),
    "sendto": lambda sock: sock.sendto(b"x", NOBODY),
    "sendto with flags": lambda sock: sock.sendto(b"x", 0, NOBODY),
    "sendmsg": lambda sock: sock.sendmsg([b"x"], [], 0, NOBODY),
}


@pytest.mark.parametrize("call", SOCKETS)
def test_a_socket_to_an_address_is_refused_by_name(call: str, network_off: list[str]) -> None:
    kind = socket.SOCK_DGRAM if call.startswith("send") else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock, pytest.raises(NetworkUsedError) as caught:
        SOCKETS[call](sock)
    expected = f"{call.partition(' ')[0]} {NOBODY!r}"
    assert str(caught.value).startswith(f"unit tests have no network: {expected};")
    assert network_off == [expected]
    network_off.clear()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_is_a_network_too(address: str, network_off: list[str]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock, pytest.raises(NetworkUsedError):
        sock.connect((address, 9))
    network_off.clear()


def test_no_name_is_resolved_and_no_library_gets_through(network_off: list[str]) -> None:
    with pytest.raises(NetworkUsedError, match=r"getaddrinfo 'kms\.example'"):
        http.client.HTTPConnection("kms.example", timeout=1).request("GET", "/")
    network_off.clear()


async def test_an_event_loop_does_not_get_through_either(network_off: list[str]) -> None:
    with pytest.raises(NetworkUsedError, match=r"192\.0\.2\.1"):
        await asyncio.open_connection(*NOBODY)
    network_off.clear()


def test_an_attempt_that_is_swallowed_fails_all_the_same() -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(AssertionError, match="unit tests have no network"),
        no_network(patch),
        contextlib.suppress(Exception),
        socket.socket(socket.AF_INET) as sock,
    ):
        sock.connect(NOBODY)


def test_no_test_has_to_ask_for_it(request: pytest.FixtureRequest) -> None:
    assert "network_off" in request.fixturenames


def test_code_that_retries_on_trouble_of_the_network_does_not_retry_this() -> None:
    assert not issubclass(NetworkUsedError, OSError)


def test_what_stays_inside_the_kernel_works() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"pair")
        assert right.recv(4) == b"pair"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("")  # a name of the kernel's choice, in no folder
        server.listen()
        client.connect(server.getsockname())
