"""The judge against evidence made by hand: it passes what is right and names what is not."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.chaos.judge import Event, Evidence, Judge, Publication
from tests.chaos.profile import Profile
from tests.chaos.run import failures

PINNED, STRANGER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
WALLET = ed25519.Ed25519PrivateKey.generate()
KEYS = {"eddsa_pub_key": WALLET.public_key().public_bytes_raw().hex(), "ecdsa_pub_key": "11" * 64}
TX = base64.b64encode(b"pay").decode()
ASKED = {"key_type": "ed25519", "wallet_id": "w", "network_internal_code": "n", "tx_id": "t", "tx": TX}
MEANING = {**ASKED, "derivation_path": None}
KEY = ("sign", "t")


def submission(number: int, sequence: int | None, **changes: Any) -> dict[str, Any]:
    line = {
        "n": number,
        "client": "alice",
        "op": "sign",
        "id": "t",
        "meaning": MEANING,
        "valid": True,
        "sent_at": 100.0,
    }
    return line | {"sequence": sequence, "answered_at": 100.1} | changes


def event(state: str, **body: Any) -> Event:
    return Event("alice", "sign", "t", state, body, 101.0)


def publication(attempt: str = "t~1", key: ec.EllipticCurvePrivateKey = PINNED, **changes: Any) -> Publication:
    fields = ASKED | changes
    message = json.dumps(fields, separators=(",", ":")).encode()
    signature = base64.b64encode(key.sign(message, ec.ECDSA(hashes.SHA256()))).decode()
    return Publication("sign", "t", attempt, fields | {"signature": signature, "derivation_path": None})


def completed(message: bytes = b"pay", **body: Any) -> Event:
    return event("completed", result={"wallet_id": "w", "signature": WALLET.sign(message)}, **body)


def right() -> Evidence:
    """One request that went well, repeated once, and one that was refused."""
    claim = event("accepted", labels={"n": "1"})
    return Evidence(
        submissions=[submission(1, 1), submission(2, 2), submission(3, 3, id="x", valid=False)],
        events=[claim, event("signed"), event("published"), completed()],
        rejections={("alice", 3): [{"code": "INVALID_FIELD"}]},
        queued=set(),
        publications=[publication()],
        keys={"w": KEYS},
    )


def findings(evidence: Evidence) -> dict[str, int]:
    pinned = PINNED.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    judge = Judge(evidence, pinned)
    judge.verdict()
    return {name: len(found) for name, found in judge.findings.items() if found}


def test_what_went_well_is_counted_and_not_found_fault_with() -> None:
    pinned = PINNED.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    verdict = Judge(right(), pinned).verdict()
    counts = {name: verdict[name] for name in ("requests", "completed", "failed", "rejected", "completed_share")}
    assert counts == {"requests": 3, "completed": 2, "failed": 0, "rejected": 1, "completed_share": 1.0}
    assert findings(right()) == {}
    assert failures(Profile(duration_s=60, seed=1), verdict | {"faults": {}}) == []


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("lost", {"rejections": {}}),
        ("stuck", {"rejections": {}, "queued": {("alice", 3)}}),
        ("twice", {"rejections": {("alice", 3): [{"code": "A"}, {"code": "A"}]}}),
        ("twice", {"rejections": {("alice", 3): [{"code": "A"}], ("alice", 2): [{"code": "CONFLICT"}]}}),
        ("twice", {"publications": [publication(), publication()]}),
        ("twice", {"publications": [publication(), publication("t~2")]}),
        ("conflicts_signed", {"publications": [publication(tx="b3RoZXI=")]}),
        ("invalid", {"publications": [publication(key=STRANGER)]}),
        ("invalid", {"publications": []}),
        ("invalid", {"keys": {"w": KEYS | {"eddsa_pub_key": "22" * 32}}}),
    ],
)
def test_what_is_wrong_is_named(what: str, changes: dict[str, Any]) -> None:
    assert what in findings(replace(right(), **changes))


def history(*later: Event) -> Evidence:
    return replace(right(), events=[*right().events[:3], *later])


@pytest.mark.parametrize(
    ("what", "later"),
    [
        ("twice", [completed(), event("failed", outcome="unknown")]),
        ("twice", [completed(), completed()]),
        ("twice", [event("failed", outcome="unknown"), event("failed", outcome="unknown")]),
        ("twice", [event("failed", outcome="unknown"), completed()]),  # names nothing that it supersedes
        ("twice", [event("accepted", labels={"n": "1"}), completed()]),
        ("twice", [event("signed"), completed()]),
        ("invalid", [completed(b"another")]),
        ("invalid", [event("failed", outcome="none")]),
        ("lost", []),
    ],
)
def test_a_history_that_must_not_be_is_named(what: str, later: list[Event]) -> None:
    assert what in findings(history(*later))


def test_a_late_success_may_supersede_a_failure() -> None:
    late = completed(supersedes={"outcome": "unknown"})
    assert findings(history(event("failed", outcome="unknown"), late)) == {}


def test_a_further_attempt_needs_a_retry_on_record() -> None:
    again = replace(history(event("retrying"), completed()), publications=[publication(), publication("t~2")])
    assert findings(again) == {}


def test_an_id_claimed_for_another_payload_does_not_end_this_request() -> None:
    other = submission(4, 4, meaning=MEANING | {"tx": "b3RoZXI="})
    assert findings(replace(right(), submissions=[*right().submissions, other])) == {"lost": 1}


@pytest.mark.parametrize("name", ["lost", "twice", "invalid", "stuck", "conflicts_signed"])
def test_any_count_that_is_not_zero_fails_a_run(name: str) -> None:
    good: dict[str, Any] = dict.fromkeys(("lost", "twice", "invalid", "stuck", "conflicts_signed"), 0)
    good |= {"completed_share": 1.0, "left": {}}
    verdict = good | {"faults": {"replica_killed": 3}}
    assert failures(Profile(duration_s=120, seed=1), verdict) == []
    assert failures(Profile(duration_s=120, seed=1), verdict | {name: 1}) == [f"{name}: expected 0, got 1"]
    assert len(failures(Profile(duration_s=120, seed=1), verdict | {"completed_share": 0.69})) == 1
    assert len(failures(Profile(duration_s=120, seed=1), verdict | {"left": {"INITIATOR_SLOTS_SIGN": 1}})) == 1
    assert len(failures(Profile(duration_s=120, seed=1), verdict | {"faults": {"replica_killed": 2}})) == 1
