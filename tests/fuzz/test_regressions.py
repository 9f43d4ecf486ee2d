"""What the fuzzer has found, each as a test of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from initiator.config.load import load_settings
from initiator.core import events
from initiator.core.events import format_time, parse_time
from initiator.core.model import ContentType
from initiator.errors import Code, HaltError, RejectError
from initiator.kms.region import public_key_of
from tests.fuzz.targets import PUBLIC
from tests.support.events import event_of


def test_a_recorded_time_at_the_end_of_time_is_no_event() -> None:
    written = events.encode(event_of("t", content_type=ContentType.JSON))
    fields = written.replace(format_time(event_of("t").time)[:4].encode(), b"9999")
    with pytest.raises(RejectError):
        events.decode(ContentType.JSON, fields)


@pytest.mark.parametrize("text", ["2826-11-25T16:53:01.357Z", "1970-01-01T00:00:00.001Z", "2026-01-01T00:00:00.999Z"])
def test_a_time_that_is_read_and_written_again_loses_nothing(text: str) -> None:
    assert format_time(parse_time(text)) == text


@pytest.mark.parametrize("algorithms", [1.5, 7, True])
def test_algorithms_of_another_type_make_no_suitable_key(algorithms: object) -> None:
    described = {"PublicKey": PUBLIC.encoded, "SigningAlgorithms": algorithms}
    with pytest.raises(HaltError) as caught:
        public_key_of(described)
    assert caught.value.code is Code.KEY_UNSUITABLE


def test_a_day_that_is_none_is_text_and_no_crash(tmp_path: Path) -> None:
    for overrides in ({"log.level": "2026-02-30T99:99:99Z"}, {"log.level": "[" * 10_000}):
        with pytest.raises(HaltError, match=r"log\.level"):
            load_settings(None, overrides, {})
    path = tmp_path / "initiator.yaml"
    path.write_text("log: {level: 2026-02-30}")
    with pytest.raises(HaltError):
        load_settings(str(path), {}, {})
