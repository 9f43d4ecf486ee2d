"""Log lines are an API: whole events, and nothing secret in any of them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from initiator import __version__, log
from initiator.config.schema import LogSettings
from initiator.errors import Code, HaltError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def written(level: str = "info", form: str = "json", **more: object) -> io.StringIO:
    stream = io.StringIO()
    log.configure(LogSettings.model_validate({"level": level, "format": form} | more), stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in found:
        assert line.pop("timestamp").endswith("Z")
    return found


def test_an_event_is_one_json_line_with_its_fields() -> None:
    stream = written()
    log.get_logger().info("request.accepted", op="sign", id="tx1", request_seq=7)
    assert lines(stream) == [
        {"event": "request.accepted", "level": "info", "op": "sign", "id": "tx1", "request_seq": 7}
    ]


def test_levels_below_the_configured_one_are_not_written() -> None:
    stream = written("warning")
    logger = log.get_logger()
    logger.debug("a")
    logger.info("b")
    logger.warning("c")
    logger.error("d")
    assert [line["event"] for line in lines(stream)] == ["c", "d"]


def test_a_person_reads_plain_lines_on_a_console() -> None:
    stream = written(form="console")
    log.get_logger().info("request.accepted", op="sign")
    assert "request.accepted" in stream.getvalue()
    assert "op=sign" in stream.getvalue()


def test_auto_is_json_where_nobody_sits() -> None:
    stream = written(form="auto")
    log.get_logger().info("a.b")
    assert lines(stream)[0]["event"] == "a.b"


SECRETS = [
    "payload", "tx", "signature", "message", "data", "secret", "password", "passphrase", "token", "seed", "credential",
    "credentials", "authorization", "private_key", "access_key_id", "secret_access_key", "nats_password",
    "session_token",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_a_field_that_says_it_is_secret_is_blanked(name: str) -> None:
    stream = written("debug")
    log.get_logger().debug("a.b", **{name: "hunter2"})
    assert lines(stream) == [{"event": "a.b", "level": "debug", name: "[redacted]"}]


@pytest.mark.parametrize("value", [b"hunter2", bytearray(b"hunter2"), memoryview(b"hunter2")])
def test_bytes_are_blanked_whatever_their_name(value: Any) -> None:
    stream = written()
    log.get_logger().info("a.b", reason=value)
    assert lines(stream) == [{"event": "a.b", "level": "info", "reason": "[redacted]"}]


@pytest.mark.parametrize("name", ["tx_id", "token_count", "key_id", "reason", "code", "digest"])
def test_what_an_operator_needs_is_not_blanked(name: str) -> None:
    stream = written()
    log.get_logger().info("a.b", **{name: "seen"})
    assert lines(stream)[0][name] == "seen"


def fail(error: Exception) -> None:
    raise error


def test_an_exception_is_told_by_type_and_place_and_not_by_its_text() -> None:
    stream = written()
    try:
        fail(ValueError("hunter2"))
    except ValueError:
        log.get_logger().exception("a.failed")
    (line,) = lines(stream)
    assert line.pop("error_at").startswith("tests.unit.test_log:")
    assert line == {"event": "a.failed", "level": "error", "error_type": "ValueError"}


def test_an_error_of_ours_brings_its_code_and_reason() -> None:
    stream = written()
    try:
        fail(HaltError(Code.KEY_MISMATCH, "another key"))
    except HaltError:
        log.get_logger().exception("a.failed")
    (line,) = lines(stream)
    line.pop("error_at")
    assert line == {
        "event": "a.failed",
        "level": "error",
        "error_type": "HaltError",
        "code": "KEY_MISMATCH",
        "reason": "another key",
    }


def test_libraries_speak_through_us_without_their_arguments() -> None:
    stream = written()
    logging.getLogger("botocore.auth").warning("signing with %s", "hunter2")
    logging.getLogger("botocore.auth").info("not heard")
    assert lines(stream) == [
        {
            "event": "library.reported",
            "level": "warning",
            "logger": "botocore.auth",
            "reason": "signing with %s",
            "error_type": None,
        }
    ]
    assert "hunter2" not in stream.getvalue()


def test_a_value_that_json_does_not_know_is_written_as_text() -> None:
    stream = written()
    log.get_logger().info("a.b", code=Code.CONFLICT, where={"x"})
    assert lines(stream)[0]["code"] == "CONFLICT"


# --- by other names, and in floods


def test_ecs_names_are_elastics_and_ours_stand_apart() -> None:
    stream = written(fields="ecs")
    log.get_logger().warning("request.failed", op="sign", id="tx1", code="RESULT_TIMEOUT", reason="no result", tx=b"x")
    line = json.loads(stream.getvalue())
    assert line.pop("@timestamp").endswith("Z")
    assert line == {
        "ecs.version": "8.17", "service.name": "initiator", "service.version": __version__, "log.level": "warning",
        "event.action": "request.failed", "message": "request.failed", "error.code": "RESULT_TIMEOUT",
        "error.message": "no result", "initiator.op": "sign", "initiator.id": "tx1", "initiator.tx": "[redacted]",
    }  # fmt: skip


def test_a_person_reads_our_own_names_all_the_same() -> None:
    stream = written(form="console", fields="ecs")
    log.get_logger().info("request.accepted", op="sign")
    assert "op=sign" in stream.getvalue()
    assert "ecs" not in stream.getvalue()


def test_a_flood_of_one_event_is_cut_and_counted_and_hides_no_other() -> None:
    clock = [10.0]
    sampler = log.Sampler(2, lambda: clock[0])

    def passes(event: str, level: str = "info") -> dict[str, Any] | None:
        try:
            return dict(sampler(None, "", {"event": event, "level": level}))
        except structlog.DropEvent:
            return None

    assert [passes("a.b") is None for _ in range(5)] == [False, False, True, True, True]
    assert passes("c.d") == {"event": "c.d", "level": "info"}
    assert passes("a.b", "error") == {"event": "a.b", "level": "error"}
    clock[0] = 11.0
    assert passes("a.b") == {"event": "a.b", "level": "info", "suppressed": 3}
    assert passes("a.b") == {"event": "a.b", "level": "info"}


def test_the_configured_bound_holds_and_none_is_none() -> None:
    cut, whole = written(max_per_s=3), written(max_per_s=0)
    for _ in range(50):
        log.get_logger().info("a.b")
    assert cut.getvalue() == ""
    assert len(whole.getvalue().splitlines()) == 50
    again = written(max_per_s=3)
    for _ in range(50):
        log.get_logger().info("a.b")
    assert 3 <= len(again.getvalue().splitlines()) <= 6  # two seconds at most
