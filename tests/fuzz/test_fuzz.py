"""A short run over every decoder, and a decoder that deserves to be caught."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from initiator.core import codec
from initiator.core.model import ContentType
from initiator.errors import RejectError
from tests.fuzz.run import fuzz
from tests.fuzz.targets import Target, all_targets


def test_a_short_run_finds_nothing_and_reaches_every_decoder() -> None:
    targets = all_targets()
    report = fuzz(targets, 5.0, seed=7)
    assert report.findings == []
    assert {target.name for target in targets} == set(report.inputs)
    # inputs that are refused at the first byte find nothing
    for name in ("request.sign.msgpack", "request.sign.json", "result.sign", "event.json", "signed_event.sign"):
        assert report.accepted[name] > 0


def test_what_each_decoder_begins_with_is_accepted() -> None:
    for target in all_targets():
        for seed in (*target.seeds, *map(target.encode, target.structures)):
            if target.name != "config.set":
                target.decode(seed)


def _forgetful(data: bytes) -> None:
    fields = codec.decode(ContentType.JSON, data)
    fields["wallet_id"].upper()  # whoever sends none, or a number


def _slow(data: bytes) -> None:
    if len(data) > 30:
        time.sleep(1.5)


@pytest.mark.parametrize(("decode", "counted"), [(_forgetful, "crashes"), (_slow, "hangs")])
def test_a_decoder_with_a_fault_is_caught(decode: Callable[[bytes], Any], counted: str) -> None:
    target = Target("faulty", decode, (RejectError,), structures=({"wallet_id": "w", "tx": "AAAA"},))
    report = fuzz([target], 2.0, seed=1)
    assert getattr(report, counted) > 0
    assert report.findings[0]["decoder"] == "faulty"
