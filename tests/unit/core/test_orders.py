"""What is ordered, as one message: who it covers, and what is no order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import orders
from initiator.core.model import Operation
from initiator.core.orders import ALL, Freeze, Line, Orders, Scope
from initiator.errors import Code, RejectError

AT = 1_767_225_600.0
CLIENTS = st.sampled_from([None, "alice", "bob"])
OPERATIONS = st.sampled_from([None, *Operation])
SCOPES = st.builds(Scope, client=CLIENTS, operation=OPERATIONS)


def freeze(scope: Scope, since: int | None = None) -> Freeze:
    return Freeze(scope=scope, by="ops", at=AT, reason="a leak", since=since)


@given(st.sets(SCOPES), st.sampled_from(["alice", "bob", "carol"]), st.sampled_from(list(Operation)))
def test_a_freeze_covers_whoever_it_names_and_nobody_else(
    scopes: set[Scope], client: str, operation: Operation
) -> None:
    stand = Orders(freezes=tuple(freeze(scope) for scope in scopes))
    covered = any(
        scope.client in (None, client) and scope.operation in (None, operation) for scope in scopes
    )  # fmt: skip
    assert (stand.freeze_of(client, operation) is not None) == covered
    for scope in scopes:
        assert stand.thawed(scope).freeze_with(scope) is None
        assert len(stand.thawed(scope).freezes) == len(scopes) - 1


@given(st.sets(SCOPES), st.none() | st.integers(0, 10**15), st.integers(1000, 10**9))
def test_orders_are_read_as_they_were_written(scopes: set[Scope], limit: int | None, sequence: int) -> None:
    line = None if limit is None else Line(id="ab12", limit=limit, by="ops", at=AT, reason="a budget")
    written = Orders(freezes=tuple(freeze(scope, since=7) for scope in scopes), line=line)
    read = orders.decode(orders.encode(written, {"change": "freeze"}), sequence)
    assert (read.freezes, read.line, read.sequence) == (written.freezes, line, sequence)


def test_a_freeze_is_as_old_as_the_event_that_first_ordered_it() -> None:
    first = orders.decode(orders.encode(Orders().frozen(freeze(ALL)), {}), 10)
    second = orders.decode(orders.encode(first.frozen(freeze(Scope(client="alice"))), {}), 20)
    assert [one.since for one in second.freezes] == [10, 20]


def test_what_was_recorded_before_a_freeze_goes_on_and_what_was_recorded_after_it_does_not() -> None:
    stand = Orders(freezes=(freeze(Scope(client="alice"), since=10),))
    assert stand.freeze_of("alice", Operation.SIGN, recorded=9) is None
    assert stand.freeze_of("alice", Operation.SIGN, recorded=11) is stand.freezes[0]
    assert stand.freeze_of("bob", Operation.SIGN, recorded=11) is None


def valid() -> dict[str, Any]:
    line = Line(id="ab12", limit=5, by="ops", at=AT, reason="a budget")
    found: dict[str, Any] = json.loads(orders.encode(Orders(freezes=(freeze(ALL),), line=line), {"change": "freeze"}))
    return found


def broken(*path: str | int, value: object) -> bytes:
    said = valid()
    inner: Any = said
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return json.dumps(said).encode()


def test_what_is_broken_below_is_whole_before() -> None:
    orders.decode(json.dumps(valid()).encode(), 1)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"freezes": [], "line": 1}', b'{"freezes": []}',
        broken("freezes", 0, "client", value="a.b"), broken("freezes", 0, "client", value=1),
        broken("freezes", 0, "op", value="transfer"), broken("freezes", 0, "op", value=["sign"]),
        broken("freezes", 0, "since", value=0), broken("freezes", 0, "since", value=2),
        broken("freezes", 0, "since", value=True), broken("freezes", 0, "at", value="yesterday"),
        broken("freezes", 0, "until", value="later"), broken("freezes", 0, "by", value=None),
        broken("freezes", value=[valid()["freezes"][0]] * 2), broken("freezes", value={}),
        broken("line", "limit", value=-1), broken("line", "limit", value=1.5), broken("line", "id", value="a>"),
        broken("until", value=1),
    ],
)  # fmt: skip
def test_what_is_no_order_of_this_version_is_refused_as_a_whole(data: bytes) -> None:
    with pytest.raises(RejectError) as refused:
        orders.decode(data, 1)
    assert refused.value.code is Code.UNDECODABLE
