"""Subjects: who asks is read from them, so nothing but our own form is read, and no two things share one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import subjects
from initiator.core.events import State
from initiator.core.model import Operation
from initiator.core.subjects import DeadSubject, RequestSubject

KEYGEN, SIGN, RESHARE = Operation.KEYGEN, Operation.SIGN, Operation.RESHARE
NAMES = st.text("abAB01_-", min_size=1, max_size=6)
OPERATIONS = st.sampled_from(Operation)
SEQUENCES = st.integers(1, 2**63)


def matches(pattern: str, subject: str) -> bool:
    """NATS' own rule: `*` is one token, `>` at the end one or more."""
    tokens = [r"[^.]+" if token == "*" else r".+" if token == ">" else re.escape(token) for token in pattern.split(".")]
    return re.fullmatch(r"\.".join(tokens), subject) is not None


# --- requests in


@given(NAMES, OPERATIONS)
def test_a_request_subject_reads_back(client: str, operation: Operation) -> None:
    assert subjects.parse_request(subjects.request(client, operation)) == RequestSubject(client, operation)


@pytest.mark.parametrize("client", ["a", "0", "-", "_", "Team-A_1", "x" * 64])
def test_any_name_that_the_settings_allow_is_a_client(client: str) -> None:
    assert subjects.parse_request(f"initiator.request.{client}.sign") == RequestSubject(client, SIGN)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        ".",
        "initiator",
        "initiator.request",
        "initiator.request.alice",
        "initiator.request.alice.",
        "initiator.request..sign",
        "initiator.request.alice.sign.",
        "initiator.request.alice.sign.x",
        "initiator.request.alice.bob.sign",
        ".initiator.request.alice.sign",
        " initiator.request.alice.sign",
        "initiator.request.alice.sign ",
        "initiator.request.alice.sign\n",
        "initiator.request.alice.SIGN",
        "initiator.request.alice.signing",
        "initiator.request.alice.*",
        "initiator.request.alice.>",
        "initiator.request.*.sign",
        "initiator.request.>.sign",
        "initiator.request.>",
        "initiator.request.al ice.sign",
        "initiator.request.alice\n.sign",
        "initiator.request.alice\x00.sign",
        "initiator.request.$results.sign",
        "initiator.request.al~ice.sign",
        "initiator.request.alicé.sign",
        f"initiator.request.{'x' * 65}.sign",
        "Initiator.request.alice.sign",
        "initiator.Request.alice.sign",
        "initiator.event.alice.sign",
        "initiator.reject.alice.sign",
        "mpc.signing_request.alice.sign",
        "initiator/request/alice/sign",
    ],
)
def test_another_subject_is_nobodys_request(subject: str) -> None:
    assert subjects.parse_request(subject) is None


@given(NAMES, OPERATIONS, st.integers(0, 40), st.sampled_from("a.*> \n"))
def test_whatever_is_read_is_written_the_same(client: str, operation: Operation, at: int, more: str) -> None:
    subject = subjects.request(client, operation)
    changed = subject[:at] + more + subject[at:]
    found = subjects.parse_request(changed)
    assert found is None or subjects.request(found.client, found.operation) == changed
    assert (found is None) == (more != "a" or not 18 <= at <= 18 + len(client))


# --- one thing, one subject


# names that are close to each other, and to parts of what is built from them
CLOSE = [
    "a",
    "a_",
    "_",
    "-",
    "a-1",
    "a_1",
    "1",
    "11",
    "a1",
    "a11",
    "sign",
    "a_sign",
    "a_keygen",
    "a_sign_sign",
    "_sign",
]
PAIRS = list(itertools.product(CLOSE, Operation))


@pytest.mark.parametrize("name", [subjects.request, subjects.durable])
def test_two_clients_or_operations_never_share_a_name(name: Callable[[str, Operation], str]) -> None:
    assert len({name(*pair) for pair in PAIRS}) == len(PAIRS)


def test_each_attempt_at_the_nodes_has_a_token_of_its_own() -> None:
    attempts = list(itertools.product([KEYGEN, SIGN], CLOSE, range(1, 13)))
    found = {subjects.node_request(*attempt) for attempt in attempts}
    assert len(found) == len(attempts)
    # one token: a dotted one hits no stream of the nodes
    assert all(re.fullmatch(r"mpc\.(keygen|signing)_request\.[^.*>\s]+", subject) for subject in found)


@pytest.mark.parametrize(
    ("operation", "subject"), [(KEYGEN, "mpc.keygen_request.a-1~2"), (SIGN, "mpc.signing_request.a-1~2")]
)
def test_an_attempt_goes_where_the_nodes_listen(operation: Operation, subject: str) -> None:
    assert subjects.node_request(operation, "a-1", 2) == subject


def test_a_reshare_has_the_one_subject_that_the_nodes_listen_on() -> None:
    assert subjects.node_request(RESHARE, "s1", 1) == subjects.node_request(RESHARE, "s2", 9) == "mpc:reshare"


