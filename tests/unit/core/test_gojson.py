"""Go's JSON, against a reading of its rules of our own: character by character, nothing shared with the builder."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from initiator.core import gojson

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
TRICKY = st.text(
    st.sampled_from('<>&"\\/\b\f\n\r\t\x00\x01\x0b\x1f\x7f\x80\u2027\u2028\u2029\u202a\ufeff\ufffdaé漢😀\U0010ffff')
)
SHORT = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}


def go_string(text: str) -> str:
    """Documentation of encoding/json: Marshal, HTMLEscape; the two-letter escapes of RFC 8259."""
    out = ['"']
    for character in text:
        point = ord(character)
        if point in SHORT:
            out.append("\\" + SHORT[point])
        elif point < 32 or point in (60, 62, 38, 8232, 8233):
            out.append(f"\\u{point:04x}")
        else:
            out.append(character)
    return "".join([*out, '"'])


def go_base64(data: bytes) -> str:
    """RFC 4648 section 4, bit by bit."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    bits = "".join(f"{byte:08b}" for byte in data)
    digits = "".join(alphabet[int(bits[i : i + 6].ljust(6, "0"), 2)] for i in range(0, len(bits), 6))
    return digits + "=" * (-len(digits) % 4)


@given(UNICODE | TRICKY)
def test_strings_are_written_as_go_writes_them(text: str) -> None:
    assert gojson.string(text) == go_string(text)


@given(UNICODE | TRICKY)
def test_strings_read_back_unchanged(text: str) -> None:
    assert json.loads(gojson.string(text)) == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", '""'),
        ("<a href='x'>&amp;</a>", "\"\\u003ca href='x'\\u003e\\u0026amp;\\u003c/a\\u003e\""),
        ('say "\\"', '"say \\"\\\\\\""'),
        ("\b\f\n\r\t", '"\\b\\f\\n\\r\\t"'),
        ("\x00\x0b\x1f\x7f", '"\\u0000\\u000b\\u001f\x7f"'),
        ("\u2028\u2029", '"\\u2028\\u2029"'),
        ("\ufeff😀/", '"\ufeff😀/"'),
    ],
)
def test_the_rules_one_by_one(text: str, written: str) -> None:
    assert gojson.string(text) == written


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00\ud800", "<\ud83d"])
def test_a_lone_surrogate_cannot_be_written(text: str) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        gojson.string(text)


@given(st.binary())
def test_bytes_are_padded_standard_base64(data: bytes) -> None:
    assert gojson.data(data) == f'"{go_base64(data)}"'


def test_nil_is_null_and_empty_is_not() -> None:
    assert (gojson.data(None), gojson.strings(None), gojson.integers(None)) == ("null", "null", "null")
    assert (gojson.data(b""), gojson.strings([]), gojson.integers(())) == ('""', "[]", "[]")


@given(st.lists(UNICODE | TRICKY))
def test_lists_of_strings_hold_no_spaces(values: list[str]) -> None:
    assert gojson.strings(values) == "[" + ",".join(go_string(value) for value in values) + "]"


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_lists_of_integers_hold_no_spaces(values: list[int]) -> None:
    assert gojson.integers(values) == str(values).replace(" ", "")
