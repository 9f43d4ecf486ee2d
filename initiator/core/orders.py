"""What operators have ordered: what is frozen, and how many signatures may be made until somebody raises the line.

The orders are one message, so that they are read as a whole. Each change of them is an event in the record, with who
made it, when and why, and carries all orders that stand after it; the last one is in force.

Invariant: the record orders a freeze and a signature. What was recorded as signed after `Freeze.since` was recorded
late, whatever its writer knew, and stays here for as long as the freeze lasts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from initiator.core import events, subjects
from initiator.core.model import Operation
from initiator.errors import Code, RejectError

MOST_FREEZES = 1000
MOST_SIGNATURES = 10**15
MOST_TEXT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose requests and which of them; None: any."""

    client: str | None = None
    operation: Operation | None = None

    def __str__(self) -> str:
        parts = [f"client {self.client}" if self.client else "", self.operation.value if self.operation else ""]
        return " ".join(part for part in parts if part) or "all"


ALL = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """One freeze.

    Attributes:
        by: the operator's name, by their own word.
        at: when, Unix seconds by the clock of the operator's machine.
        since: the sequence of the event in the record that ordered it; None: the one that it stands in.
    """

    scope: Scope
    by: str
    at: float
    reason: str
    since: int | None = None

    def __str__(self) -> str:
        return f"{self.scope} frozen by {self.by} at {events.format_time(self.at)}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The stop line: at most `limit` calls to the signer, counted from when it was set.

    Attributes:
        id: names its counter.
    """

    id: str
    limit: int
    by: str
    at: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """All that stands.

    Attributes:
        sequence: of the event that says so, 0 if there never was any.
        stored_at: when the server stored it, Unix seconds.
    """

    sequence: int = 0
    stored_at: float = field(default=0.0, compare=False)
    freezes: tuple[Freeze, ...] = ()
    line: Line | None = None
    _by_scope: Mapping[tuple[str | None, Operation | None], Freeze] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_scope = {(freeze.scope.client, freeze.scope.operation): freeze for freeze in self.freezes}
        object.__setattr__(self, "_by_scope", by_scope)

    def freeze_of(self, client: str | None, operation: Operation | None, recorded: int | None = None) -> Freeze | None:
        """A freeze that covers these requests.

        Args:
            recorded: sequence of the recorded signature: then only a freeze that was ordered before it.
        """
        if not self.freezes:
            return None
        for key in ((None, None), (client, None), (None, operation), (client, operation)):
            found = self._by_scope.get(key)
            if found is not None and (recorded is None or (found.since or 0) < recorded):
                return found
        return None

    def freeze_with(self, scope: Scope) -> Freeze | None:
        """The freeze of exactly this scope."""
        return self._by_scope.get((scope.client, scope.operation))

    def older_than(self, known: Orders) -> bool:
        """Whether these come from a record that has gone back, or that lags, behind others that were read before.

        In a record that was restored sequences begin lower again; what is ordered then is later by its time.
        """
        return self.sequence < known.sequence and self.stored_at <= known.stored_at

    def frozen(self, freeze: Freeze) -> Orders:
        """These and one freeze more."""
        return replace(self, freezes=(*self.freezes, freeze))

    def thawed(self, scope: Scope) -> Orders:
        """These without the freeze of exactly this scope."""
        return replace(self, freezes=tuple(freeze for freeze in self.freezes if freeze.scope != scope))


def encode(orders: Orders, change: Mapping[str, Any]) -> bytes:
    """The event that puts `orders` in force, with what was changed and by whom."""
    return json.dumps({**change, "freezes": [_freeze(one) for one in orders.freezes], "line": _line(orders)}).encode()


def _freeze(freeze: Freeze) -> dict[str, Any]:
    scope = {"client": freeze.scope.client, "op": freeze.scope.operation.value if freeze.scope.operation else None}
    said = scope | {"by": freeze.by, "at": events.format_time(freeze.at), "reason": freeze.reason}
    return said if freeze.since is None else said | {"since": freeze.since}


def _line(orders: Orders) -> dict[str, Any] | None:
    line = orders.line
    if line is None:
        return None
    at = events.format_time(line.at)
    return {"id": line.id, "limit": line.limit, "by": line.by, "at": at, "reason": line.reason}


def decode(data: bytes, sequence: int, stored_at: float = 0.0) -> Orders:
    """The orders in an event of the record.

    Raises:
        RejectError: `UNDECODABLE`: these are no orders of ours, or some that this version does not know. Nothing may
            be signed then: what cannot be read may be a freeze.
    """
    try:
        said = json.loads(data)
        _check_names(said)
        freezes = tuple(_read_freeze(one, sequence) for one in said["freezes"])
        line = None if said["line"] is None else _read_line(said["line"])
        _check_scopes(freezes)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"no orders of this version of the product: {type(error).__name__}"
        raise RejectError(Code.UNDECODABLE, reason) from error
    return Orders(sequence=sequence, stored_at=stored_at, freezes=freezes, line=line)


def _check_names(said: dict[str, Any]) -> None:
    if said.keys() - {"change", "scope", "by", "at", "reason", "limit", "freezes", "line"}:
        raise ValueError
    if not isinstance(said["freezes"], list):
        raise TypeError


def _check_scopes(freezes: tuple[Freeze, ...]) -> None:
    """A scope that stands twice could be lifted once: such orders are not ours."""
    if len(freezes) > MOST_FREEZES or len({freeze.scope for freeze in freezes}) < len(freezes):
        raise ValueError


def _read_freeze(said: dict[str, Any], sequence: int) -> Freeze:
    client, operation, since = said.pop("client"), said.pop("op"), said.pop("since", sequence)
    if client is not None and not subjects.is_client(client):
        raise ValueError
    if type(since) is not int or not 0 < since <= sequence:
        raise ValueError
    scope = Scope(client=client, operation=None if operation is None else Operation(operation))
    return Freeze(scope=scope, since=since, **_read_who(said))


def _read_line(said: dict[str, Any]) -> Line:
    name, limit = said.pop("id"), said.pop("limit")
    if type(limit) is not int or not 0 <= limit <= MOST_SIGNATURES or not events.is_id(name):
        raise ValueError
    return Line(id=name, limit=limit, **_read_who(said))


def _read_who(said: dict[str, Any]) -> dict[str, Any]:
    by, at, reason = said.pop("by"), said.pop("at"), said.pop("reason")
    if said or not isinstance(by, str) or not isinstance(reason, str):
        raise ValueError
    return {"by": by, "at": events.parse_time(at), "reason": reason}
