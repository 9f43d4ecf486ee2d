"""All interleavings of two replicas over one id: the core's real decisions on a simulated record.

The record has the server's compare-and-set semantics; the nodes' stream takes one message for each attempt. Every
write, publication and read is a step of its own, so whatever may come between two of them does. A replica may crash
(its work is gone) or freeze (its steps just come later) at any point; any idle replica may take any request that is
not acked, also one that another still works on.

Not simulated: bytes, signatures and slots (they decide nothing about the order), and clocks: a deadline passes at any
moment, once for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from initiator.core import lifecycle
from initiator.core.events import Event, Outcome, State, format_time
from initiator.core.lifecycle import Claimant, Step, Verdict
from initiator.core.model import ContentType, Operation
from initiator.core.result import NodeResult

# what the nodes may answer
SUCCESS, ERROR, NOT_READY, DUPLICATE = "success", "error", "not ready", "duplicate"
_CODES = {ERROR: "ERROR_UNKNOWN", NOT_READY: "ERROR_NOT_MAJORITY", DUPLICATE: "ERROR_SESSION_DUPLICATE"}


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded event, as far as decisions look at it."""

    state: State
    attempt: int
    owner: str
    request: int
    outcome: Outcome | None = None
    provisional: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """A replica at work on a request.

    Attributes:
        seen: how many events it has read.
        at: what it does next: `act`, or one of the middle of a step: `signed`, `look`, `send`, `sent`, `unsent`.
    """

    request: int
    seen: int
    at: str = "act"


@dataclass(frozen=True, slots=True)
class Settler:
    """A replica at work on a result."""

    answer: tuple[str, int]
    seen: int


@dataclass(frozen=True, slots=True)
class World:
    record: tuple[Record, ...] = ()
    published: tuple[int, ...] = ()
    waiting: frozenset[int] = frozenset()
    rejected: frozenset[int] = frozenset()
    results: tuple[tuple[str, int], ...] = ()
    answered: tuple[tuple[str, int], ...] = ()
    holders: tuple[Holder | None, Holder | None] = (None, None)
    settlers: tuple[Settler | None, Settler | None] = (None, None)
    expired: bool = False
    deaths: int = 0


@dataclass(frozen=True)
class Rules:
    """What happens, and what may: the real decisions, unless a test takes one away.

    Attributes:
        owners: who sent each request; equal owners sent the same payload.
        answers: what the nodes may say, each at most once for an attempt.
        deaths: how many crashes there may be.
        settling: how many replicas may work on results at once.
        compare_and_set: whether the record refuses a write after another.
        fence: whether the nodes' stream takes only one message for an attempt.
    """

    operation: Operation = Operation.SIGN
    owners: tuple[str, ...] = ("alice", "alice")
    answers: tuple[str, ...] = (SUCCESS, ERROR)
    answers_at_most: int = 2
    deaths: int = 1
    settling: int = 1
    compare_and_set: bool = True
    fence: bool = True
    next_step: Callable[..., Step] = field(default=lifecycle.next_step)
    judge: Callable[..., Verdict] = field(default=lifecycle.judge_result)
    outcome: Callable[..., Outcome] = field(default=lifecycle.outcome_before_publishing)
    ack_after_final: bool = True
    look_before_refusing: bool = True


def _canonical(world: World) -> World:
    """Replicas are alike: of two states that differ in their names alone one is enough."""
    pairs = sorted(zip(world.holders, world.settlers, strict=True), key=repr)
    first, second = pairs
    return replace(world, holders=(first[0], second[0]), settlers=(first[1], second[1]))


