"""Dead letters: what their headers say, which ones a filter takes, and what a time on the command line means."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import deadletter, subjects
from initiator.core.deadletter import DeadLetter, Original, Page, Selection, headers_of, read
from initiator.core.events import State, parse_when
from initiator.core.model import Operation
from initiator.errors import Code, RejectError
from tests.support.events import event_of

NOW = 1_769_860_800.5  # 2026-01-31T12:00:00.5Z
ERROR = RejectError(Code.EXPIRED, "expired\n before it  was read", field="expires_at")


def original(headers: Mapping[str, str], received_at: float | None = NOW - 60) -> Original:
    return Original(subject="initiator.request.alice.sign", headers=headers, received_at=received_at)


def letter(subject: str = "initiator.dead.alice.sign.7", time: float = NOW, code: str = "EXPIRED") -> DeadLetter:
    found = read(subject, 3, time, {"Initiator-Code": code})
    assert found is not None
    return found


# --- the form


def test_a_letter_says_why_when_and_from_where() -> None:
    sender = {"Content-Type": "application/json", "traceparent": "00-1", "Nats-Msg-Id": "m"}
    ended = event_of("t", State.FAILED, event_id="e1", body={"outcome": "none"})
    headers = headers_of(original(sender), ERROR, NOW, ended)
    assert headers == {
        "Original-Content-Type": "application/json",
        "Original-traceparent": "00-1",
        "Original-Nats-Msg-Id": "m",
        "Initiator-Code": "EXPIRED",
        "Initiator-Reason": "expired before it was read",
        "Initiator-Field": "expires_at",
        "Initiator-Outcome": "none",
        "Initiator-Event": "e1",
        "Initiator-Subject": "initiator.request.alice.sign",
        "Initiator-Received": "2026-01-31T11:59:00.500Z",
        "Initiator-Time": "2026-01-31T12:00:00.500Z",
    }
    found = read("initiator.dead.alice.sign.7", 3, NOW, headers)
    assert found == DeadLetter(
        sequence=3, time=NOW, client="alice", operation=Operation.SIGN, code="EXPIRED",
        reason="expired before it was read", field="expires_at", outcome="none", event_id="e1", original_sequence=7,
        original=original(sender),
    )  # fmt: skip
    kept = {"Content-Type": "application/json", "traceparent": "00-1"}
    assert found.request_headers() == kept | {"Initiator-Reopen": "e1"}
    unknown = replace(found, outcome="unknown")
    assert unknown.request_headers() == kept
    asked = replace(unknown, original=original(sender | {"initiator-reopen": "old"}))
    assert asked.request_headers() == kept


def test_a_letter_of_an_older_version_reads_all_the_same() -> None:
    found = read("initiator.dead.$results.keygen.9", 4, NOW, {"Initiator-Code": "RESULT_INVALID"})
    assert found is not None
    assert (found.client, found.is_result, found.original_sequence) == (None, True, 9)
    assert (found.original.received_at, found.outcome, found.reason) == (None, "", "")


NAMES = st.text(max_size=12)


@given(st.dictionaries(NAMES, NAMES))
def test_no_header_of_a_sender_passes_for_ours(sender: dict[str, str]) -> None:
    forged = sender | {"Initiator-Code": "FORGED", "Initiator-Outcome": "none", "Original-Initiator-Code": "FORGED"}
    headers = headers_of(original(forged, None), ERROR, NOW)
    found = read("initiator.dead.alice.sign.7", 3, NOW, headers)
    assert found is not None
    assert (found.code, found.outcome) == ("EXPIRED", "")
    assert all(name.startswith(("Initiator-", "Original-")) for name in headers)
    kept = {name: value for name, value in forged.items() if deadletter._TOKEN.fullmatch(name)}
    assert found.original.headers == kept


@pytest.mark.parametrize("name", ["", "A B", "A:B", "A(B)", "A\r\nB", "é"])
def test_a_header_that_nobody_could_send_again_is_left_out(name: str) -> None:
    assert not any(key.startswith("Original-") for key in headers_of(original({name: "x"}, None), ERROR, NOW))


@pytest.mark.parametrize("name", ["Nats-Msg-Id", "nats-expected-last-sequence", "NATS-TTL"])
def test_a_replay_takes_nothing_along_that_was_for_one_publish(name: str) -> None:
    found = read("initiator.dead.alice.sign.7", 3, NOW, {f"Original-{name}": "1", "Original-X": "2"})
    assert found is not None
    assert found.request_headers() == {"X": "2"}


@pytest.mark.parametrize(
    "subject",
    [
        "initiator.dead",
        "initiator.dead.alice.sign",
        "initiator.dead.alice.sign.x",
        "initiator.dead.alice.sign.7.8",
        "initiator.dead.alice.burn.7",
        "initiator.dead.*.sign.7",
        "initiator.dead.$other.sign.7",
        "initiator.request.alice.sign.7",
    ],
)
def test_what_is_none_of_ours_is_no_letter(subject: str) -> None:
    assert subjects.parse_dead(subject) is None
    assert read(subject, 1, NOW, {}) is None


# --- filters


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        (Selection(), True),
        (Selection(client="alice"), True),
        (Selection(client="bob"), False),
        (Selection(operation=Operation.SIGN), True),
        (Selection(operation=Operation.KEYGEN), False),
        (Selection(code="EXPIRED"), True),
        (Selection(code="CONFLICT"), False),
        (Selection(since=NOW), True),
        (Selection(since=NOW + 0.001), False),
        (Selection(until=NOW), False),
        (Selection(until=NOW + 0.001), True),
        (Selection(results=True), False),
        (Selection(client="alice", code="CONFLICT"), False),
    ],
)
def test_a_filter_takes_what_all_its_parts_take(selection: Selection, taken: bool) -> None:
    assert selection.takes(letter()) is taken


def test_results_are_taken_unless_a_client_is_asked_for() -> None:
    result = letter("initiator.dead.$results.sign.7")
    assert Selection().takes(result)
    assert Selection(results=True).takes(result)
    assert not Selection(client="alice").takes(result)


@pytest.mark.parametrize(
    ("selection", "subject"),
    [
        (Selection(), "initiator.dead.*.*.*"),
        (Selection(client="alice"), "initiator.dead.alice.*.*"),
        (Selection(operation=Operation.SIGN), "initiator.dead.*.sign.*"),
        (Selection(results=True, operation=Operation.SIGN), "initiator.dead.$results.sign.*"),
    ],
)
def test_the_server_chooses_what_it_can(selection: Selection, subject: str) -> None:
    assert selection.subject_filter == subject


def test_a_page_holds_the_oldest_and_counts_the_rest() -> None:
    page = Page(2)
    for time in (1.0, 2.0, 3.0, 4.0):
        page.add(letter(time=time))
    assert ([found.time for found in page.letters], page.more) == ([1.0, 2.0], 2)


# --- times


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", NOW - 7_200),
        ("90s", NOW - 90),
        ("1d12h", NOW - 129_600),
        ("1d2h3m4s", NOW - 93_784),
        ("0s", NOW),
        ("2026-01-31T12:00:00.5Z", NOW),
        ("2026-01-31t12:00:00.5z", NOW),
        ("2026-01-31T13:00:00.500+01:00", NOW),
    ],
)
def test_a_time_is_a_moment_or_so_long_ago(text: str, at: float) -> None:
    assert parse_when(text, NOW) == at


@pytest.mark.parametrize(
    "text", ["", "2", "h", "2 h", "-2h", "2h1d", "2w", "1.5h", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "²h"]
)
def test_any_other_text_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected RFC 3339 with a zone, such as .*, got '"):
        parse_when(text, NOW)


@given(st.text())
def test_a_time_is_read_or_refused_and_nothing_else_happens(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_when(text, NOW), float)
