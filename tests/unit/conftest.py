"""Unit tests have no network: who reaches for it is told so, and the test fails even where the error is swallowed."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

# a busy machine is no failure; how long a test may take is pytest's own limit
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")

_REACHING = ("connect", "connect_ex", "sendto", "sendmsg")
_RESOLVING = ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo")


class NetworkUsedError(RuntimeError):
    """No OSError, which a retry loop would take for a passing trouble."""


_Refuse = Callable[[str, object], NetworkUsedError]


@pytest.fixture(autouse=True)
def network_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The network is off in every unit test; gives the list of what was refused."""
    with no_network(monkeypatch) as refused:
        yield refused


@contextlib.contextmanager
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Refuse name resolution and every socket but those inside the kernel (AF_UNIX, and so socket pairs).

    Gives what was refused; whatever is left in that list at the end is an error.
    """
    refused: list[str] = []

    def refuse(call: str, target: object) -> NetworkUsedError:
        refused.append(f"{call} {target!r}")
        return NetworkUsedError(
            f"unit tests have no network: {call} {target!r}; use a fake, or make this an integration test"
        )

    for name in _REACHING:
        monkeypatch.setattr(socket.socket, name, _guarded(name, getattr(socket.socket, name), refuse))
    for name in _RESOLVING:
        monkeypatch.setattr(socket, name, _closed(name, refuse))
    yield refused
    assert refused == [], "unit tests have no network"


def _guarded(name: str, real: Callable[..., Any], refuse: _Refuse) -> Callable[..., Any]:
    def call(sock: socket.socket, *args: Any) -> Any:
        if sock.family != socket.AF_UNIX:
            address = args[-1] if args and isinstance(args[-1], tuple) else sock.family.name
            raise refuse(name, address)
        return real(sock, *args)

    return call


def _closed(name: str, refuse: _Refuse) -> Callable[..., Any]:
    def call(host: object, *_args: Any, **_options: Any) -> Any:
        raise refuse(name, host)

    return call
