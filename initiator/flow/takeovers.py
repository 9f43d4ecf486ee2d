"""How many holders of a request have died in the state that it is in; after five of them it is given up.

A request that ends whoever works on it would go round for ever, and take with it what else its holders held. So each
takeover leaves a mark with the state that it found, and a holder that hands back in order leaves one that takes it
away again. Marks are left only where a holder does something: who merely waits for a result dies of something else.
"""

from __future__ import annotations

from initiator.bus.jetstream import JetStream
from initiator.core import subjects
from initiator.flow.held import Held

MOST_DEATHS = 5
_STATE, _WORD = "Initiator-State", "Initiator-Word"
_TAKEN, _HANDED_BACK = "taken", "handed-back"


class Takeovers:
    """Marks on a stream of their own, by request; a day old they are forgotten."""

    def __init__(self, js: JetStream) -> None:
        self._js = js

    async def deaths(self, held: Held) -> int:
        """Leave a mark for this takeover; returns how many holders died before in `held.state`.

        Raises:
            RetryError: no usable answer; a mark more or less does no harm.
        """
        found = await self._words(held)
        await self._leave(held, _TAKEN)
        # whoever brought it into this state is one of them, and left no mark in it
        return max(0, 1 + found.count(_TAKEN) - found.count(_HANDED_BACK))

    async def hand_back(self, held: Held) -> None:
        """Leave a mark for a holder that is alive and well. Raises RetryError."""
        await self._leave(held, _HANDED_BACK)

    async def _words(self, held: Held) -> list[str]:
        subject, sequence, found = subjects.takeover(held.client, held.operation, held.sequence), 1, []
        while (stored := await self._js.next(subjects.TAKEOVERS_STREAM, subject, sequence)) is not None:
            if stored.headers.get(_STATE) == str(held.state):
                found.append(stored.headers.get(_WORD, ""))
            sequence = stored.sequence + 1
        return found

    async def _leave(self, held: Held, word: str) -> None:
        headers = {_STATE: str(held.state), _WORD: word}
        await self._js.publish(subjects.takeover(held.client, held.operation, held.sequence), b"", headers)