@given(NAMES, OPERATIONS, NAMES, SEQUENCES)
def test_no_two_streams_of_ours_take_one_subject(client: str, operation: Operation, id_: str, seq: int) -> None:
    ours = {
        "initiator.request.>": [subjects.request(client, operation)],
        "initiator.event.>": [subjects.event(client, operation, id_, state) for state in State],
        "initiator.reject.>": [subjects.reject(client, operation, seq)],
        "initiator.dead.>": [subjects.dead(client, operation, seq), subjects.dead_result(operation, seq)],
        "initiator.slot.>": [subjects.slot(operation, id_)],
        "initiator.out.>": [subjects.out(client, operation, id_, State.ACCEPTED)],
    }
    for pattern, names in ours.items():
        for name in names:
            assert [other for other in ours if matches(other, name)] == [pattern]


@given(NAMES, OPERATIONS, SEQUENCES)
def test_a_dead_letters_subject_says_whose_it_was(client: str, operation: Operation, seq: int) -> None:
    assert subjects.parse_dead(subjects.dead(client, operation, seq)) == DeadSubject(client, operation, seq)
    assert subjects.parse_dead(subjects.dead_result(operation, seq)) == DeadSubject(None, operation, seq)


# --- the guard and what leaves


@given(NAMES, OPERATIONS, NAMES, st.sampled_from(State))
def test_one_filter_guards_an_id_under_every_client_and_no_other_id(
    client: str, operation: Operation, id_: str, state: State
) -> None:
    guard = subjects.guard_filter(operation, id_)
    assert matches(guard, subjects.event(client, operation, id_, state))
    assert matches(guard, subjects.event(client, operation, id_, "signed.sealed"))
    assert not matches(guard, subjects.event(client, operation, f"{id_}x", state))
    for other in set(Operation) - {operation}:
        assert not matches(guard, subjects.event(client, other, id_, state))


@given(NAMES, OPERATIONS, NAMES, SEQUENCES)
def test_events_and_rejections_leave_to_their_client_and_sealed_bytes_never(
    client: str, operation: Operation, id_: str, seq: int
) -> None:
    source = subjects.REPUBLISH_SOURCE
    event = subjects.event(client, operation, id_, "completed")
    assert matches(source, event)
    assert matches(source, subjects.reject(client, operation, seq))
    assert not matches(source, subjects.event(client, operation, id_, "signed.sealed"))
    stars = [token for token, star in zip(event.split("."), source.split("."), strict=True) if star == "*"]
    destination = re.sub(
        r"\{\{wildcard\((\d)\)\}\}", lambda match: stars[int(match[1]) - 1], subjects.REPUBLISH_DESTINATION
    )
    assert destination == subjects.out(client, operation, id_, "completed")


# --- the nodes' results


@pytest.mark.parametrize(
    ("operation", "client_id", "pattern", "durable"),
    [
        (KEYGEN, "init", "mpc.mpc_keygen_result.init.*", "mpc_keygen_result_init"),
        (SIGN, "init", "mpc.mpc_signing_result.init.*", "mpc_signing_result_init"),
        (RESHARE, "init", "mpc.mpc_reshare_result.init.*", "mpc_reshare_result_init"),
        (KEYGEN, None, "mpc.mpc_keygen_result.*", "mpc_keygen_result"),
        (SIGN, None, "mpc.mpc_signing_result.*", "mpc_signing_result"),
        (RESHARE, None, "mpc.mpc_reshare_result.*", "mpc_reshare_result"),
    ],
)
def test_results_are_looked_for_under_the_nodes_own_names(
    operation: Operation, client_id: str | None, pattern: str, durable: str
) -> None:
    assert subjects.node_result_filter(operation, client_id) == pattern
    assert subjects.node_result_durable(operation, client_id) == durable


def test_the_names_on_the_wire_are_as_documented() -> None:
    assert subjects.request("alice", SIGN) == "initiator.request.alice.sign"
    assert subjects.event("alice", KEYGEN, "w1", "accepted") == "initiator.event.alice.keygen.w1.accepted"
    assert subjects.guard_filter(RESHARE, "s1") == "initiator.event.*.reshare.s1.>"
    assert subjects.reject("alice", SIGN, 7) == "initiator.reject.alice.sign.7.rejected"
    assert subjects.dead("alice", SIGN, 7) == "initiator.dead.alice.sign.7"
    assert subjects.dead_result(SIGN, 7) == "initiator.dead.$results.sign.7"
    assert subjects.out("alice", SIGN, "t1", "completed") == "initiator.out.alice.sign.t1.completed"
    assert subjects.slot(KEYGEN, "w1") == "initiator.slot.keygen.w1"
    assert subjects.SLOTS_STREAMS[KEYGEN] == "INITIATOR_SLOTS_KEYGEN"
    assert subjects.NODE_STREAMS == {KEYGEN: "mpc-keygen", SIGN: "mpc-signing"}
