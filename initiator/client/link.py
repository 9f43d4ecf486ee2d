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
from initiator.client.errors import ClientError, RejectedError, UnavailableError
from initiator.client.wire import Event
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.errors import Code

ANSWER_S = 3.0
"""How long one message waits for its answer, before it is sent again."""
NOBODY_S = 3.0
"""How long nobody may listen: a queue that changes its leader looks like one that is not there."""
AGAIN_S = 0.1
_FULL = (10077, 10023, 10028, 10047)
_TOO_LARGE = 10054


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
        self._last_error = ""
        self._login_refused = asyncio.Event()
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
            UnavailableError: no server answers in time, or the login is refused (`BUS_DENIED`).
        """
        nc = Client()
        link = cls(nc, client, owned=True)
        own: dict[str, Any] = {
            "name": f"initiator-client {client}",
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.25,
            "pending_size": -1,  # what cannot be sent now fails now, and is sent again by us
        }
        callbacks = {"error_cb": link._on_error, "reconnected_cb": link._on_reconnected}
        connecting = asyncio.ensure_future(nc.connect(servers, **(own | dict(options) | callbacks)))
        denied = asyncio.ensure_future(link._login_refused.wait())
        try:
            await asyncio.wait({connecting, denied}, timeout=connect_timeout, return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(None if connecting.done() else 0):
                await connecting
        except (TimeoutError, OSError, nats.errors.Error) as error:
            with contextlib.suppress(Exception):
                await nc.close()
            raise link._not_connected(servers, error) from error
        finally:
            denied.cancel()
            connecting.cancel()
        return link

    def _not_connected(self, servers: str | list[str], error: Exception) -> UnavailableError:
        where = ", ".join(_without_password(url) for url in ([servers] if isinstance(servers, str) else servers))
        said = self._last_error or f"{type(error).__name__}: {error}".strip(": ")
        if self._login_refused.is_set():
            hint = "check user, password or credentials file"
            return UnavailableError(Code.BUS_DENIED, f"{where}: login refused", hint=hint)
        return UnavailableError(Code.BUS_UNAVAILABLE, f"{where}: {said}", hint="is nats-server there?")

    async def _on_error(self, error: Exception) -> None:
        self._last_error = said = str(error)
        if "authorization" in f"{type(error).__name__} {said}".lower():
            self._login_refused.set()
        if "permissions violation" in said.lower():
            for subject, refused in self._refused.items():
                if subject.lower() in said.lower():
                    refused.set()

    async def _on_reconnected(self) -> None:
        self.on_return()

    async def close(self) -> None:
        """Stop listening, and close the connection if it is ours."""
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
            await self._nc.flush()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            reason = f"cannot listen to initiator.out.{self.client}.>: {type(error).__name__}"
            raise UnavailableError(Code.BUS_UNAVAILABLE, reason) from error
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
        receipt = await self._insist(subject, data, headers, deadline, f"no queue takes {subject}")
        error = receipt.get("error")
        if not error:
            return int(receipt["seq"])
        code, said = error.get("err_code"), str(error.get("description"))
        if code == _TOO_LARGE:
            raise RejectedError(Code.TOO_LARGE, f"larger than the queue takes: {said}")
        hint = "this client has too many unfinished requests: wait for some of them" if code in _FULL else None
        raise UnavailableError(Code.STREAM_FULL if code in _FULL else Code.BUS_UNAVAILABLE, said, hint=hint)

    async def ask(self, subject: str, body: Mapping[str, Any], deadline: float) -> dict[str, Any]:
        """One question to the daemon, and its answer.

        Args:
            deadline: loop time.

        Raises:
            RejectedError: the question is wrong.
            UnavailableError: no daemon answers.
        """
        data = json.dumps(dict(body)).encode()
        answer = await self._insist(subject, data, {}, deadline, f"no daemon answers on {subject}")
        error = answer.get("error")
        if error is None:
            return answer
        code, reason = str(error.get("code")), str(error.get("reason"))
        if code in ("INTERNAL", Code.BUS_UNAVAILABLE, Code.QUERY_BUSY):
            raise UnavailableError(code, reason)
        raise RejectedError(code, reason, field=error.get("field"))

    async def _insist(
        self, subject: str, data: bytes, headers: dict[str, str], deadline: float, nobody: str
    ) -> dict[str, Any]:
        """A message's answer, sent again until one comes; all that we send may come twice."""
        loop = asyncio.get_running_loop()
        nobody_until = loop.time() + NOBODY_S
        maybe_there = False
        problem: ClientError = UnavailableError(Code.BUS_UNAVAILABLE, "not connected", hint="is nats-server there?")
        while (left_s := deadline - loop.time()) > 0:
            try:
                return _parsed(await self._request(subject, data, headers, min(left_s, ANSWER_S)))
            except nats.errors.NoRespondersError:
                problem = UnavailableError(Code.BUS_UNAVAILABLE, nobody, hint=self._hint_for_nobody(subject))
                if loop.time() > nobody_until:
                    raise problem from None
            except (TimeoutError, nats.errors.TimeoutError):
                maybe_there = True
                problem = UnavailableError(Code.BUS_UNAVAILABLE, f"no answer from {subject} in time")
            except nats.errors.MaxPayloadError as error:
                raise RejectedError(Code.TOO_LARGE, "larger than nats-server takes") from error
            except (nats.errors.Error, OSError, ValueError) as error:
                if self._nc.is_closed:
                    raise UnavailableError(Code.BUS_UNAVAILABLE, "the connection is closed") from error
            if (refused := self._refused.get(subject)) and refused.is_set():
                self._refused.pop(subject, None)
                hint = "see deploy/nats/accounts.conf for what a client needs"
                raise UnavailableError(Code.BUS_DENIED, f"NATS takes no {subject} from us", hint=hint)
            await asyncio.sleep(min(AGAIN_S, max(0.0, deadline - loop.time())))
        if isinstance(problem, UnavailableError):
            problem.maybe_queued = maybe_there
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


def _parsed(data: bytes) -> dict[str, Any]:
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - what came, not what we were passed
    return answer


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
