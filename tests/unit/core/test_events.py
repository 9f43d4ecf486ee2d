"""Events: what is written is what is read, in both encodings, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import events
from initiator.core.events import Event, Outcome, State
from initiator.core.model import ContentType, Operation
from initiator.errors import Code, RejectError
from tests.support.events import event_of

RECORDED = [state for state in State if state is not State.REJECTED]


@given(
    state=st.sampled_from(RECORDED),
    operation=st.sampled_from(list(Operation)),
    content_type=st.sampled_from(list(ContentType)),
    attempt=st.integers(1, 99),
    body=st.dictionaries(st.sampled_from(["code", "reason", "labels"]), st.text(st.characters(codec="utf-8"))),
)
def test_what_is_written_is_what_is_read(
    state: State, operation: Operation, content_type: ContentType, attempt: int, body: dict[str, str]
) -> None:
    event = event_of("id", state, operation=operation, content_type=content_type, attempt=attempt, body=body)
    assert events.decode(content_type, events.encode(event)) == event


def test_both_encodings_say_the_same() -> None:
    event = event_of("id", State.FAILED, body={"code": "X", "outcome": "none"})
    as_json = dataclasses.replace(event, content_type=ContentType.JSON)
    assert json.loads(events.encode(as_json)) == msgpack.unpackb(events.encode(event))


def test_a_field_that_this_version_does_not_know_is_kept() -> None:
    event = event_of("id")
    later = msgpack.packb(msgpack.unpackb(events.encode(event)) | {"invented_later": 1})
    assert events.decode(ContentType.MSGPACK, later).body == {"invented_later": 1}


def changed(**changes: Any) -> bytes:
    fields = msgpack.unpackb(events.encode(event_of("id")))
    for name, value in changes.items():
        if value is None:
            del fields[name]
        else:
            fields[name] = value
    return bytes(msgpack.packb(fields))


NAMES = ["op", "id", "client", "state", "attempt", "time", "request_seq", "request_digest", "expires_at", "event_id"]


@pytest.mark.parametrize("name", NAMES)
def test_an_event_without_one_of_its_fields_is_none(name: str) -> None:
    with pytest.raises(RejectError) as error:
        events.decode(ContentType.MSGPACK, changed(**{name: None}))
    assert error.value.code is Code.UNDECODABLE


@pytest.mark.parametrize(
    "change",
    [{"op": "burn"}, {"state": "happy"}, {"time": "noon"}, {"time": 5}, {"expires_at": "2026-99-99"}, {"op": []}],
)
def test_an_event_with_a_field_of_another_form_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(RejectError) as error:
        events.decode(ContentType.MSGPACK, changed(**change))
    assert error.value.code is Code.UNDECODABLE


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x80", b"\x90", b"\xc0", b"{}"])
def test_rubbish_is_no_event(data: bytes) -> None:
    with pytest.raises(RejectError):
        events.decode(ContentType.MSGPACK, data)


def subject(event: Event) -> str:
    return event.subject


@pytest.mark.parametrize("state", RECORDED)
def test_only_the_sealed_event_lies_where_nothing_is_republished(state: State) -> None:
    tokens = subject(event_of("id", state)).split(".")
    assert tokens[:5] == ["initiator", "event", "alice", "sign", "id"]
    assert len(tokens) == (7 if state in (State.AUTHORIZING, State.SIGNED) else 6)
    assert tokens[5] == state.value


def test_the_outcome_belongs_to_failed_alone() -> None:
    assert event_of("id", State.FAILED, body={"outcome": "unknown"}).outcome is Outcome.UNKNOWN
    assert event_of("id", State.COMPLETED).outcome is None


@pytest.mark.parametrize("text", ["", "a.b", "*", ">", "a b", "ä", "x" * 65, "a\n"])
def test_what_cannot_be_an_id_never_reaches_a_subject(text: str) -> None:
    assert not events.is_id(text)
    assert events.is_id("Ab_-9" + "x" * 59)


@given(st.integers(0, 4_000_000_000_000))
def test_times_keep_their_milliseconds(milliseconds: int) -> None:
    assert events.parse_time(events.format_time(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-4)
