"""KMS's own log against ours."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from initiator.audit.cloudtrail import TrailSignature, calls, reconcile
from initiator.errors import HaltError

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def record(request_id: str, time: str = "2026-11-26T10:00:00Z", **more: Any) -> dict[str, Any]:
    """As AWS writes a Sign event."""
    return {
        "eventVersion": "1.11",
        "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/initiator/pod"},
        "eventTime": time,
        "eventSource": "kms.amazonaws.com",
        "eventName": "Sign",
        "awsRegion": "eu-central-1",
        "sourceIPAddress": "10.0.0.7",
        "requestParameters": {"keyId": ARN, "messageType": "RAW", "signingAlgorithm": "ECDSA_SHA_256"},
        "responseElements": None,
        "requestID": request_id,
        "readOnly": True,
        "resources": [{"accountId": "111122223333", "type": "AWS::KMS::Key", "ARN": ARN}],
    } | more


def written(folder: Path, *records: dict[str, Any], name: str = "a.json") -> Path:
    path = folder / name
    data = json.dumps({"Records": list(records)}).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def signature(request_id: str, at: str = "2026-11-26T10:00:01.000Z", key: str = ARN) -> TrailSignature:
    return TrailSignature(request_id, key, "initiator.event.a.sign.t.signed.sealed", at, 7)


def test_what_both_have_is_matched(tmp_path: Path) -> None:
    files = [written(tmp_path, record("r1")), written(tmp_path, record("r2"), name="b.json.gz")]
    found = reconcile(calls(files), [signature("r1"), signature("r2")], frozenset())
    assert (found.ok, found.matched) == (True, 2)


def test_what_kms_alone_has_is_told_with_who_did_it(tmp_path: Path) -> None:
    thief = record("r9", userIdentity={"arn": "arn:aws:iam::111122223333:user/mallory"}, sourceIPAddress="203.0.113.9")
    found = reconcile(calls([written(tmp_path, record("r1"), thief)]), [signature("r1")], frozenset())
    assert not found.ok
    [call] = found.only_kms
    assert (call.request_id, call.principal, call.source) == (
        "r9", "arn:aws:iam::111122223333:user/mallory", "203.0.113.9"
    )  # fmt: skip


def test_what_the_record_alone_has_is_told_unless_it_may_not_be_delivered_yet(tmp_path: Path) -> None:
    newest = record("r1", time="2026-11-26T12:00:00Z")
    ours = [signature("r1"), signature("r2", "2026-11-26T11:00:00.000Z"), signature("r3", "2026-11-26T12:00:01.000Z")]
    found = reconcile(calls([written(tmp_path, newest)]), ours, frozenset())
    assert ([one.request_id for one in found.only_trail], found.later) == (["r2"], 1)


def test_refusals_other_keys_and_other_calls_do_not_count(tmp_path: Path) -> None:
    other = "arn:aws:kms:eu-central-1:111122223333:key/other"
    foreign = record("r3", resources=[{"type": "AWS::KMS::Key", "ARN": other}])
    refused = record("r2", errorCode="AccessDenied")
    listed = record("r4", eventName="GetPublicKey")
    elsewhere = record("r5", eventSource="s3.amazonaws.com")
    file = written(tmp_path, record("r1"), refused, foreign, listed, elsewhere)
    found = reconcile(calls([file]), [signature("r1")], frozenset())
    assert (found.ok, found.matched, found.failed) == (True, 1, 1)
    assert not reconcile(calls([file]), [signature("r1")], frozenset({other})).ok


def test_a_local_key_has_no_log_of_kms(tmp_path: Path) -> None:
    found = reconcile(
        calls([written(tmp_path, record("r1"))]), [signature("r1"), signature("", key="local")], frozenset()
    )
    assert (found.ok, found.matched, found.local) == (True, 1, 1)


MISSPELLED = ARN.replace("1234abcd", "1234abce")


@pytest.mark.parametrize(
    ("records", "keys", "reason"),
    [
        ([], frozenset(), "no call of Sign in the files"),
        ([record("r1", eventName="GetPublicKey")], frozenset(), "no call of Sign in the files"),
        ([record("r1")], frozenset({MISSPELLED}), f"none of the 1 calls of Sign in the files is of {MISSPELLED}"),
        ([record("r1", errorCode="AccessDenied")], frozenset(), "KMS refused all 1 calls of Sign in the files"),
    ],
    ids=["no calls", "other calls", "a misspelled key", "refusals alone"],
)
def test_where_nothing_was_compared_nothing_is_ok(
    records: list[dict[str, Any]], keys: frozenset[str], reason: str, tmp_path: Path
) -> None:
    ours = [signature("r1", at="2026-11-26T23:00:00.000Z")]  # newer than all that is in the files
    found = reconcile(calls([written(tmp_path, *records)]), ours, keys)
    assert (found.ok, found.nothing) == (False, reason)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"Records": {}}', b'{"Records": [1]}', b"\x1f\x8brubbish"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(HaltError, match="expected CloudTrail's JSON"):
        list(calls([path]))
    with pytest.raises(HaltError, match="No such file"):
        list(calls([tmp_path / "none"]))


@pytest.mark.parametrize("lacks", ["requestID", "eventTime", "resources"])
def test_a_call_that_cannot_be_compared_is_refused(tmp_path: Path, lacks: str) -> None:
    one = record("r1")
    del one[lacks]
    if lacks == "resources":
        one["requestParameters"] = {}
    with pytest.raises(HaltError, match="expected requestID, eventTime and a key"):
        list(calls([written(tmp_path, one)]))
