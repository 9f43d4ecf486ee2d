"""Servers' addresses, as they may be shown."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"[^/\s]*@")


def is_address(text: str) -> bool:
    """Whether a text may be one, well made or not."""
    return "://" in text or _LOGIN.match(text) is not None


def without_password(url: str) -> str:
    """The URL without the login that may stand in it; of a text that is no URL rather too little than too much."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
