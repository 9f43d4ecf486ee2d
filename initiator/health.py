"""Health of the daemon by named parts; pure state, shown by `initiator.http`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from initiator.errors import Code


@dataclass(frozen=True, slots=True)
class Part:
    """One part's state and, if it is not well, why; `note` says what is amiss although it is well enough."""

    name: str
    ok: bool
    reason: str = ""
    code: Code | None = None
    note: str = ""


class Health:
    """Parts that must all be well for the daemon to be ready.

    Args:
        parts: what is there from the beginning, and not well yet.
        told: hears of each part's state, now and whenever it is noted.
    """

    def __init__(self, parts: Iterable[str], told: Callable[[Part], None] = lambda _: None) -> None:
        self._parts = {name: Part(name, ok=False, reason="not started") for name in parts}
        self._told = told
        self._started = False
        for part in self._parts.values():
            told(part)

    def set(self, part: str, ok: bool, reason: str = "", code: Code | None = None, note: str = "") -> None:
        """Note a part's state."""
        self._parts[part] = Part(part, ok, "" if ok else reason, None if ok else code, note if ok else "")
        self._told(self._parts[part])

    def mark_started(self) -> None:
        """The start is complete; stays so."""
        self._started = True

    @property
    def started(self) -> bool:
        return self._started

    @property
    def ready(self) -> bool:
        return self._started and all(part.ok for part in self._parts.values())

    def snapshot(self) -> tuple[Part, ...]:
        return tuple(self._parts.values())
