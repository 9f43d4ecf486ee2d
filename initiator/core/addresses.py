"""Servers' addresses, as they may be shown."""

from __future__ import annotations


def without_password(url: str) -> str:
    """The URL without the login that may stand in it."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
