"""One request, from its delivery to its final event.

The order is the guarantee:

1. decode, validate, policy: everything that needs no back end, so that a bad request costs nothing and is refused once;
2. claim: `accepted` by compare-and-set; from here the id belongs to this payload, whoever asks;
3. build, sign, verify: KMS is asked only for a claimed id, and what does not verify is never recorded;
4. record the exact bytes (`signed`): the point of no return; deadline, policy and freeze are checked before it;
5. slot, publish: only recorded bytes, on the attempt's own token, once by the server's own word;
6. record `published`, await the final event, free the slot; the worker acks when this returns.

Every step may find that another replica, a repeated request or the nodes' result came first: it then reads the
record and goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from initiator.bus.errors import NotFoundError
from initiator.config.schema import Settings
from initiator.core import events, identity, message
from initiator.core.events import Outcome, State
from initiator.core.lifecycle import (
    Claimant,
    Step,
    gave_out,
    next_step,
    outcome_before_publishing,
)
from initiator.core.model import ContentType, Operation
from initiator.core.policy.rules import Grant
from initiator.core.signer import Signed, Signer
from initiator.core.spki import fingerprint
from initiator.errors import Code, HaltError, InitiatorError, RejectError, RetryError
from initiator.flow.authorizing import Authorizing, awaiting
from initiator.flow.awaiting import Awaiting
from initiator.flow.claims import Claims, RefusedBeforeError
from initiator.flow.clock import Clock
from initiator.flow.gate import SigningGate
from initiator.flow.held import Held
from initiator.flow.journal import Journal
from initiator.flow.lane import Lane
from initiator.flow.publisher import Publisher
from initiator.flow.reception import Reception, Refusal
from initiator.flow.room import Room
from initiator.flow.takeovers import MOST_DEATHS, Takeovers
from initiator.flow.work import WENT_BACK, Work, expired
from initiator.log import get_logger
from initiator.metrics import Metrics
from initiator.record import Entry, MovedError, Record, Seen

log = get_logger()
T = TypeVar("T")
RETRY_MAX_S = 5.0


class Handler:
    """The pipeline; see the module for its order. All collaborators are passed in."""

    def __init__(
        self,
        *,
        settings: Settings,
        reception: Reception,
        claims: Claims,
        record: Record,
        journal: Journal,
        signer: Signer,
        publisher: Publisher,
        lanes: dict[Operation, Lane],
        room: Room,
        takeovers: Takeovers,
        awaiting_result: Awaiting,
        authorizing: Authorizing,
        gate: SigningGate,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._record = record
        self._journal = journal
        self._publisher = publisher
        self._signer = signer
        self._lanes = lanes
        self._room = room
        self._takeovers = takeovers
        self._gate = gate
        self._clock = clock
        self._metrics = metrics
        self._reception = reception
        self._claims = claims
        self._authorizing = authorizing
        self._steps: dict[Step, Callable[[Work, Entry], Awaitable[Entry]]] = {
            Step.SIGN: self._sign,
            Step.AUTHORIZE: authorizing.collect,
            Step.PUBLISH: publisher.publish,
            Step.SEND_ONCE: publisher.send_reshare,
            Step.AWAIT: awaiting_result.final,
            Step.FOLLOW: awaiting_result.next_event,
        }

    # --- the way in

    async def handle(self, held: Held) -> None:
        """Bring one request to its end; when this returns, its final event is stored.

        Raises:
            asyncio.CancelledError: shutdown; the record says how far it got, and another holder goes on.
        """
        handled = False
        while not handled:
            with contextlib.suppress(MovedError):  # it was to be refused, and whoever overtook us has claimed it
                await self._handle(held)
                handled = True

    async def _handle(self, held: Held) -> None:
        work = await self._insist(held, lambda: self._reception.receive(held))
        if work is None:
            return
        if isinstance(work, Refusal):
            await self._reject(held, work.error, work.operation_id, work.encoding, work.seen)
            return
        try:
            final = await self._advance(work)
        except RefusedBeforeError:
            return
        except RejectError as error:
            await self._reject(held, error, work.operation_id, work.encoding, work.seen)
            return
        await self._settle(work, final)

    async def _reject(
        self, held: Held, error: RejectError, operation_id: str | None, encoding: ContentType, seen: Seen | None
    ) -> None:
        async def reject() -> None:
            self._room.check()  # what is in flight must be recorded; a refusal can wait in the queue
            await self._journal.reject(held, error, operation_id, encoding, seen)

        await self._insist(held, reject)

    async def _settle(self, work: Work, final: Entry) -> None:
        if work.holds_slot or work.held.redelivered:
            await self._lanes[work.operation].free_slot(work.operation_id)
        if final.event.request_seq != work.held.sequence:
            # a repeated request gets the state of the operation that it joined
            await self._insist(work.held, lambda: self._record.announce(final))
        elif gave_out(final.event):
            await self._insist(work.held, lambda: self._journal.bury_exhausted(work.held, final))
        if not work.held.redelivered:
            self._metrics.operation_seconds.labels(work.operation).observe(
                max(0.0, self._clock.now() - work.held.delivery.stored_at)
            )

    async def _insist(self, held: Held, action: Callable[[], Awaitable[T]]) -> T:
        """Repeat what is harmless to repeat until it is done; only shutdown ends it."""
        delay_s = 0.1
        while True:
            try:
                return await action()
            except (RetryError, NotFoundError) as error:  # a stream that is gone may be restored or made anew
                self._note_retry(held.operation, error)
                await self._clock.sleep(max(delay_s, getattr(error, "delay_s", 1.0)))
                delay_s = min(delay_s * 2, RETRY_MAX_S)

    def _note_retry(self, operation: Operation, error: InitiatorError, **fields: object) -> None:
        self._metrics.retries.labels(operation, error.code).inc()
        log.warning("request.step_retried", op=operation.value, code=error.code.value, reason=error.reason, **fields)

    # --- the steps

    async def _advance(self, work: Work) -> Entry:
        """From whatever the record says to a final event.

        Raises:
            RejectError: expired before the claim, or the id belongs to another payload.
        """
        last: Entry | None = None
        known = not work.held.redelivered  # a first delivery claims without looking: the guard looks
        delay_s = 0.1
        try:
            while True:
                try:
                    if not known:
                        last = await self._record.last(work.operation, work.operation_id)
                    last = await self._step(work, last)
                    known, delay_s = True, 0.1
                    if last.event.final:
                        return last
                except MovedError as moved:
                    last, known, work.recorded_at = moved.last, True, None
                except RejectError:
                    raise
                except InitiatorError as error:
                    known, work.recorded_at = False, None
                    self._note_retry(work.operation, error, id=work.operation_id, request_seq=work.held.sequence)
                    await self._clock.sleep(max(delay_s, getattr(error, "delay_s", 1.0)))
                    delay_s = min(delay_s * 2, RETRY_MAX_S)
        finally:
            self._leave_admission(work)

    async def _step(self, work: Work, last: Entry | None) -> Entry:
        step = next_step(last.event if last else None, self._claimant(work, last))
        work.went_back = work.held.see(last)
        if work.went_back and step in _BEGINNING:
            return await self._end_lost(work, last, step)
        if step is Step.CONFLICT:
            raise identity.conflict(work.operation)
        if last is not None and step in _PREPARING and (early_s := self._early_s(last)) > 0:
            self._leave_admission(work)
            await self._clock.sleep(early_s)
            return await self._record.last(work.operation, work.operation_id) or last  # a late success may have come
        if last is not None and (stop := self._gate.stops(step, last)):
            self._leave_admission(work)
            return await self._gate.hold(work, last, stop)
        await self._respect_turns(work, step)
        work.held.working = step in _PREPARING
        if work.held.working and await self._is_exhausted(work):
            return await self._give_up(last)
        if last is None or step is Step.REOPEN:
            return await self._claims.claim(work, last)
        if step is Step.SETTLE:
            return last
        return await self._steps[step](work, last)

    async def _end_lost(self, work: Work, last: Entry | None, step: Step) -> Entry:
        """The nodes may have what the record does not know any more: it is neither begun again nor refused."""
        why = (Code.RECORD_LOST, WENT_BACK, Outcome.UNKNOWN)
        if step is Step.CONFLICT:  # whoever has the id now has begun since
            raise RejectError(Code.RECORD_LOST, WENT_BACK, field=identity.ID_FIELD[work.operation])
        if step in (Step.SIGN, Step.AUTHORIZE) and last is not None:
            return await self._journal.fail(last, *why)
        self._room.check()
        digest = work.claimant.request_digest
        return await self._journal.fail_unclaimed(
            work.held, work.operation_id, digest, self._reception.deadline(work), work.encoding, why, last
        )

    async def _is_exhausted(self, work: Work) -> bool:
        if work.counted or not work.held.redelivered:
            return False
        deaths = await self._takeovers.deaths(work.held)
        work.counted = True
        self._metrics.takeovers.labels(work.operation).inc()
        return deaths >= MOST_DEATHS

    async def _give_up(self, last: Entry | None) -> Entry:
        reason = f"{MOST_DEATHS} holders died in this state of it"
        if last is None or last.event.final:
            raise RejectError(Code.EXHAUSTED, reason)
        return await self._journal.fail(last, Code.EXHAUSTED, reason, outcome_before_publishing(last.event))

    async def _respect_turns(self, work: Work, step: Step) -> None:
        """Only requests in preparation hold one of the lane's places; those that wait for others hold none."""
        if step not in _PREPARING:
            self._leave_admission(work)
        elif not work.admitted:
            await self._lanes[work.operation].admission.enter(work.held.client)
            work.admitted = work.held.begun = True

    def _early_s(self, last: Entry) -> float:
        """How long a further attempt has to wait for its time."""
        if "not_before" not in last.event.body:
            return 0.0
        due = min(events.parse_time(last.event.body["not_before"]), last.event.expires_at)
        return due - self._clock.now()

    def _leave_admission(self, work: Work) -> None:
        if work.admitted:
            work.admitted = False
            self._lanes[work.operation].admission.leave()

    def _claimant(self, work: Work, last: Entry | None) -> Claimant:
        """A repeated request takes over where the record has not moved for two ack waits: its holder is gone."""
        claimant = work.claimant
        if last is None or last.event.request_seq == claimant.request_seq or work.refusal:
            return claimant  # one that is refused itself only asks what becomes of the other
        now, event = self._clock.now(), last.event
        stalled = now - last.stored_at > 2 * self._settings.worker.ack_wait_s
        if event.state is State.AUTHORIZING:  # people take their time; the request that holds it comes again by itself
            stalled = now > event.expires_at + 2 * self._settings.worker.ack_wait_s
        return dataclasses.replace(claimant, stalled=stalled)

    async def _sign(self, work: Work, last: Entry) -> Entry:
        """Build, sign, verify (the signer returns only what verifies) and record the exact bytes."""
        permitted = await self._claims.permitted(work)
        if isinstance(permitted, RejectError):
            return await self._journal.refuse(last, permitted)
        if last.event.attempt > 1 and (resumed := await self._authorizing.resume(work, last, permitted)):
            return resumed  # authorizers may hold our signature: no second one is made
        raw = message.signed_bytes(work.request)
        signed: Signed | None = None
        if not expired(last, self._clock.now()):
            try:
                signed = await self._ask_signer(raw, last)
            except (RetryError, HaltError) as error:
                work.problem = error
        # past the deadline nothing is recorded, so that outcome `none` is true: this signature never leaves us
        late, problem = expired(last, self._clock.now()), work.problem
        if late:
            code = problem.code if problem else Code.DEADLINE_EXCEEDED
            reason = f"{late}: {problem.reason}" if problem else late
            return await self._journal.fail(last, code, reason, Outcome.NONE)
        if signed is None:
            raise problem or HaltError(Code.SIGNATURE_INVALID, "the signer returned nothing")
        # reload race: KMS took its time, and the rules may have changed since; nothing leaves us that they deny now
        permitted = await self._claims.permitted(work)
        if isinstance(permitted, RejectError):
            return await self._journal.refuse(last, permitted)
        body = self._sealed_body(work, raw, signed, permitted)
        if permitted.authorizers:
            return await self._claims.seal(work, last, State.AUTHORIZING, awaiting(body, permitted), permitted)
        return await self._claims.seal(work, last, State.SIGNED, body, permitted)

    async def _ask_signer(self, raw: bytes, last: Entry) -> Signed:
        self._gate.check(last)
        remaining_s = last.event.expires_at - self._clock.now()
        with self._metrics.sign_seconds.time():
            signed = await self._signer.sign(raw, deadline=self._clock.loop_time() + remaining_s)
        self._metrics.last_signature.set(self._clock.now())
        return signed

    def _sealed_body(self, work: Work, raw: bytes, signed: Signed, grant: Grant) -> dict[str, object]:
        return {
            "message": message.event_bytes(work.request, signed.signature),
            "session": secrets.token_hex(16),
            "nodes_stream": self._publisher.nodes_stream(work.operation),
            "digest": hashlib.sha256(raw).hexdigest(),
            "key_fingerprint": fingerprint(self._signer.public_key),
            "key_id": signed.key_id,
            "kms_request_id": signed.request_id,
            "policy": {"version": grant.version, "rule": grant.rule},
            **self._reception.requester_of(work),
        }


_BEGINNING = frozenset({Step.CLAIM, Step.REOPEN, Step.SIGN, Step.AUTHORIZE, Step.CONFLICT})
_PREPARING = frozenset({Step.CLAIM, Step.REOPEN, Step.SIGN, Step.PUBLISH, Step.SEND_ONCE})
