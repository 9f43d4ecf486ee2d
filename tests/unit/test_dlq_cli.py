"""`initiator dlq` without a server: how letters are shown, and mistakes told by the flag."""

from __future__ import annotations

import base64
import hashlib
import json

import msgpack
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from initiator.cli import letters
from initiator.cli.dlq import dlq
from initiator.core.deadletter import DeadLetter, Original
from initiator.core.model import Operation
from initiator.errors import Code, RejectError

TX = b"\x01secret-bytes"
DIGEST = hashlib.sha256(TX).hexdigest()


def letter(reason: str = "it is wrong", encoding: str | None = None, client: str | None = "alice") -> DeadLetter:
    headers = {} if encoding is None else {"Content-Type": encoding}
    return DeadLetter(
        sequence=7, time=1_769_860_800.0, client=client, operation=Operation.SIGN, code="INVALID_FIELD", reason=reason,
        field="tx", outcome="", event_id="", original_sequence=12,
        original=Original(subject="initiator.request.alice.sign", headers=headers, received_at=1_769_860_799.0),
    )  # fmt: skip


# --- the table


def test_columns_stand_below_each_other() -> None:
    assert letters.table([letter(), letter(client=None)], None) == [
        "SEQ  TIME                      CLIENT   OP    CODE           FIELD  REASON",
        "  7  2026-01-31T12:00:00.000Z  alice    sign  INVALID_FIELD  tx     it is wrong",
        "  7  2026-01-31T12:00:00.000Z  (nodes)  sign  INVALID_FIELD  tx     it is wrong",
    ]


def test_a_reason_is_cut_to_the_terminal_and_to_no_less_than_can_be_read() -> None:
    long = "expected " + "much " * 30
    assert len(letters.table([letter(long)], 120)[1]) == 120
    assert letters.table([letter(long)], 120)[1].endswith("…")
    assert letters.table([letter(long)], 10)[1].endswith("expected much much …")
    assert letters.table([letter(long)], None)[1].endswith(long)


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_out(text: str) -> None:
    lines = [*letters.table([letter(text)], None), *letters.full(letter(text), b"\xc1", values=True)]
    assert all(line.isprintable() for line in lines)
    assert letters.plain(text).isprintable()


# --- payloads


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("encoding", [None, "application/msgpack", "application/json"])
def test_what_is_to_be_signed_is_shown_by_digest_alone(encoding: str | None, values: bool) -> None:
    fields = {"tx_id": "t1", "derivation_path": [1, 2], "labels": {"a": "b"}, "n": 1, "x": None, "y": True, "z": 1.5}
    if encoding == "application/json":
        data = json.dumps(fields | {"tx": base64.b64encode(TX).decode()}).encode()
    else:
        data = msgpack.packb(fields | {"tx": TX})
    shown = letters.payload_json(letter(encoding=encoding), data, values=values)
    assert (shown["bytes"], shown["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert shown["fields"]["tx_id"] == "text, 2 bytes"
    assert shown["fields"]["derivation_path"] == "list of 2"
    assert shown["fields"]["labels"] == "map of 1"
    assert [shown["fields"][name] for name in "nxyz"] == ["integer", "null", "boolean", "number"]
    assert shown.get("values") == (fields | {"tx": {"sha256": DIGEST, "bytes": len(TX)}} if values else None)
    text = "\n".join(letters.full(letter(encoding=encoding), data, values=values)) + json.dumps(shown)
    assert "secret" not in text
    assert base64.b64encode(TX).decode() not in text


def test_what_the_nodes_signed_is_shown_by_digest_alone_wherever_it_stands() -> None:
    data = json.dumps({"signature": "c2VjcmV0", "r": "not base64!", "nested": {"s": "c2VjcmV0"}}).encode()
    shown = letters.payload_json(letter(client=None), data, values=True)
    secret = {"sha256": hashlib.sha256(b"secret").hexdigest(), "bytes": 6}
    assert shown["values"]["signature"] == shown["values"]["nested"]["s"] == secret
    assert shown["values"]["r"] == {"sha256_of_text": hashlib.sha256(b"not base64!").hexdigest(), "bytes": 11}


@pytest.mark.parametrize(
    ("encoding", "told"),
    [(None, "not application/msgpack: "), ("text/plain", "expected application/msgpack or application/json, got ")],
)
def test_what_cannot_be_decoded_is_told_with_its_size(encoding: str | None, told: str) -> None:
    shown = letters.payload_json(letter(encoding=encoding), b"\xc1secret", values=True)
    assert shown["undecodable"].startswith(told)
    assert shown["bytes"] == 7
    assert "fields" not in shown


def test_a_refusal_is_one_line() -> None:
    error = RejectError(Code.EXPIRED, "too\nlate", field="expires_at", hint="be early")
    assert letters.refusal(error) == "EXPIRED expires_at: too\\nlate (be early)"


# --- mistakes

MISTAKES = [
    (("ls", "--client", "a.*"), "'--client': expected 1 to 64 of A-Z a-z 0-9 _ -, got 'a.*'"),
    (("ls", "--op", "burn"), "'--op': 'burn' is not one of 'keygen', 'sign', 'reshare'."),
    (("ls", "--code", "OOPS"), "'--code': expected a code of the runbook, such as EXPIRED, got 'OOPS'"),
    (("ls", "--since", "soon"), "'--since': expected RFC 3339 with a zone"),
    (("ls", "--until", "2026-01-31"), "'--until': expected RFC 3339 with a zone"),
    (("ls", "--since", "1h", "--until", "2h"), "--until: expected a time after --since"),
    (("ls", "--results", "--client", "alice"), "--results: results of the nodes have no --client"),
    (("ls", "--limit", "0"), "'--limit': 0 is not in the range x>=1."),
    (("show",), "Missing argument 'SEQ'."),
    (("show", "0"), "'SEQ': 0 is not in the range x>=1."),
    (("replay",), "SEQ: expected sequences, or --all with or without filters"),
    (("replay", "1", "--all"), "SEQ: expected sequences, or --all with or without filters"),
    (("replay", "1", "--client", "alice"), "SEQ: filters choose among --all, not among sequences"),
    (("replay", "--client", "alice"), "SEQ: expected sequences, or --all with or without filters"),
    (("replay", "--all", "--results"), "No such option '--results'"),
    (("drop", "x", "--yes"), "'[SEQ]...': 'x' is not a valid integer range."),
    (("drop", "1"), "--yes: needed where there is no terminal to ask on"),
    (("drop", "--yes"), "SEQ: expected sequences, or --all with or without filters"),
]


@pytest.mark.parametrize(("arguments", "told"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_told_by_its_flag_before_anything_is_connected(arguments: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(dlq, list(arguments))
    assert (done.exit_code, told in done.output) == (2, True), done.output
