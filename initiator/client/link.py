"""The way to the daemon: requests with their receipts, questions with their answers, and what it tells by itself.

All that it needs of NATS: to publish to `initiator.request.<client>.*`, `initiator.query.<client>.*` and
`initiator.cancel.<client>`, and to listen to `initiator.out.<client>.>` and its own inbox. No JetStream API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from initiator.client import wire
from initiator.client.errors import DeniedError, RejectedError, UnavailableError
from initiator.client.wire import Event
from initiator.core import subjects
from initiator.core.addresses import without_password
from initiator.core.model import Operation
from initiator.errors import Code

ANSWER_S = 3.0
"""How long one message waits for its answer, before it is sent again."""
NOBODY_S = 3.0
"""How long nobody may listen: a queue that changes its leader looks like one that is not there."""
AGAIN_S = 0.1
_FULL = (10077, 10023, 10028, 10047)
_TOO_LARGE = 10054
_PERMISSIONS = "see docs/nats.md for what a client needs"
_SILENCE = "does the daemon run, and may this login listen to its own inbox?"


class Link:
    """One client's connection.

    Args:
        nc: a connected nats-py client.
        client: the client's name, as the daemon's configuration has it.
        owned: close `nc` with the link.
    """

    def __init__(self, nc: Client, client: str, *, owned: bool) -> None:
        if not subjects.is_client(client):
            raise RejectedError(Code.INVALID_FIELD, "expected 1 to 64 of A-Z a-z 0-9 _ -", field="client")
        self._nc = nc
        self.client = client
        self._owned = owned
        self._closed = False
        self._last_error = ""
        self._login_refused = asyncio.Event()
        self._deaf = False  # the server has refused a subscription of ours
        self._refused: dict[str, asyncio.Event] = {}  # by subject: set once the server refuses to take it from us
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None
        self.on_return: Callable[[], None] = lambda: None

    @classmethod
    async def connect(
        cls, servers: str | list[str], client: str, connect_timeout: float, options: Mapping[str, Any]
    ) -> Link:
        """A link over a connection of its own, which comes back for ever.

        Args:
            connect_timeout: seconds for the first connection.
            options: for `nats.connect`: login, TLS, inbox prefix.

        Raises:
            UnavailableError: no server answers in time.
            DeniedError: the login is refused.
        """
        if not servers:  # nats-py would look for one for ever, and hold up everything else
            raise RejectedError(Code.INVALID_FIELD, "expected the URL of a server", field="servers")
        nc = Client()
        link = cls(nc, client, owned=True)
        own: dict[str, Any] = {
            "name": f"initiator-client {client}",
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.25,
            "pending_size": -1,  # what cannot be sent now fails now, and is sent again by us
        }
        callbacks = {
            "error_cb": _both(link._on_error, options.get("error_cb")),
            "reconnected_cb": _both(link._on_reconnected, options.get("reconnected_cb")),
        }
        connecting = asyncio.ensure_future(nc.connect(servers, **(own | dict(options) | callbacks)))
        denied = asyncio.ensure_future(link._login_refused.wait())
        try:
            await asyncio.wait({connecting, denied}, timeout=connect_timeout, return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(None if connecting.done() else 0):
                await connecting
        except Exception as error:  # a login that nats-py cannot use is told in many ways
            with contextlib.suppress(Exception):
                await nc.close()
            raise link._not_connected(servers, error) from error
        finally:
            denied.cancel()
            connecting.cancel()
        return link

    def _not_connected(self, servers: str | list[str], error: Exception) -> UnavailableError | DeniedError:
        where = ", ".join(without_password(url) for url in ([servers] if isinstance(servers, str) else servers))
        said = self._last_error or f"{type(error).__name__}: {error}".strip(": ")
        if self._login_refused.is_set():
            hint = "check user, password or credentials file"
            return DeniedError(Code.BUS_DENIED, f"{where}: login refused", hint=hint)
        if not isinstance(error, TimeoutError | OSError | nats.errors.Error):
            # what it says may quote the credentials
            hint = "check the login's options, and the form of its files"
            return DeniedError(Code.BUS_DENIED, f"{where}: no login ({type(error).__name__})", hint=hint)
        return UnavailableError(Code.BUS_UNAVAILABLE, f"{where}: {said}", hint="is nats-server there?")

    async def _on_error(self, error: Exception) -> None:
        self._last_error = said = str(error)
        if "authorization" in f"{type(error).__name__} {said}".lower():
            self._login_refused.set()
        if "permissions violation" in said.lower():
            self._deaf = self._deaf or "subscription" in said.lower()
            for subject, refused in self._refused.items():
                if subject.lower() in said.lower():
                    refused.set()

    async def _on_reconnected(self) -> None:
        self.on_return()

    @property
    def closed(self) -> bool:
        """It does not come back."""
        return self._closed or self._nc.is_closed

    async def close(self) -> None:
        """Stop listening, and close the connection if it is ours."""
        self._closed = True
        with contextlib.suppress(nats.errors.Error, OSError):
            if self._unsubscribe:
                await self._unsubscribe()
            if self._owned:
                await self._nc.close()

    # --- listening

    async def listen(self, on_event: Callable[[Event], None]) -> None:
        """Hear of the client's events from now on; they are told once, and not again after a lost connection."""

        async def on_message(message: Msg) -> None:
            event = wire.read_message(message.subject, message.headers or {}, message.data)
            if event is not None:
                on_event(event)

        try:
            subscription = await self._nc.subscribe(f"initiator.out.{self.client}.>", cb=on_message)
            for _ in range(2):  # a refusal comes after the first answer
                await self._nc.flush()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            reason = f"cannot listen to initiator.out.{self.client}.>: {type(error).__name__}"
            raise UnavailableError(Code.BUS_UNAVAILABLE, reason) from error
        if self._deaf:
            await subscription.unsubscribe()
            reason = f"NATS does not let us listen to initiator.out.{self.client}.>"
            raise DeniedError(Code.BUS_DENIED, reason, hint=_PERMISSIONS)
        self._unsubscribe = subscription.unsubscribe

    # --- talking

    async def submit(self, operation: Operation, data: bytes, headers: dict[str, str], deadline: float) -> int:
        """Put one request into the queue; returns its sequence. Sent again until `deadline` where no answer comes.

        Args:
            deadline: loop time.

        Raises:
            RejectedError: `TOO_LARGE`.
            UnavailableError: the queue is full, is not there, or did not answer in time.
        """
        subject = subjects.request(self.client, operation)
        receipt, sent_before = await self._insist(subject, data, headers, deadline, f"no queue takes {subject}")
        error = receipt.get("error")
        if not error:
            return int(receipt["seq"])
        code, said = error.get("err_code"), str(error.get("description"))
        if code == _TOO_LARGE:
            raise RejectedError(Code.TOO_LARGE, f"larger than the queue takes: {said}")
        hint = "this client has too many unfinished requests: wait for some of them" if code in _FULL else None
        named = Code.STREAM_FULL if code in _FULL else Code.BUS_UNAVAILABLE
        raise UnavailableError(named, said, hint=hint, maybe_queued=sent_before)

    async def ask(self, subject: str, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        """One question to the daemon, and its answer.

        Args:
            deadline: loop time.

        Raises:
            RejectedError: the question is wrong.
            UnavailableError: no daemon answers.
        """
        data = json.dumps(dict(body)).encode()
        try:
            answer, _ = await self._insist(subject, data, {}, deadline, f"no daemon answers on {subject}")
        except UnavailableError as unanswered:
            unanswered.maybe_queued = False  # a question is no request
            raise
        error = answer.get("error")
        if error is None:
            return answer
        code, reason = str(error.get("code")), str(error.get("reason"))
        if code in ("INTERNAL", Code.BUS_UNAVAILABLE, Code.QUERY_BUSY):
            raise UnavailableError(code, reason)
        raise RejectedError(code, reason, field=error.get("field"))

    async def _insist(
        self, subject: str, data: bytes, headers: dict[str, str], deadline: float, nobody: str
    ) -> tuple[dict[str, Any], bool]:
        """A message's answer, sent again until one comes; and whether an earlier copy may have arrived, too."""
        loop = asyncio.get_running_loop()
        nobody_since: float | None = None
        sent = False
        problem = UnavailableError(Code.BUS_UNAVAILABLE, "not connected", hint="is nats-server there?")
        if deadline <= loop.time():
            problem = UnavailableError(Code.BUS_UNAVAILABLE, "no time was left to ask", hint="give it a longer timeout")
        while (left_s := deadline - loop.time()) > 0:
            try:
                return _parsed(await self._request(subject, data, headers, min(left_s, ANSWER_S))), sent
            except nats.errors.NoRespondersError:
                problem = UnavailableError(Code.BUS_UNAVAILABLE, nobody, hint=self._hint_for_nobody(subject))
                nobody_since = nobody_since or loop.time()
                if loop.time() > nobody_since + NOBODY_S:
                    break
            except (TimeoutError, nats.errors.TimeoutError):
                sent, nobody_since = True, None
                problem = UnavailableError(Code.BUS_UNAVAILABLE, f"no answer from {subject} in time", hint=_SILENCE)
            except nats.errors.MaxPayloadError as error:
                raise RejectedError(Code.TOO_LARGE, "larger than nats-server takes") from error
            except ValueError:
                sent, nobody_since = True, None
                problem = UnavailableError(Code.BUS_UNAVAILABLE, f"what answers on {subject} is no daemon of ours")
            except (nats.errors.Error, OSError):
                if self.closed:
                    problem = UnavailableError(Code.BUS_UNAVAILABLE, "the connection is closed", hint="connect again")
                    break
            if (refused := self._refused.get(subject)) and refused.is_set():
                self._refused.pop(subject, None)
                raise DeniedError(Code.BUS_DENIED, f"NATS takes no {subject} from us", hint=_PERMISSIONS)
            await asyncio.sleep(min(AGAIN_S, max(0.0, deadline - loop.time())))
        problem.maybe_queued = sent
        raise problem

    def _hint_for_nobody(self, subject: str) -> str:
        if subject.startswith("initiator.request."):
            return f"is {self.client!r} among the daemon's clients, with this operation, and this login its own?"
        return "is the daemon running?"

    async def _request(self, subject: str, data: bytes, headers: dict[str, str], timeout_s: float) -> bytes:
        """One message and its answer, or at once the news that we may not send it."""
        asking = asyncio.ensure_future(self._nc.request(subject, data, timeout=timeout_s, headers=headers or None))
        refused = asyncio.ensure_future(self._refused.setdefault(subject, asyncio.Event()).wait())
        try:
            await asyncio.wait({asking, refused}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise nats.errors.TimeoutError
            return (await asking).data
        finally:
            for task in (asking, refused):
                task.cancel()


def _both(ours: Callable[..., Awaitable[None]], theirs: Callable[..., Awaitable[None]] | None) -> Any:
    """A callback that tells us, and then whoever connected."""

    async def tell(*arguments: Any) -> None:
        await ours(*arguments)
        if theirs is not None:
            await theirs(*arguments)

    return tell


def _parsed(data: bytes) -> dict[str, Any]:
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - what came, not what we were passed
    return answer
