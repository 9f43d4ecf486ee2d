"""What authorizers are asked and answer; what they sign is byte for byte mpcium's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from initiator.core import authorization, message
from initiator.core.authorization import Answer, Asking
from initiator.core.model import Operation
from initiator.errors import RejectError
from tests.support.pages import ROOT

VECTORS: list[dict[str, Any]] = json.loads((ROOT / "tests" / "vectors" / "mpcium.json").read_text())["vectors"]


def asking(**changes: Any) -> Asking:
    fields: dict[str, Any] = {
        "authorizer_id": "risk", "operation": Operation.KEYGEN, "operation_id": "w1", "client": "alice",
        "message": b'{"wallet_id":"w1","signature":"AAAA"}', "expires_at": 1_790_000_000.5, "labels": {"a": "b"},
        "policy": {"version": "v", "rule": "r"}, "missing": ("risk", "ops"),
    }  # fmt: skip
    return Asking(**fields | changes)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: str(case.get("name", ""))[:40])
def test_what_is_signed_is_byte_for_byte_mpciums(case: dict[str, Any]) -> None:
    operation = Operation(case["kind"])
    event = bytes.fromhex(case["event_hex"])
    parsed = message.parse_event(operation, event)
    plain = message.event_bytes(parsed.request, parsed.signature)
    one = asking(operation=operation, operation_id=parsed.request.operation_id, message=plain)
    assert one.to_sign().hex() == case["authorizer_raw_hex"]


def test_an_asking_reads_back() -> None:
    for one in (asking(), asking(requester={"key": "U", "signature": "AA==", "audience": "a", "expires_at": None})):
        assert authorization.decode_asking(authorization.encode_asking(one)) == one


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"op": "mint"}, {"message": "!"}, {"labels": []}, {"expires_at": "x"}]
)
def test_what_is_no_asking(change: dict[str, Any]) -> None:
    fields = json.loads(authorization.encode_asking(asking())) | change
    with pytest.raises(RejectError):
        authorization.decode_asking(json.dumps(fields).encode())
    with pytest.raises(RejectError):
        authorization.decode_asking(b"rubbish")


def test_answers_read_back() -> None:
    for one in (Answer("risk", b"signature"), Answer("risk", denied="no such ticket")):
        assert authorization.decode_answer(authorization.encode_answer(one)) == one


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"authorizer_id": "a", "signature": ""}', b'{"authorizer_id": "a", "signature": "QQ"}',
        b'{"authorizer_id": 1, "signature": "QUFB"}', b'{"authorizer_id": "a", "denied": ""}',
        b'{"authorizer_id": "a", "denied": "x\\u0007"}', b'{"authorizer_id": "a", "denied": "n", "signature": "QUFB"}',
    ],
)  # fmt: skip
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(RejectError):
        authorization.decode_answer(data)


@pytest.mark.parametrize(
    ("text", "is_one"), [("risk-1", True), ("Risk", False), ("a.b", False), ("", False), ("a" * 65, False)]
)
def test_ids_of_authorizers(text: str, is_one: bool) -> None:
    assert authorization.is_authorizer(text) is is_one