class Explorer:
    """Walks through every reachable state; `violations` says what must not be."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.states = 0
        self.endings: set[tuple[str, ...]] = set()

    def explore(self) -> str | None:
        """The first violation found, with the record at that moment; None if there is none."""
        start = World(waiting=frozenset(range(len(self.rules.owners))))
        seen, queue = {start}, deque([start])
        while queue:
            world = queue.popleft()
            self.states += 1
            wrong = self.violation(world)
            if wrong:
                return f"{wrong}: {[f'{one.state} {one.attempt}' for one in world.record]} {world.published}"
            following = list(self.moves(world))
            if all(one == world for one in following):
                wrong = self.unfinished(world)
                if wrong:
                    return f"{wrong}: {world}"
                self.endings.add(tuple(str(one.state) for one in world.record))
            for one in map(_canonical, following):
                if one not in seen:
                    seen.add(one)
                    queue.append(one)
        return None

    # --- what must be true

    def violation(self, world: World) -> str | None:
        states = [one.state for one in world.record]
        attempts = list(world.published)
        if self.rules.operation is not Operation.RESHARE and len(set(attempts)) < len(attempts):
            return "an attempt was published twice"
        retries = states.count(State.RETRYING)
        if len(attempts) > 1 + retries:
            return "more publications than attempts"
        if states.count(State.ACCEPTED) > 1 or states.count(State.SIGNED) > 1:
            return "claimed or signed twice"
        finals = [one for one in world.record if one.state in (State.COMPLETED, State.FAILED)]
        if len(finals) > 2 or (len(finals) == 2 and [one.state for one in finals] != [State.FAILED, State.COMPLETED]):
            return "more than one final event"
        if finals and world.record[-1] is not finals[-1]:
            return "something follows a final event"
        if finals and finals[-1].outcome is Outcome.NONE and attempts:
            return "outcome none, and the nodes have it"
        if any(one.owner != world.record[0].owner for one in world.record):
            return "two payloads under one id"
        done = set(range(len(self.rules.owners))) - world.waiting - world.rejected
        if done and not finals:
            return "acked without a final event"
        if finals and world.record[0].request in world.rejected:
            return "rejected, and its operation ended"
        return None

    def unfinished(self, world: World) -> str | None:
        """Nothing can move any more: then everything must be done."""
        if world.waiting or world.results:
            return "stuck"
        return None

    # --- moves

    def moves(self, world: World) -> Iterator[World]:
        if not world.expired:
            yield replace(world, expired=True)
        yield from self._answers(world)
        for index in (0, 1):
            holder, settler = world.holders[index], world.settlers[index]
            if holder is None:
                for request in world.waiting:
                    yield self._hold(world, index, Holder(request, len(world.record)))
            else:
                yield from self._work(world, index, holder)
            if settler is None:
                busy = sum(one is not None for one in world.settlers)
                for answer in set(world.results) if busy < self.rules.settling else ():
                    yield self._settle(world, index, Settler(answer, len(world.record)))
            else:
                yield from self._judge(world, index, settler)
            if (holder or settler) and world.deaths < self.rules.deaths:
                dead = self._settle(self._hold(world, index, None), index, None)
                yield replace(dead, deaths=world.deaths + 1)

    def _answers(self, world: World) -> Iterator[World]:
        """The nodes answer an attempt that they have, perhaps more than once and never the same."""
        for attempt in set(world.published):
            given = [kind for kind, of in world.answered if of == attempt]
            if len(given) >= self.rules.answers_at_most:
                continue
            for kind in self.rules.answers:
                # only a node that begins nothing says `not ready`: then that is its only answer; here only to the first
                if kind in given or NOT_READY in given or (kind == NOT_READY and (given or attempt > 1)):
                    continue
                answer = (kind, attempt)
                yield replace(
                    world,
                    answered=tuple(sorted((*world.answered, answer))),
                    results=tuple(sorted((*world.results, answer))),
                )

    def _hold(self, world: World, index: int, holder: Holder | None) -> World:
        holders = (holder, world.holders[1]) if index == 0 else (world.holders[0], holder)
        return replace(world, holders=holders)

    def _settle(self, world: World, index: int, settler: Settler | None) -> World:
        settlers = (settler, world.settlers[1]) if index == 0 else (world.settlers[0], settler)
        return replace(world, settlers=settlers)

    # --- a request

    def _work(self, world: World, index: int, holder: Holder) -> Iterator[World]:
        last = world.record[holder.seen - 1] if holder.seen else None
        if holder.at == "act":
            yield from self._act(world, index, holder, last)
            return
        assert last is not None
        match holder.at:
            case "signed":
                yield self._write(world, index, holder, replace(last, state=State.SIGNED))
            case "look" if last.attempt in world.published:
                yield self._write(world, index, holder, replace(last, state=State.PUBLISHED))
            case "look":
                yield self._hold(world, index, replace(holder, at="send"))
            case "send" if last.attempt in world.published and self.rules.fence:
                yield self._hold(world, index, replace(holder, at="look"))
            case "send" | "sending":
                published = tuple(sorted((*world.published, last.attempt)))
                yield self._hold(replace(world, published=published), index, replace(holder, at="sent"))
                if holder.at == "sending":
                    yield self._hold(world, index, replace(holder, at="unsent"))
            case "sent":
                yield self._write(world, index, holder, replace(last, state=State.PUBLISHED))
            case "unsent" if last.attempt >= 2 or world.expired:  # bounded here; the deadline bounds it there
                failed = replace(last, state=State.FAILED, outcome=Outcome.NONE)
                yield self._write(world, index, holder, failed)
            case "unsent":
                yield self._write(world, index, holder, replace(last, state=State.RETRYING, attempt=last.attempt + 1))

    def _act(self, world: World, index: int, holder: Holder, last: Record | None) -> Iterator[World]:
        owner = self.rules.owners[holder.request]
        for stalled in (False, True):
            claimant = Claimant(client=owner, request_digest=owner, request_seq=holder.request, stalled=stalled)
            step = self.rules.next_step(self._event(last), claimant)
            yield from self._step(world, index, holder, last, step)
        if not self.rules.ack_after_final:
            yield self._done(world, index, holder)

    def _step(self, world: World, index: int, holder: Holder, last: Record | None, step: Step) -> Iterator[World]:
        owner = self.rules.owners[holder.request]
        match step:
            case Step.CLAIM if world.expired and world.record and self.rules.look_before_refusing:
                yield self._hold(world, index, replace(holder, seen=len(world.record)))
            case Step.CLAIM if world.expired:
                # the look and the refusal are one step here: past the deadline by everybody's clock nobody claims
                yield self._done(world, index, holder, rejected=True)
            case Step.CLAIM:
                yield self._write(world, index, holder, Record(State.ACCEPTED, 1, owner, holder.request))
            case Step.CONFLICT:
                yield self._done(world, index, holder, rejected=True)
            case Step.SETTLE:
                yield self._done(world, index, holder)
            case Step.FOLLOW:
                yield self._hold(world, index, replace(holder, seen=len(world.record)))
            case _:
                assert last is not None
                yield from self._advance(world, index, holder, last, step)

    def _advance(self, world: World, index: int, holder: Holder, last: Record, step: Step) -> Iterator[World]:
        match step:
            case Step.SIGN if world.expired:
                yield self._write(world, index, holder, replace(last, state=State.FAILED, outcome=Outcome.NONE))
            case Step.SIGN:
                yield self._hold(world, index, replace(holder, at="signed"))
            case Step.PUBLISH | Step.SEND_ONCE if world.expired:
                event = self._event(last)
                assert event is not None
                failed = replace(last, state=State.FAILED, outcome=self.rules.outcome(event))
                yield self._write(world, index, holder, failed)
                if step is Step.PUBLISH:  # it had its slot before the deadline passed
                    yield self._hold(world, index, replace(holder, at="look"))
            case Step.PUBLISH:
                yield self._hold(world, index, replace(holder, at="look"))
                if last.state is State.SIGNED and last.request == holder.request:
                    yield self._hold(world, index, replace(holder, at="send"))  # recorded by itself, moments ago
            case Step.SEND_ONCE:
                publishing = self._write(world, index, holder, replace(last, state=State.PUBLISHING))
                mine = publishing.holders[index]
                written = len(publishing.record) > len(world.record)
                yield self._hold(publishing, index, replace(mine, at="sending") if mine and written else mine)
            case Step.AWAIT:
                yield self._hold(world, index, replace(holder, seen=len(world.record)))
                if world.expired:
                    failed = replace(last, state=State.FAILED, outcome=Outcome.UNKNOWN)
                    yield self._write(world, index, holder, failed)

    def _write(self, world: World, index: int, holder: Holder, event: Record) -> World:
        """Compare and set; whoever loses reads what won and decides again."""
        if self.rules.compare_and_set and holder.seen != len(world.record):
            return self._hold(world, index, Holder(holder.request, len(world.record)))
        record = (*world.record, event)
        return self._hold(replace(world, record=record), index, Holder(holder.request, len(record)))

    def _done(self, world: World, index: int, holder: Holder, *, rejected: bool = False) -> World:
        refused = world.rejected | {holder.request} if rejected else world.rejected
        done = replace(world, waiting=world.waiting - {holder.request}, rejected=refused)
        return self._hold(done, index, None)

    # --- a result

    def _judge(self, world: World, index: int, settler: Settler) -> Iterator[World]:
        kind, attempt = settler.answer
        last = world.record[settler.seen - 1] if settler.seen else None
        event = self._event(last)
        assert event is not None, "the nodes answered what nobody claimed"
        assert last is not None
        verdict = self.rules.judge(event, self._result(kind), attempt * 100.0 + 1, 2.0)
        match verdict:
            case Verdict.COMPLETE:
                yield self._record(world, index, settler, replace(last, state=State.COMPLETED, outcome=None))
            case Verdict.FAIL:
                failed = replace(last, state=State.FAILED, outcome=Outcome.UNKNOWN)
                yield self._record(world, index, settler, failed)
            case Verdict.RETRY:
                again = replace(last, state=State.RETRYING, attempt=last.attempt + 1, provisional=False)
                yield self._record(world, index, settler, again)
            case Verdict.HOLD:
                yield self._record(world, index, settler, replace(last, provisional=True))
            case Verdict.LATER:
                yield self._settle(world, index, replace(settler, seen=len(world.record)))
            case _:
                yield self._ack(world, index, settler)

    def _record(self, world: World, index: int, settler: Settler, event: Record) -> World:
        if self.rules.compare_and_set and settler.seen != len(world.record):
            return self._settle(world, index, replace(settler, seen=len(world.record)))
        recorded = replace(world, record=(*world.record, event))
        # a result in hand may still be delivered again: only the ack ends it
        return self._settle(recorded, index, replace(settler, seen=len(recorded.record)))

    def _ack(self, world: World, index: int, settler: Settler) -> World:
        results = list(world.results)
        if settler.answer in results:
            results.remove(settler.answer)
        return self._settle(replace(world, results=tuple(results)), index, None)

    # --- the forms that the core decides on

    def _event(self, record: Record | None) -> Event | None:
        if record is None:
            return None
        body: dict[str, object] = {"published_at": format_time(record.attempt * 100.0)}
        if record.outcome:
            body["outcome"] = record.outcome.value
        if record.provisional:
            body["provisional_code"] = "ERROR_SESSION_DUPLICATE"
        return Event(
            operation=self.rules.operation,
            operation_id="t",
            client=record.owner,
            state=record.state,
            attempt=record.attempt,
            time=0.0,
            request_seq=record.request,
            request_digest=record.owner,
            expires_at=0.0,
            event_id="",
            content_type=ContentType.MSGPACK,
            body=body,
        )

    def _result(self, kind: str) -> NodeResult:
        return NodeResult(
            operation=self.rules.operation,
            success=kind == SUCCESS,
            error_code=_CODES.get(kind, ""),
            error_reason="",
            wallet_id="w",
            operation_id="t",
        )
