# ruff: noqa: E501 - one row of a table, one line
"""How a valid input is changed into one that nobody has thought of."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import msgpack

Change = Callable[[random.Random, bytes], bytes]
Encode = Callable[[Any], bytes]

_TOKENS = (
    b"\x00", b"\xff", b"\xc1", b"\xc7\xff\x00", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x91" * 40,
    b"[" * 200, b'{"a":' * 50, b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-0", b"0x10", b"\\ud800", b"\\u0000", b'"', b"\\", b"//",
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\r\n", b": ", b"&a [*a,*a]", b"!!python/object", b"!!binary",
    b"<<: *a", b"-----BEGIN", b"-----END", b"0" * 64, b"$JS.ACK.", b".", b"*", b">", b"null", b"true", b"~", b"1_000", b"2026-02-30T99:99:99Z",
)  # fmt: skip


def odd_values() -> list[Any]:
    """What may stand where something else is expected."""
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    return [
        None, True, False, 0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63), 2**64 - 1, 0.0, -0.0, 1.5, 1e308, float("nan"), float("inf"),
        "", " ", "a", "a" * 65, "A-b_9", "keygen", "\u0000", "\u2028", "é", "😀", "a.b", "*", ">", "..", "=", "AAAA", "AAA=", "A===",
        "null", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "9999-12-31T23:59:59.999999999Z", "0x00", "00" * 32, "%s%n", "${jndi:x}",
        b"", b"\x00", b"\xff" * 33, b"a" * 70_000, [], [None], ["a", "a"], [1, "a"], deep, {}, {"a": 1}, {"": None},
    ]  # fmt: skip


ODD = odd_values()


def change_bytes(draw: random.Random, data: bytes) -> bytes:
    """One to four changes of the bytes."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        data = draw.choice(_BYTE_CHANGES)(draw, data)
    return data[:100_000]


def _flip(draw: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\x00"
    index = draw.randrange(len(data))
    return data[:index] + bytes([data[index] ^ (1 << draw.randrange(8))]) + data[index + 1 :]


def _put(draw: random.Random, data: bytes) -> bytes:
    index = draw.randrange(len(data) + 1)
    return data[:index] + bytes([draw.randrange(256)]) + data[index + draw.randrange(2) :]


def _cut(draw: random.Random, data: bytes) -> bytes:
    start, end = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    return data[:start] + data[end:]


def _end(draw: random.Random, data: bytes) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _again(draw: random.Random, data: bytes) -> bytes:
    start, end = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    return data[:end] + data[start:end] * draw.choice((1, 1, 3)) + data[end:]


def _token(draw: random.Random, data: bytes) -> bytes:
    index = draw.randrange(len(data) + 1)
    return data[:index] + draw.choice(_TOKENS) + data[index + draw.choice((0, 0, 1, 4)) :]


def _length(draw: random.Random, data: bytes) -> bytes:
    index = draw.randrange(len(data) + 1)
    number = draw.choice((0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1))
    return data[:index] + struct.pack(">I", number)[draw.randrange(4) :] + data[index + 1 :]


_BYTE_CHANGES: tuple[Change, ...] = (_flip, _flip, _put, _cut, _end, _again, _token, _token, _length)


def change_value(draw: random.Random, value: Any) -> Any:
    """The same structure with one place changed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        changed = dict(value)
        name = draw.choice(list(changed))
        match draw.randrange(8):
            case 0:
                del changed[name]
            case 1:
                changed[draw.choice(("x", "", "Tx", name.upper(), "a" * 300, "é"))] = draw.choice(ODD)
            case 2 | 3 | 4:
                changed[name] = draw.choice(ODD)
            case _:
                changed[name] = change_value(draw, changed[name])
        return changed
    if isinstance(value, list) and value and draw.random() < 0.7:
        index = draw.randrange(len(value))
        return [*value[:index], change_value(draw, value[index]), *value[index + 1 :]]
    if isinstance(value, str | bytes) and value and draw.random() < 0.5:
        text: Any = value
        index = draw.randrange(len(text))
        return text[:index] + text[index + 1 :] if draw.random() < 0.5 else text + text[:index]
    return draw.choice(ODD)


def as_json(value: Any) -> bytes:
    return json.dumps(value, default=lambda odd: odd.decode("latin-1")).encode("utf-8", "surrogatepass")


def as_msgpack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed
