"""One NATS connection: login, reconnects for ever, and requests answered through one shared inbox.

Invariants:
- a publish while disconnected fails at once instead of being buffered: a buffered one would go out after the
  reconnect although its caller has long decided that it did not (a ghost);
- callbacks given to nats-py never raise: an exception there would kill its read loop while it still says connected;
- a connection that nats-py has closed for good (JWT expired, payload limit) sets `closed`; the app leaves on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from initiator.bus.waiting import HINT, Waiting, refusal_of
from initiator.config.load import read_secret
from initiator.config.schema import NatsSettings, TlsSettings
from initiator.core.addresses import without_password
from initiator.errors import Code, HaltError, RetryError
from initiator.log import get_logger

log = get_logger()

_NO_RESPONDERS = "503"
_LOST = "connection lost while waiting for an answer"
_RECONNECT_WAIT_S = 0.25
_SAME_AGAIN_S = 60.0
_HEADER_BLOCK = len(b"NATS/1.0\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Message:
    """A received message. `status` is the NATS status code (`503`, `408`, …) of a message without a body."""

    subject: str
    reply: str
    data: bytes
    headers: Mapping[str, str]

    @property
    def status(self) -> str | None:
        return self.headers.get("Status")


class NoRespondersError(RetryError):
    """Nobody listens on that subject: nothing was delivered to anyone."""

    def __init__(self, subject: str) -> None:
        super().__init__(Code.BUS_UNAVAILABLE, f"nobody listens on {subject}", delay_s=1.0)


Handler = Callable[[Message], Awaitable[None]]
StateListener = Callable[[bool, str], None]


class Connection:
    """A live NATS connection that comes back by itself.

    `on_state(connected, reason)` is told of every loss and return.
    """

    def __init__(self, settings: NatsSettings, name: str, on_state: StateListener | None = None) -> None:
        self._settings = settings
        self._name = name
        self._on_state = on_state or (lambda _connected, _reason: None)
        self._client = Client()
        self._opening: _Opening | None = None
        self._opened = False
        self._inbox = self.new_inbox()
        self._waiting = Waiting[Message]()
        self._deaf = False  # the server does not let us hear answers
        self._told: dict[str, float] = {}
        self._back = asyncio.Event()
        self._on_return: list[Callable[[], None]] = []
        self.closed = asyncio.Event()
        self._leaving = False

    async def open(self) -> None:
        """Connect; tries each server once, so that the caller may wait and say why. May be called again.

        Raises:
            RetryError: no server answers.
            HaltError: a credentials file is missing, or the server refuses the login, or its inbox.
        """
        self._deaf = False
        self._client = client = Client()
        self._opening = _Opening(len(self._settings.servers))
        limit_s = (self._settings.connect_timeout_s + _RECONNECT_WAIT_S) * len(self._settings.servers) + 1.0
        connecting = asyncio.ensure_future(client.connect(**self._options()))
        failed = asyncio.ensure_future(self._opening.failed.wait())
        try:
            # nats-py itself would try for ever, as it shall once the connection was there
            await asyncio.wait({connecting, failed}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(0 if not connecting.done() else None):
                await connecting
            await client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
            await self.hear_refusals()
        except (OSError, TimeoutError, nats.errors.Error) as error:
            problem = self._connect_error(self._opening.problem or error)
            await _abandon(client, connecting)
            raise problem from error
        except Exception as error:  # a login that nats-py cannot use is told in many ways, and may be quoted in them
            await _abandon(client, connecting)
            files = self._settings.creds_file or self._settings.nkey_seed_file
            reason = f"no login can be made of the credentials ({type(error).__name__})"
            hint = "expected a .creds file as `nsc` writes it, or the seed of a user's NKey (SU…)"
            raise HaltError(Code.CONFIG_INVALID, reason, field=files, hint=hint) from None
        except BaseException:
            await _abandon(client, connecting)
            raise
        finally:
            failed.cancel()
        if self._deaf:
            await _abandon(client, connecting)
            reason = 'NATS refuses: permissions violation for subscription to "_INBOX_initiator.>"'
            raise HaltError(Code.BUS_DENIED, reason, hint=HINT)
        self._opening, self._opened = None, True
        self._back.set()
        self._on_state(True, "")

    async def hear_refusals(self, timeout_s: int = 10) -> None:
        """Wait until the server has said what it refuses of what was sent. Raises nats.errors.Error or OSError."""
        for _ in range(2):  # nats-py's first PING overtakes what it stands behind; the second one does not
            await self._client.flush(timeout_s)

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "servers": list(settings.servers),
            "name": self._name,
            "connect_timeout": settings.connect_timeout_s,
            "ping_interval": settings.ping_interval_s,
            "max_outstanding_pings": 2,
            "reconnect_time_wait": _RECONNECT_WAIT_S,
            "max_reconnect_attempts": -1,
            "pending_size": -1,
            "inbox_prefix": "_INBOX_initiator",
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "closed_cb": self._on_closed,
        }
        return options | login_options(settings)

    def _connect_error(self, error: Exception) -> RetryError | HaltError:
        text = f"{type(error).__name__}: {error}".strip(": ")
        where = ", ".join(without_password(url) for url in self._settings.servers)
        if _is_refusal(error):
            return HaltError(
                Code.BUS_DENIED, f"{where}: login refused", hint="check user, password or credentials file"
            )
        return RetryError(Code.BUS_UNAVAILABLE, f"{where}: {text or 'no answer'}", delay_s=1.0)

    # --- state

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    async def until_connected(self) -> None:
        """Wait for as long as the connection is away."""
        await self._back.wait()

    def describe(self) -> str:
        """The server that we are connected to, for people."""
        version = self._client.connected_server_version
        url = self._client.connected_url
        host = url.netloc.rpartition("@")[2] if url else "?"
        return f"{host}, nats-server {version.major}.{version.minor}.{version.patch}"

    @property
    def max_payload_bytes(self) -> int:
        return self._client.max_payload

    @property
    def client(self) -> Client:
        """The nats-py client, for what this package does not wrap."""
        return self._client

    async def _on_error(self, error: Exception) -> None:
        if (refusal := refusal_of(error)) is not None:
            self._waiting.refuse(refusal)
            self._deaf = self._deaf or refusal.subject.startswith(self._inbox.lower())
        elif self._opening is not None:
            self._opening.note(error)
            return
        reason, now = _safe_text(error), asyncio.get_running_loop().time()
        if now >= self._told.get(reason, 0.0):  # each failed attempt to reconnect reports the same
            self._told = {text: until for text, until in self._told.items() if until > now}
            self._told[reason] = now + _SAME_AGAIN_S
            log.warning("bus.error_reported", connection=self._name, reason=reason)

    async def _on_disconnected(self) -> None:
        if self._leaving or self._opening is not None:
            return
        log.warning("bus.connection_lost", connection=self._name)
        self._back.clear()
        self._waiting.fail_all(_LOST)
        self._on_state(False, "connection lost; reconnecting")

    async def _on_reconnected(self) -> None:
        log.info("bus.connection_restored", connection=self._name)
        self._told.clear()
        self._back.set()
        self._on_state(True, "")
        for listener in tuple(self._on_return):
            listener()

    async def _on_closed(self) -> None:
        if self._opening is not None:
            return
        self.closed.set()
        if not self._leaving:
            # what the server says as it ends a connection (`user authentication revoked`) is told to nobody else
            reason = _safe_text(self._client.last_error or Exception("the server said nothing"))
            log.error("bus.connection_closed", connection=self._name, reason=reason)
            self._on_state(False, f"connection closed for good: {reason}")

    async def close(self) -> None:
        """Flush what was published and leave."""
        self._leaving = True
        if self._opened and not self._client.is_closed:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._client.flush(), timeout=2)
            await self._client.close()
        self._waiting.fail_all(_LOST)

    def on_return(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every reconnect; returns what takes it back."""
        self._on_return.append(listener)
        return lambda: self._on_return.remove(listener)

    # --- talking

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None, reply: str = "") -> None:
        """Send one message without waiting for anyone.

        Raises:
            RetryError: not connected; nothing was sent.
            HaltError: the message is larger than the server takes.
        """
        self._check_size(subject, data, headers)
        with _translate(subject):
            await self._client.publish(subject, data, reply=reply, headers=headers)

    def _check_size(self, subject: str, data: bytes, headers: dict[str, str] | None) -> None:
        """nats-py counts the payload alone; the server counts headers, too, and ends the connection for good."""
        size = len(data)
        if headers:
            size += _HEADER_BLOCK + sum(len(f"{name}: {value}".encode()) + 2 for name, value in headers.items())
        if self._client.is_connected and size > self._client.max_payload:
            raise HaltError(
                Code.TOO_LARGE, f"{subject}: {size} bytes with headers, the server takes {self._client.max_payload}"
            )

    async def request(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None, timeout_s: float | None = None
    ) -> Message:
        """Send one message and wait for one answer.

        Raises:
            NoRespondersError: nobody listens there.
            RetryError: not connected (`maybe_done` false), or no answer in time (`maybe_done` true); `BUS_DENIED` where
                the server says that this login may not publish there.
        """
        self._check_size(subject, data, headers)
        with self._waiting.one(subject, timeout_s or self._settings.request_timeout_s) as (token, answered):
            with _translate(subject):
                await self._client.publish(subject, data, reply=f"{self._inbox}.{token}", headers=headers)
            answer = await answered
        if answer.status == _NO_RESPONDERS:
            raise NoRespondersError(subject)
        return answer

    async def subscribe(self, subject: str, handler: Handler, queue: str = "") -> Subscription:
        """Call `handler` for each message, one after the other; its exceptions are logged, never raised."""

        async def safely(raw: Msg) -> None:
            try:
                await handler(_message(raw))
            except Exception as error:
                log.exception(
                    "bus.handler_failed", subject=subject, reason=_safe_text(error), error_type=type(error).__name__
                )

        with _translate(subject):
            return await self._client.subscribe(subject, queue=queue, cb=safely)

    def new_inbox(self) -> str:
        """A subject prefix that nobody else uses; take one token more for each answer."""
        return f"_INBOX_initiator.{secrets.token_hex(12)}"

    async def _on_answer(self, raw: Msg) -> None:
        self._waiting.answer(raw.subject.rpartition(".")[2], _message(raw))


