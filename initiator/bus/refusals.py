"""What the server refuses: it tells that to the connection alone, and whoever waits for an answer waits in vain."""

from __future__ import annotations

import nats.errors

from initiator.bus.connection import Connection
from initiator.bus.waiting import Refusal, refusal_of
from initiator.errors import Code, RetryError

ANSWER_S = 5


async def refuses(connection: Connection, subject: str) -> bool:
    """Whether the server has just refused to let us listen on exactly this subject.

    Raises:
        RetryError: it does not answer.
    """
    try:
        await connection.hear_refusals(ANSWER_S)
    except (nats.errors.Error, OSError) as error:
        raise RetryError(Code.BUS_UNAVAILABLE, f"{subject}: {type(error).__name__}") from error
    last = connection.client.last_error
    return last is not None and refusal_of(last) == Refusal("subscription", subject.lower())
