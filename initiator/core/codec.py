"""Payloads to plain maps and back: msgpack and JSON with one meaning, read strictly.

Invariants of `decode`, for both encodings:
- one map with string keys at the top, nothing after it, no key twice at any depth (equivocation: two readers must
  never see two requests in the same bytes);
- values are maps, lists, text, bytes, integers of 64 bits, finite floats, booleans and null, and nothing else;
- depth and size of containers are bounded, and no length that the bytes only claim is ever allocated;
- text is Unicode: no invalid UTF-8, no lone surrogate.
Whatever the bytes, the only exception is a `RejectError` whose reason holds none of them but the name of a key.

Sources: RFC 8259 (JSON), the msgpack specification.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import msgpack

from initiator.core.model import ContentType
from initiator.errors import Code, RejectError

MAX_DEPTH = 8  # maps and lists inside each other, the top one included
MAX_ITEMS = 1024  # entries of one map or list
_INTEGER_LIMIT = 2**64
_INTEGER_DIGITS = 20  # of the longest integer below the limit, its sign included
_SURROGATE = re.compile("[\ud800-\udfff]")
_KNOWN = {encoding.value: encoding for encoding in ContentType}


def content_type(header: str | None) -> ContentType:
    """The encoding that a Content-Type header names; parameters such as `; charset=utf-8` mean nothing here.

    Args:
        header: its value; None (no such header) means msgpack.

    Raises:
        RejectError: `UNSUPPORTED_CONTENT_TYPE`.
    """
    if header is None:
        return ContentType.MSGPACK
    known = _KNOWN.get(header) or _KNOWN.get(header.partition(";")[0].strip().lower())
    if known is None:
        expected = " or ".join(_KNOWN)
        raise RejectError(
            Code.UNSUPPORTED_CONTENT_TYPE, f"expected {expected}, got {header[:64]!a}", field="Content-Type"
        )
    return known


def decode(encoding: ContentType, data: bytes) -> dict[str, Any]:
    """The map that a payload holds.

    Raises:
        RejectError: `UNDECODABLE`, with what is wrong; never any other exception, whatever the bytes.
    """
    try:
        value = _from_json(data) if encoding is ContentType.JSON else _from_msgpack(data)
    except (RecursionError, msgpack.StackError) as error:
        raise _refuse(f"nested deeper than {MAX_DEPTH}") from error
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise _refuse(f"not {encoding.value}: {_cause(error)}{_guess(encoding, data)}") from error
    if not isinstance(value, dict):
        raise _refuse(f"expected a map at the top, got {_kind(value)}")
    _check(value, 1)
    return value


def encode(encoding: ContentType, body: Mapping[str, Any]) -> bytes:
    """The bytes of an event or answer; in JSON, bytes become padded standard base64.

    Raises:
        TypeError, ValueError: a value that the encoding cannot carry (NaN, a lone surrogate, an object).
    """
    if encoding is ContentType.JSON:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain_json)
        return text.encode()
    packed: bytes = msgpack.packb(body if isinstance(body, dict) else dict(body), default=_plain)
    return packed


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"cannot encode {type(value).__name__}")


def _plain_json(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else _plain(value)


def _refuse(reason: str) -> RejectError:
    return RejectError(Code.UNDECODABLE, reason, field="payload")


_CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (UnicodeDecodeError, "text that is not UTF-8"),
    (msgpack.ExtraData, "bytes after the end of the map"),
)
_MESSAGES = {"incomplete": "truncated", "exceeds max_": f"a length beyond the payload or {MAX_ITEMS} entries"}


def _cause(error: Exception) -> str:
    """What kind of trouble, without a byte of the payload."""
    if isinstance(error, json.JSONDecodeError):
        # what follows a colon may quote the payload
        said = error.msg.partition(":")[0].removesuffix(" at").lower()
        return f"{said} at character {error.pos}"
    known = [text for kind, text in _CAUSES if isinstance(error, kind)]
    known += [text for part, text in _MESSAGES.items() if part in str(error)]
    return known[0] if known else "malformed"


def _guess(encoding: ContentType, data: bytes) -> str:
    """For the likeliest mistake: JSON without a header that says so."""
    looks_like_json = encoding is ContentType.MSGPACK and data.lstrip()[:1] == b"{"
    return "; it looks like JSON: the header Content-Type: application/json says so" if looks_like_json else ""


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _unique(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if type(key) is not str:
            raise _refuse(f"expected string keys, got {_kind(key)}")
        if key in found:
            raise _refuse(f"the key {key[:64]!a} stands there twice")
        found[key] = value
    return found


# --- JSON


def _no_constant(name: str) -> NoReturn:
    raise _refuse(f"{name} is not a JSON number")


def _json_integer(text: str) -> int:
    # int() of a long text is quadratic work, and past some thousand digits an exception of its own
    if len(text) > _INTEGER_DIGITS:
        raise _refuse("an integer beyond 64 bits")
    return int(text)


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_json_integer)


def _from_json(data: bytes) -> Any:
    value = _JSON.decode(data.decode("utf-8"))
    if b"\\u" in data:  # nothing but an escape can make a lone surrogate
        _check_text(value)
    return value


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise _refuse("text with a lone surrogate")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


# --- msgpack


def _no_extension(code: int, _data: bytes) -> NoReturn:
    raise _refuse(f"the msgpack extension type {code}")


def _from_msgpack(data: bytes) -> Any:
    size = len(data)
    # length bombs: a container is allocated at the length that it claims, once per level of nesting
    items = size if size < MAX_ITEMS else MAX_ITEMS
    return msgpack.unpackb(
        data,
        strict_map_key=False,  # _unique says better what is wrong
        object_pairs_hook=_unique,
        ext_hook=_no_extension,
        max_str_len=size,
        max_bin_len=size,
        max_ext_len=size,
        max_array_len=items,
        max_map_len=items,
    )


# --- both


def _check(value: Any, depth: int) -> None:
    """Bounds and types of what a parser returned; its depth is bounded here, before anybody recurses into it."""
    kind = type(value)
    if kind is str or kind is bytes or kind is bool or value is None:
        return
    if kind is int:
        if not -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
            raise _refuse("an integer beyond 64 bits")
    elif kind is dict or kind is list:
        if depth > MAX_DEPTH:
            raise _refuse(f"nested deeper than {MAX_DEPTH}")
        if len(value) > MAX_ITEMS:
            raise _refuse(f"more than {MAX_ITEMS} entries")
        for item in value.values() if kind is dict else value:
            _check(item, depth + 1)
    elif kind is float:
        if not math.isfinite(value):
            raise _refuse("NaN or infinity")
    else:
        raise _refuse(f"a value of type {kind.__name__}")  # msgpack's own timestamp
