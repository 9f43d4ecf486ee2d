"""Go's `encoding/json` as mpcium's nodes apply it: the exact text of strings, bytes and lists.

Source: the Go standard library's documentation of `encoding/json` (HTML escaping is on for `json.Marshal`), checked
against bytes made by mpcium's own types (`tests/vectors`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence

# json.dumps escapes `"`, `\` and the short controls just as Go does; Go escapes these on top. DEL stays raw.
_EXTRA = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_NEEDS_EXTRA = re.compile("[<>&\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def string(text: str) -> str:
    """A JSON string as Go writes it.

    Raises:
        ValueError: the text holds a lone surrogate, which Go cannot carry.
    """
    if _SURROGATE.search(text):
        raise ValueError("lone surrogate")
    quoted = json.dumps(text, ensure_ascii=False)
    return _NEEDS_EXTRA.sub(lambda match: _EXTRA[match.group()], quoted)


def data(value: bytes | None) -> str:
    """A byte slice: padded standard base64, `null` for nil."""
    return "null" if value is None else f'"{base64.b64encode(value).decode()}"'


def strings(values: Sequence[str] | None) -> str:
    """A string slice; `null` for nil."""
    return "null" if values is None else f"[{','.join(map(string, values))}]"


def integers(values: Sequence[int] | None) -> str:
    """An integer slice; `null` for nil."""
    return "null" if values is None else f"[{','.join(map(str, values))}]"
