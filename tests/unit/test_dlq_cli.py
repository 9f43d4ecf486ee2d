"""`initiator dlq` without a server: how letters are shown, and mistakes told by the flag."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import click
import msgpack
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from initiator.cli import exporting, letters
from initiator.cli import lettertable as tables
from initiator.cli.dlq import dlq
from initiator.core.deadletter import DeadLetter, Original, named_in
from initiator.core.model import Operation
from initiator.core.text import plain
from initiator.errors import Code, RejectError

TX = b"\x01secret-bytes"
DIGEST = hashlib.sha256(TX).hexdigest()


def letter(
    reason: str = "it is wrong", encoding: str | None = None, client: str | None = "alice", name: str | None = "t-1",
    outcome: str = "", code: str = "INVALID_FIELD", operation: Operation = Operation.SIGN, field: str = "tx",
) -> DeadLetter:  # fmt: skip
    headers = {} if encoding is None else {"Content-Type": encoding}
    return DeadLetter(
        sequence=7, time=1_769_860_800.0, client=client, operation=operation, code=code, reason=reason,
        field=field, outcome=outcome, event_id="", original_sequence=12, operation_id=name,
        original=Original(subject="initiator.request.alice.sign", headers=headers, received_at=1_769_860_799.0),
    )  # fmt: skip


# --- the table


def test_columns_stand_below_each_other() -> None:
    gone = letter(client=None, name=None, outcome="unknown")
    assert tables.table([letter(), gone], None) == [
        "SEQ  TIME                      CLIENT   OP    ID   CODE           OUTCOME  FIELD  REASON",
        "  7  2026-01-31T12:00:00.000Z  alice    sign  t-1  INVALID_FIELD  -        tx     it is wrong",
        "  7  2026-01-31T12:00:00.000Z  (nodes)  sign  -    INVALID_FIELD  unknown  tx     it is wrong",
    ]


def test_a_reason_is_cut_to_the_terminal_and_to_no_less_than_can_be_read() -> None:
    long = "expected " + "much " * 30
    shown = tables.table([letter(long)], 120)[1]
    assert (len(shown), shown[-1]) == (120, "…")
    assert shown.startswith(
        "  7  2026-01-31T12:00:00Z  alice   sign  t-1  INVALID_FIELD  -        tx     expected much"
    )
    assert tables.table([letter(long)], 10)[1].endswith("expected much much …")
    assert tables.table([letter(long)], None)[1].endswith(long)


def test_the_longest_of_everything_can_be_read_at_120_columns_and_stands_in_full_in_a_pipe() -> None:
    uuid, client = "4f1c77aa-0b2e-4d53-9f0e-3d8f3b1f7c55", "payments-europe-west"
    worst = letter("expected " + "much " * 30, client=client, name=uuid, outcome="unknown", code="UNKNOWN_FIELD",
                   operation=Operation.RESHARE, field="network_internal_code")  # fmt: skip
    heading, shown = tables.table([worst], 120)
    assert len(shown) == 120
    assert heading.split() == ["SEQ", "TIME", "CLIENT", "OP", "ID", "CODE", "OUTCOME", "FIELD", "REASON"]
    assert shown.count("…") == 4
    assert shown[heading.index("ID") :].startswith(uuid[:11])
    assert len(shown[heading.index("REASON") :]) == 20
    assert all(text in tables.table([worst], None)[1] for text in (uuid, client, worst.field, worst.reason))


def test_wide_terminals_cut_nothing() -> None:
    assert "…" not in "".join(tables.table([letter("much " * 20, name="x" * 64)], 300))


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_out(text: str) -> None:
    strange = letter(text, name=text or None)
    lines = [*tables.table([strange], None), *letters.full(strange, b"\xc1", values=True), letters.about(strange)]
    assert all(line.isprintable() for line in lines)
    assert plain(text).isprintable()


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


# --- ids


@pytest.mark.parametrize(
    ("operation", "field"),
    [(Operation.KEYGEN, "wallet_id"), (Operation.SIGN, "tx_id"), (Operation.RESHARE, "session_id")],
)
def test_an_id_is_the_field_of_its_operation(operation: Operation, field: str) -> None:
    fields = {"wallet_id": "the wallet", "tx_id": "the tx", "session_id": "the session"}
    found = named_in(letter(operation=operation), msgpack.packb(fields))
    assert found == fields[field]
    assert named_in(letter(encoding="application/json", operation=operation), json.dumps(fields).encode()) == found


@pytest.mark.parametrize("data", [b"\xc1", b"\x80", msgpack.packb({"tx_id": 5}), msgpack.packb({"tx_id": ""}), b""])
def test_a_payload_without_a_readable_id_names_none(data: bytes) -> None:
    assert named_in(letter(), data) is None
    assert named_in(letter(encoding="text/plain"), msgpack.packb({"tx_id": "t"})) is None


# --- what a replay of all will do


def test_a_plan_counts_what_is_alike_and_warns_of_sign_requests() -> None:
    keygens = [letter(operation=Operation.KEYGEN, code="KMS_UNAVAILABLE", outcome="none")] * 11
    assert letters.plan([letter(), *keygens, letter(client="bob")]) == [
        "to be published again, as new requests: 13",
        "  11  alice  keygen  KMS_UNAVAILABLE (outcome none)",
        "   1  alice  sign    INVALID_FIELD",
        "   1  bob    sign    INVALID_FIELD",
        "warning: of each sign request make sure that its sender has not asked again under another tx_id: "
        "one id never signs twice, two ids are two payments",
    ]
    assert "warning" not in "\n".join(letters.plan(keygens))


# --- an exported payload


def test_a_payload_is_written_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "payload"
    for umask in (0o000, 0o777):
        before = os.umask(umask)
        try:
            exporting.write(str(target), TX, force=umask != 0)
        finally:
            os.umask(before)
        assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (TX, 0o600)
    assert list(tmp_path.iterdir()) == [target]


def test_force_replaces_a_file_that_others_could_read(tmp_path: Path) -> None:
    target = tmp_path / "payload"
    target.write_bytes(b"old")
    target.chmod(0o644)
    with target.open("rb") as reader:
        exporting.write(str(target), TX, force=True)
        assert reader.read() == b"old"
    assert (target.read_bytes(), stat.S_IMODE(target.stat().st_mode)) == (TX, 0o600)


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target, other = tmp_path / "payload", tmp_path / "other"
    other.write_bytes(b"theirs")
    target.symlink_to(other)
    with pytest.raises(click.ClickException, match=r"--export: .*payload: File exists"):
        exporting.write(str(target), TX, force=False)
    assert other.read_bytes() == b"theirs"


def test_what_cannot_be_written_whole_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _mode: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fchmod", full)
    kept = tmp_path / "kept"
    kept.write_bytes(b"old")
    for target, force in ((tmp_path / "new", False), (kept, True)):
        with pytest.raises(click.ClickException, match="No space left on device"):
            exporting.write(str(target), TX, force=force)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("force", [False, True])
def test_what_must_not_be_written_to_is_told_before_anything_is_connected(tmp_path: Path, force: bool) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "there").write_bytes(b"old")
    told = {
        "link": f"expected a plain file, got {tmp_path}/link, which is none",
        ".": f"expected a plain file, got {tmp_path}, which is none",
        "no/file": f"expected a file in a directory that is there, got {tmp_path}/no/file",
    } | ({} if force else {"there": f"expected a new file, or --force, got {tmp_path}/there, which exists"})
    for name, reason in told.items():
        arguments = ["show", "1", "--export", str(tmp_path / name), *(["--force"] if force else [])]
        done = CliRunner().invoke(dlq, arguments)
        assert (done.exit_code, f"--export: {reason}" in done.output) == (2, True), done.output
    assert (tmp_path / "there").read_bytes() == b"old"


# --- completion


def test_a_shell_completes_codes_outcomes_and_operations() -> None:
    def completed(*words: str, begun: str = "") -> list[str]:
        complete = ShellComplete(dlq, {}, "dlq", "_DLQ_COMPLETE")
        return [item.value for item in complete.get_completions(list(words), begun)]

    assert completed("ls", "--code", begun="exp") == ["EXPIRED"]
    assert completed("ls", "--outcome") == ["none", "unknown"]
    assert completed("ls", begun="--o") == ["--op", "--outcome"]
    assert [item.type for item in ShellComplete(dlq, {}, "dlq", "_").get_completions(["show", "--export"], "")] == [
        "file"
    ]


# --- mistakes

_SEQUENCE = "expected the sequence of a dead letter, a whole number from 1 on, got"
_CHOICE = "SEQ: expected sequences, or --all with or without filters, got"
MISTAKES = [
    (("ls", "--client", "a.*"), "'--client': expected 1 to 64 of A-Z a-z 0-9 _ -, got 'a.*'"),
    (("ls", "--op", "burn"), "'--op': 'burn' is not one of 'keygen', 'sign', 'reshare'."),
    (("ls", "--code", "OOPS"), "'--code': expected a code of the runbook, such as EXPIRED, got 'OOPS'"),
    (("ls", "--outcome", "maybe"), "'--outcome': 'maybe' is not one of 'none', 'unknown'."),
    (("ls", "--id", " "), "'--id': expected a wallet_id, tx_id or session_id, got ' '"),
    (("ls", "--since", "soon"), "'--since': expected RFC 3339 with a zone"),
    (("ls", "--until", "2026-01-31"), "'--until': expected RFC 3339 with a zone"),
    (("ls", "--since", "2026-02-01T00:00:00Z", "--until", "2026-01-31T00:00:00Z"),
     "--until: expected a time after --since, got 2026-01-31T00:00:00.000Z (--since is 2026-02-01T00:00:00.000Z)"),
    (("ls", "--since", "1h", "--until", "0001-01-01T00:00:00+23:59"), "--until: expected a time after --since, got an"),
    (("ls", "--results", "--client", "alice"), "--results: results of the nodes have no client, got --client alice"),
    (("ls", "--limit", "0"), "'--limit': expected how many letters to show, a whole number from 1 on, got '0'"),
    (("ls", "--limit", "many"), "'--limit': expected how many letters to show, a whole number from 1 on, got 'many'"),
    (("show",), "Missing argument 'SEQ'."),
    (("show", "0"), f"'SEQ': {_SEQUENCE} '0'"),
    (("show", "1.5"), f"'SEQ': {_SEQUENCE} '1.5'"),
    (("show", "²"), f"'SEQ': {_SEQUENCE} '\\xb2'"),
    (("show", str(2**64)), f"'SEQ': {_SEQUENCE} '18446744073709551616'"),
    (("show", "9" * 5000), f"'SEQ': {_SEQUENCE} '{'9' * 64}'"),
    (("show", "1", "--force"), "--force: expected --export FILE beside it, got none"),
    (("show", "1", "--export", "f", "--json"), "--export: expected neither --payload nor --json beside it, got --json"),
    (("show", "1", "--export", "f", "--payload"), "nor --json beside it, got --payload"),
    (("replay",), f"{_CHOICE} neither"),
    (("replay", "1", "--all"), f"{_CHOICE} both"),
    (("replay", "1", "--client", "alice"), "SEQ: expected --all beside filters, got sequences"),
    (("replay", "1", "--id", "t"), "SEQ: expected --all beside filters, got sequences"),
    (("replay", "--client", "alice"), f"{_CHOICE} neither"),
    (("replay", "--all", "--results"), "No such option '--results'"),
    (("replay", "--all"), "--yes: needed where there is no terminal to ask on"),
    *((("replay", "1", "--wait", value), f"'--wait': expected seconds from 0 to 3600, got '{value}'")
      for value in ("-1", "nan", "inf", "3601", "soon")),
    (("drop", "x", "--yes"), f"'[SEQ]...': {_SEQUENCE} 'x'"),
    (("drop", "1"), "--yes: needed where there is no terminal to ask on"),
    (("drop", "--yes"), f"{_CHOICE} neither"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), MISTAKES, ids=[" ".join(arguments)[:40] for arguments, _ in MISTAKES])
def test_a_mistake_is_told_by_its_flag_before_anything_is_connected(arguments: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(dlq, list(arguments))
    assert (done.exit_code, told in done.output) == (2, True), done.output
