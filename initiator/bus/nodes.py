"""The way to the peer nodes: once-only publishing of signed events, by the server's own word.

Each attempt has a subject token of its own and expects that nothing was ever published on it. Everything short of
a fresh acknowledgement is settled by reading the message back from the leader and comparing its bytes; where the
stream may have forgotten (its oldest message is younger than the record of the bytes), absence proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from initiator.bus import streams
from initiator.bus.connection import NoRespondersError
from initiator.bus.errors import SequenceConflictError
from initiator.bus.jetstream import MESSAGE_ID, JetStream, Stored, guard, parse_time
from initiator.core import subjects
from initiator.core.model import Operation
from initiator.errors import Code, HaltError, RejectError, RetryError

CLIENT_ID = "ClientID"
SESSION_ID = "SessionID"
RESHARE_ANSWER_WAIT_S = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMessage:
    """A signed event on its way.

    Attributes:
        data: the exact recorded bytes, signature included.
        session_id: fresh for each attempt; feeds the nodes' deduplication of results (wire traps 6 and 9).
        stream: the birth of the nodes' stream when the bytes were signed; None if that is not known.
    """

    operation: Operation
    operation_id: str
    attempt: int
    data: bytes
    session_id: str
    stream: str | None = None


class NodeGateway:
    """Publishes signed events to the nodes.

    Args:
        js: JetStream in the nodes' account.
        client_id: our ClientID where results are scoped; None for v0.3.5.
    """

    def __init__(self, js: JetStream, client_id: str | None) -> None:
        self._js = js
        self._client_id = client_id
        self._births: dict[Operation, str] = {}

    async def note_streams(self) -> None:
        """Note which streams the nodes take requests from now. Raises RetryError."""
        for operation, name in subjects.NODE_STREAMS.items():
            found = await streams.info(self._js, name)
            if found is not None:
                self._births[operation] = found["created"]

    def birth(self, operation: Operation) -> str | None:
        """When the nodes' stream was made, by its server's word: no two streams by one name have it in common."""
        return self._births.get(operation)

    def _headers(self, message: NodeMessage) -> dict[str, str]:
        headers = {SESSION_ID: message.session_id}
        if self._client_id is not None:
            headers[CLIENT_ID] = self._client_id
        return headers

    async def publish(self, message: NodeMessage) -> bool:
        """Publish a keygen or sign event.

        Returns:
            True on a fresh acknowledgement: stored now, by this call. False if it proves nothing: read back.

        Raises:
            RetryError: no usable answer (`maybe_done` true), or no connection or no room (false).
            HaltError: the nodes' stream takes no message of this size; the request is not to blame any more.
        """
        subject = subjects.node_request(message.operation, message.operation_id, message.attempt)
        headers = self._headers(message) | guard(subject, 0)
        headers[MESSAGE_ID] = f"initiator:{message.operation}:{message.operation_id}:{message.attempt}"
        try:
            ack = await self._js.publish(subject, message.data, headers)
        except SequenceConflictError:
            return False
        except RejectError as error:
            raise HaltError(error.code, error.reason, field=error.field, hint=error.hint) from error
        # A duplicate ack says that the id was seen within two minutes, not that the message is still there.
        return not ack.duplicate

    async def find(self, operation: Operation, operation_id: str, attempt: int) -> Stored | None:
        """The published event of an attempt as the nodes' stream holds it."""
        subject = subjects.node_request(operation, operation_id, attempt)
        return await self._js.last(subjects.NODE_STREAMS[operation], subject)

    async def may_have_forgotten(self, message: NodeMessage, since: float, margin_s: float) -> bool:
        """Whether the stream may have dropped this message, if it was published after `since`.

        Args:
            since: Unix seconds, by the clock of the record's server.
            margin_s: how far the clock of the nodes' server may be from that.
        """
        found = await streams.info(self._js, subjects.NODE_STREAMS[message.operation])
        if found is None:
            return True
        if message.stream is not None and message.stream != found["created"]:
            return True  # another one by the same name
        if message.stream is None and parse_time(found["created"]) > since - margin_s:
            return True
        state = found["state"]
        if state["first_seq"] <= 1:
            return False  # nothing was ever dropped
        if state["messages"] == 0:
            return True
        return parse_time(state["first_ts"]) > since - margin_s

    async def send_reshare(self, message: NodeMessage) -> None:
        """Send a reshare event on core NATS, as a request, since only that tells when no node listens.

        Raises:
            NoRespondersError: no node listens: surely nobody got it.
            RetryError: `maybe_done` says whether it may have been delivered.
        """
        subject = subjects.NODE_RESHARE_SUBJECT
        try:
            await self._js.connection.request(subject, message.data, self._headers(message), RESHARE_ANSWER_WAIT_S)
        except NoRespondersError:
            raise
        except RetryError as error:
            # The nodes never reply: silence on a live connection means that it was delivered, and a refusal is none.
            if not error.maybe_done or not self._js.connection.connected or error.code is Code.BUS_DENIED:
                raise
