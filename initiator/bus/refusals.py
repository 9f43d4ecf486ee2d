"""What the server refuses: it tells that to the connection alone, and whoever waits for an answer waits in vain."""

from __future__ import annotations

import nats.errors

from initiator.bus.connection import Connection
from initiator.errors import Code, RetryError

ANSWER_S = 5


async def refuses(connection: Connection, subject: str) -> bool:
    """Whether the server has just refused to let us listen or publish on exactly this subject.

    Raises:
        RetryError: it does not answer.
    """
    try:
        for _ in range(2):  # nats-py's first PING overtakes what it stands behind; the second one does not
            await connection.client.flush(ANSWER_S)
    except (nats.errors.Error, OSError) as error:
        raise RetryError(Code.BUS_UNAVAILABLE, f"{subject}: {type(error).__name__}") from error
    told = str(connection.client.last_error or "").lower()
    return "permissions violation" in told and f'"{subject.lower()}"' in told
