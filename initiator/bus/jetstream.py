"""JetStream calls: guarded publishes, reads from the leader, and the management API.

Source: the JetStream wire API (`$JS.API.…`), nats-server 2.12 and newer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from initiator.bus.connection import Connection, NoRespondersError
from initiator.bus.errors import NotFoundError, from_api, unknown_outcome

EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
MESSAGE_ID = "Nats-Msg-Id"
TTL = "Nats-TTL"


@dataclass(frozen=True, slots=True)
class PubAck:
    """The server's word that a message is stored."""

    stream: str
    sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream holds it. `time` is the server's clock, Unix seconds."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str]
    time: float


class JetStream:
    """The calls that this product makes, over one connection and one API prefix."""

    def __init__(self, connection: Connection, domain: str | None = None) -> None:
        self.connection = connection
        self._prefix = f"$JS.{domain}.API" if domain else "$JS.API"

    def api_subject(self, name: str) -> str:
        return f"{self._prefix}.{name}"

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> PubAck:
        """Publish and wait until the stream has stored it.

        Raises:
            SequenceConflictError: the guard in the headers did not hold; nothing was stored by this call.
            StreamFullError: no room; nothing was stored.
            RejectError: larger than the stream takes.
            RetryError: `maybe_done` says whether it may have been stored all the same.
        """
        try:
            answer = await self.connection.request(subject, data, headers)
        except NoRespondersError as error:
            # A stream without a leader looks like this too: a proposal under way may still be applied.
            raise unknown_outcome(f"no stream answers on {subject}") from error
        body = _body(answer.data, subject)
        if "error" in body:
            raise from_api(body["error"], subject)
        return PubAck(str(body.get("stream", "")), int(body.get("seq", 0)), bool(body.get("duplicate", False)))

    async def api(
        self, name: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Call `$JS.API.<name>`.

        Raises:
            NotFoundError: no such stream, consumer or message.
            RetryError: no answer.
            HaltError: refused.
        """
        payload = json.dumps(body).encode() if body is not None else b""
        answer = await self.connection.request(self.api_subject(name), payload, timeout_s=timeout_s)
        parsed = _body(answer.data, name)
        if "error" in parsed:
            raise from_api(parsed["error"], name)
        return parsed

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The newest message on `subject` (wildcards allowed), read from the stream's leader; None if there is none."""
        return await self._get(stream, {"last_by_subj": subject})

    async def next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """The first message on `subject` at or after `sequence`, read from the leader; None if there is none."""
        return await self._get(stream, {"seq": sequence, "next_by_subj": subject})

    async def get(self, stream: str, sequence: int) -> Stored | None:
        """The message with this sequence, read from the stream's leader; None if there is none."""
        return await self._get(stream, {"seq": sequence})

    async def _get(self, stream: str, query: Mapping[str, Any]) -> Stored | None:
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", query)
        except NotFoundError as error:
            if "no message found" in error.reason:
                return None
            raise
        message = answer["message"]
        return Stored(
            subject=message["subject"],
            sequence=message["seq"],
            data=base64.b64decode(message.get("data", "")),
            headers=parse_headers(base64.b64decode(message.get("hdrs", ""))),
            time=parse_time(message["time"]),
        )

    async def delete(self, stream: str, sequence: int) -> bool:
        """Remove one message, its bytes overwritten; false if it is not there (any more)."""
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence})
        except NotFoundError as error:
            if "no message found" in error.reason:
                return False
            raise
        return True

    async def purge(self, stream: str, subject: str, *, up_to: int | None = None) -> int:
        """Remove the messages on `subject`, up to a sequence if one is given; returns how many there were."""
        bound = {} if up_to is None else {"seq": up_to + 1}  # the server stops before `seq`
        return int((await self.api(f"STREAM.PURGE.{stream}", {"filter": subject} | bound)).get("purged", 0))


def guard(subject_filter: str, sequence: int) -> dict[str, str]:
    """Headers that let the server store a message only if `sequence` is still the last under `subject_filter`."""
    return {EXPECTED_SEQUENCE: str(sequence), EXPECTED_SUBJECT: subject_filter}


def parse_headers(raw: bytes) -> dict[str, str]:
    """The headers of a stored message; of a repeated name the first value counts."""
    headers: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip(), value.strip())
    return headers


def parse_time(text: str) -> float:
    """Unix seconds of the server's RFC 3339 time with up to nine decimals."""
    head, dot, rest = text.partition(".")
    digits = rest.rstrip("Z") if dot else ""
    if not digits.isdigit():
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    return datetime.fromisoformat(head + "+00:00").timestamp() + float(f"0.{digits}")


def _body(data: bytes, what: str) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except ValueError as error:
        raise unknown_outcome(f"{what}: the answer is not JSON") from error
    if not isinstance(parsed, dict):
        raise unknown_outcome(f"{what}: the answer is no JSON object")
    return parsed
