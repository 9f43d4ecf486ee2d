"""Logs: one event a line, named in dotted past tense; the only importer of structlog.

Invariant: no payload, signature, key or credential reaches a line at any level: bytes never, and fields whose name
says that they hold one are blanked.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

from initiator import __version__
from initiator.config.schema import LogSettings
from initiator.errors import InitiatorError

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SENSITIVE = re.compile(
    r"(^|_)(payload|tx|signature|message|data|secret|password|passphrase|token|seed|credential|credentials|"
    r"authorization|private_key|access_key_id|secret_access_key)$"
)
REDACTED = "[redacted]"
_ECS_VERSION = "8.17"
_ECS_NAMES = {
    "timestamp": "@timestamp", "level": "log.level", "event": "event.action", "logger": "log.logger",
    "code": "error.code", "reason": "error.message", "error_type": "error.type", "trace_id": "trace.id",
}  # fmt: skip
Fields = MutableMapping[str, Any]


def redact(_logger: Any, _method: str, fields: Fields) -> Fields:
    """Blank what must not be read in a log."""
    for name, value in tuple(fields.items()):
        if isinstance(value, (bytes, bytearray, memoryview)) or _SENSITIVE.search(name):
            fields[name] = REDACTED
    return fields


class Sampler:
    """Keeps an event that comes in floods from filling disks: so many lines of one name a second, and no error dropped.

    The next line of that name says in `suppressed` how many there were between.

    Args:
        most_per_s: of one event.
        now: seconds that only go forward.
    """

    def __init__(self, most_per_s: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most_per_s
        self._now = now
        self._counts: dict[str, tuple[int, int, int]] = {}  # by event: the second, lines written in it, lines dropped

    def __call__(self, _logger: Any, _method: str, fields: Fields) -> Fields:
        if fields.get("level") == "error":
            return fields
        name, second = str(fields.get("event")), int(self._now())
        of_second, written, dropped = self._counts.get(name, (second, 0, 0))
        if of_second != second:
            written = 0
        if written >= self._most:
            self._counts[name] = (second, written, dropped + 1)
            raise structlog.DropEvent
        if dropped:
            fields["suppressed"] = dropped
        self._counts[name] = (second, written + 1, 0)
        return fields


def to_ecs(_logger: Any, _method: str, fields: Fields) -> Fields:
    """The same line by the names of the Elastic Common Schema; what it has no name for stands under `initiator.`."""
    found: dict[str, Any] = {"ecs.version": _ECS_VERSION, "service.name": "initiator", "service.version": __version__}
    found |= {_ECS_NAMES.get(name, f"initiator.{name}"): value for name, value in fields.items()}
    return found | {"message": fields.get("event")}


def describe_exception(_logger: Any, _method: str, fields: Fields) -> Fields:
    """An exception as its type and our code; its text could hold what a library read."""
    error = fields.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        fields.setdefault("error_type", type(error).__name__)
        if isinstance(error, InitiatorError):
            fields.setdefault("code", error.code.value)
            fields.setdefault("reason", error.reason)
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None:
            module = trace.tb_frame.f_globals.get("__name__", "?")
            fields["error_at"] = f"{module}:{trace.tb_lineno}"
    return fields


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up logging for the process; lines go to stderr.

    Args:
        stream: where lines go instead.
    """
    stream = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if console
        else structlog.processors.JSONRenderer(default=str)
    )
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        describe_exception,
        redact,
    ]
    if settings.max_per_s:
        shared.insert(1, Sampler(settings.max_per_s))
    if settings.fields == "ecs" and not console:
        shared.append(to_ecs)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    handler = _LibraryHandler()
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _LibraryHandler(logging.Handler):
    """Libraries' warnings as events of ours; their texts are cut and never interpolated with payloads by us."""

    def emit(self, record: logging.LogRecord) -> None:
        level = {30: "warning", 40: "error", 50: "error"}.get(record.levelno, "info")
        getattr(structlog.get_logger(), level)(
            "library.reported", logger=record.name, reason=str(record.msg)[:200], error_type=_error_type(record)
        )


def _error_type(record: logging.LogRecord) -> str | None:
    return record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None


def get_logger() -> Any:
    """A logger; its methods take an event name and fields."""
    return structlog.get_logger()
