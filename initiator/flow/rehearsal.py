"""What would become of a dead letter that is replayed now, without publishing it.

The same checks as a request's own (`intake`), and a look at the record. A promise it is not: policy, record and
clock may change before the replay, and what else the daemon meets (freezes, full lanes) it alone will say.
"""

from __future__ import annotations

from collections.abc import Callable

from initiator.core import codec, identity
from initiator.core.deadletter import DeadLetter
from initiator.core.lifecycle import REOPEN, Claimant, Step, next_step
from initiator.deadletters import DeadLetters
from initiator.errors import RejectError
from initiator.flow.fate import standing
from initiator.flow.intake import Intake
from initiator.flow.reception import may_join
from initiator.record import CONTENT_TYPE, Record

NEW_REQUEST = 0  # no stream sequence: it holds no operation yet


class Rehearsal:
    """Judges letters as the handler would.

    Args:
        now: Unix seconds.
    """

    def __init__(self, intake: Intake, letters: DeadLetters, record: Record, now: Callable[[], float]) -> None:
        self._intake = intake
        self._letters = letters
        self._record = record
        self._now = now

    async def judge(self, letter: DeadLetter, data: bytes) -> str:
        """What a replay would do, for people.

        Raises:
            RejectError: it would be refused, with the code and the reason.
            RetryError: the record cannot be read now.
        """
        await self._letters.request_subject(letter)
        client = letter.client or ""
        encoding = codec.content_type(letter.request_headers().get(CONTENT_TYPE))
        refusal: RejectError | None = None
        try:
            request = self._intake.read(client, letter.operation, encoding, data, self._now())
            signature = self._intake.signature_of(client, request, letter.request_headers())
            await self._intake.grant(client, request, self._now(), self._now(), signed=signature is not None)
        except RejectError as error:
            # what is refused now joins what the same request began before, as at the daemon
            reread = self._intake.reread(letter.operation, encoding, data)
            if reread is None or not may_join(error):
                raise
            request, refusal = reread, error
        last = await self._record.last(letter.operation, request.operation_id)
        event = last.event if last else None
        digest = identity.request_digest(client, request)
        if refusal and (event is None or (event.client, event.request_digest) != (client, digest)):
            raise refusal
        claimant = Claimant(
            client=client,
            request_digest=digest,
            request_seq=NEW_REQUEST,
            reopens=letter.request_headers().get(REOPEN),
        )
        step = next_step(event, claimant)
        if step is Step.CONFLICT:
            raise identity.conflict(letter.operation)
        if step is Step.REOPEN and refusal:
            raise refusal
        if step is Step.REOPEN:
            return "would open its operation again"
        # a request under an id that is on record gets the state of that operation; nothing is done anew
        return "would be accepted" if event is None else f"would join its operation, which {standing(event)}"
