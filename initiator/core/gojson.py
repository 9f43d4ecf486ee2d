"""Go's `encoding/json` as mpcium's nodes apply it: the exact text of strings, bytes and lists.

Source: the Go standard library's documentation of `encoding/json` (HTML escaping is on for `json.Marshal`; `\\b` and
`\\f` are short since Go 1.22), checked against bytes made by mpcium's own types (`tests/vectors`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from json.encoder import encode_basestring

# encode_basestring escapes `"`, `\` and the controls just as Go does; Go escapes these on top. DEL stays raw.
_EXTRA = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_SPECIAL = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def string(text: str) -> str:
    """A JSON string as Go writes it, quotes included.

    Raises:
        ValueError: the text holds a lone surrogate, which Go cannot carry.
    """
    quoted: str = encode_basestring(text)
    return _SPECIAL.sub(_escape, quoted) if _SPECIAL.search(quoted) else quoted


def _escape(match: re.Match[str]) -> str:
    escaped = _EXTRA.get(match.group())
    if escaped is None:
        raise ValueError("lone surrogate")
    return escaped


def data(value: bytes | None) -> str:
    """A byte slice: padded standard base64, `null` for nil."""
    return "null" if value is None else f'"{base64.b64encode(value).decode()}"'


def strings(values: Sequence[str] | None) -> str:
    """A string slice; `null` for nil.

    Raises:
        ValueError: as `string`.
    """
    return "null" if values is None else f"[{','.join(map(string, values))}]"


def integers(values: Sequence[int] | None) -> str:
    """An integer slice; `null` for nil."""
    return "null" if values is None else f"[{','.join(map(str, values))}]"