class _Opening:
    """What went wrong while the first connection is made; `failed` once every server was tried."""

    def __init__(self, servers: int) -> None:
        self._left = servers
        self.problem: Exception | None = None
        self.failed = asyncio.Event()

    def note(self, error: Exception) -> None:
        if self.problem is None or _is_refusal(error):
            self.problem = error
        self._left -= 1
        if self._left <= 0:
            self.failed.set()


def _is_refusal(error: Exception) -> bool:
    return "authorization" in f"{type(error).__name__} {error}".lower()


async def _abandon(client: Client, connecting: asyncio.Future[None]) -> None:
    """End a connection that did not come about."""
    connecting.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await connecting
    with contextlib.suppress(Exception):
        async with asyncio.timeout(1):
            await client.close()


def _message(raw: Msg) -> Message:
    return Message(raw.subject, raw.reply, raw.data, raw.headers or {})


@contextlib.contextmanager
def _translate(subject: str) -> Iterator[None]:
    try:
        yield
    except nats.errors.MaxPayloadError as error:
        raise HaltError(Code.TOO_LARGE, f"{subject}: larger than the server's max_payload") from error
    except nats.errors.OutboundBufferLimitError as error:
        # `pending_size` lets nothing be buffered while the connection is away
        raise RetryError(Code.BUS_UNAVAILABLE, f"{subject}: not connected", delay_s=0.5) from error
    except (nats.errors.Error, OSError) as error:
        raise RetryError(Code.BUS_UNAVAILABLE, f"{subject}: {type(error).__name__}", delay_s=0.5) from error


def login_options(settings: NatsSettings) -> dict[str, Any]:
    """The login as `nats.connect` takes it.

    Raises:
        HaltError: a file is missing or cannot be read.
    """
    found = {
        "user": settings.user,
        "password": read_secret(settings.password, settings.password_file),
        "token": read_secret(settings.token, settings.token_file),
        "user_credentials": settings.creds_file,
        "nkeys_seed": settings.nkey_seed_file,
        "tls": _tls_context(settings.tls) if settings.tls else None,
        "tls_hostname": settings.tls.hostname if settings.tls else None,
    }
    for path in (settings.creds_file, settings.nkey_seed_file):
        if path and not Path(path).is_file():
            raise HaltError(Code.CONFIG_INVALID, "file not found", field=path)
    return {key: value for key, value in found.items() if value is not None}


def _tls_context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file and settings.key_file:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context


def _safe_text(error: Exception) -> str:
    """The first 200 characters of an error's text; nats-py's MsgAlreadyAckdError would print a payload."""
    return type(error).__name__ if "MsgAlreadyAckd" in type(error).__name__ else str(error)[:200]
