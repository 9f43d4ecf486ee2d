"""Somebody else's text, as it may be shown on a terminal."""

from __future__ import annotations

_LIMIT = 1024


def plain(text: str) -> str:
    """Text of somebody else's without a character that a terminal would obey or that reads as another line."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:_LIMIT])
    return shown + ("…" if len(text) > _LIMIT else "")
