"""Payloads to plain maps and back: msgpack and JSON with one meaning, read strictly.

Invariants of `decode`: one map with string keys at the top; no key twice; no NaN, infinity or float at all beyond
what a float field needs; nothing after the map; nesting and integers bounded; text without lone surrogates. Two
readers must never see two different requests in the same bytes (equivocation by parser).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NoReturn

import msgpack

from initiator.core.model import ContentType
from initiator.errors import Code, RejectError

MAX_DEPTH = 8
_INTEGER_LIMIT = 2**64


def content_type(header: str | None) -> ContentType:
    """The encoding that a Content-Type header names; msgpack without one.

    Raises:
        RejectError: `UNSUPPORTED_CONTENT_TYPE`.
    """
    if header is None:
        return ContentType.MSGPACK
    try:
        return ContentType(header.partition(";")[0].strip().lower())
    except ValueError:
        known = " or ".join(ContentType)
        raise RejectError(
            Code.UNSUPPORTED_CONTENT_TYPE, f"expected {known}, got {header[:64]!a}", field="Content-Type"
        ) from None


def decode(encoding: ContentType, data: bytes) -> dict[str, Any]:
    """The map that a payload holds.

    Raises:
        RejectError: `UNDECODABLE`, with what is wrong; never any other exception, whatever the bytes.
    """
    try:
        value = _from_json(data) if encoding is ContentType.JSON else _from_msgpack(data)
    except RejectError:
        raise
    except RecursionError as error:
        raise _refuse(f"nested deeper than {MAX_DEPTH}") from error
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise _refuse(f"not {encoding.value}: {_cause(error)}") from error
    if not isinstance(value, dict):
        raise _refuse(f"expected a map at the top, got {type(value).__name__}")
    _check(value, 1)
    return value


def _refuse(reason: str) -> RejectError:
    return RejectError(Code.UNDECODABLE, reason, field="payload")


def _cause(error: BaseException) -> str:
    """What kind of trouble, without a byte of the payload."""
    if isinstance(error, UnicodeDecodeError):
        return "text that is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, msgpack.ExtraData):
        return "bytes after the end of the map"
    if isinstance(error, msgpack.OutOfData) or "incomplete" in str(error):
        return "truncated"
    return type(error).__name__


def _unique(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise _refuse(f"expected string keys, got {type(key).__name__}")
        if key in found:
            raise _refuse(f"key {key[:64]!a} stands there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise _refuse(f"{name} is not a JSON number")


def _json_integer(text: str) -> int:
    if len(text) > 20:
        raise _refuse("an integer beyond 64 bits")
    return int(text)


def _from_json(data: bytes) -> Any:
    text = data.decode("utf-8")
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_json_integer)


def _no_extension(code: int, _data: bytes) -> NoReturn:
    raise _refuse(f"msgpack extension type {code}")


def _from_msgpack(data: bytes) -> Any:
    size = len(data)
    return msgpack.unpackb(
        data,
        raw=False,
        strict_map_key=False,  # _unique says better what is wrong
        object_pairs_hook=_unique,
        ext_hook=_no_extension,
        # length bombs: nothing may claim more elements than there are bytes
        max_str_len=size,
        max_bin_len=size,
        max_array_len=size,
        max_map_len=size,
        max_ext_len=size,
    )


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _refuse(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise _refuse("NaN or infinity")
    elif isinstance(value, int) and not -_INTEGER_LIMIT < value < _INTEGER_LIMIT:
        raise _refuse("an integer beyond 64 bits")
    elif not isinstance(value, (bytes, int, float, type(None))):
        raise _refuse(f"a value of type {type(value).__name__}")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise _refuse("text with a lone surrogate") from None


def encode(encoding: ContentType, body: Mapping[str, Any]) -> bytes:
    """The bytes of an event or answer; in JSON, bytes become padded standard base64."""
    if encoding is ContentType.JSON:
        return json.dumps(_plain(body), ensure_ascii=False, separators=(",", ":")).encode()
    packed: bytes = msgpack.packb(body, use_bin_type=True)
    return packed


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
