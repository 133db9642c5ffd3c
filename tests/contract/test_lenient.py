"""JSON that is not written as the standard has it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse._lenient import loads

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('\ufeff{"a": "\u00e9"}', {"a": "\u00e9"}),
        ('{"a": "\u00e9"}'.encode("utf-16"), {"a": "\u00e9"}),
        ('{"a": "\u00e9"}'.encode("utf-16-be"), {"a": "\u00e9"}),
        ('["\u00e9"]'.encode("utf-32"), ["\u00e9"]),
        (b'{"a\xff": ["\xe9t\xe9"]}', {"a\ufffd": ["\ufffdt\ufffd"]}),
        (rb'{"a": "x\ud83dy", "\udc00": [["\ud83d"]]}', {"a": "x\ufffdy", "\ufffd": [["\ufffd"]]}),
        (rb'["\ud83d", "\ud83d\ude00"]', ["\ufffd", "\U0001f600"]),
        ('["\ud83d"]', ["\ufffd"]),
        (rb'"\ud83d"', "\ufffd"),
        (b"[NaN, Infinity, -Infinity, 1e999, -1e999]", [None] * 5),
        (b"[NaN, 18446744073709551615, -9223372036854775808]", [None, 2**64 - 1, -(2**63)]),
        (b"[NaN, 18446744073709551616, -9223372036854775809]", [None, 2.0**64, -(2.0**63)]),
        (b"[" + b"9" * 5000 + b"]", [None]),
        (b'["a\tb\x00"]', ["a\tb\x00"]),
        (b'{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_what_is_meant_as_json_is_read(raw: bytes | str, value: Any) -> None:
    read = loads(raw)
    assert read == value
    json.dumps(read, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "raw",
    [
        *(
            b"",
            b"\x00",
            b"\xff\xfe",
            b"not json",
            b"[1",
            b'{"a": 1} {"a": 2}',
            b"<html>",
            b"[1,]",
            b"nul",
            "",
        ),
        *(b"[" * depth + b"NaN" + b"]" * depth for depth in (2_000, 1_000_000)),
        *(b"[" * 1_000_000, b'{"a":' * 200_000, b'"' + b'\\"' * 100_000),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_what_is_not_json_is_a_value_error(raw: bytes | str) -> None:
    with pytest.raises(ValueError, match="not JSON") as caught:
        loads(raw)
    assert len(str(caught.value)) < 200


@given(_VALUES)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_json_of_the_standard_is_read_as_it_is(value: Any) -> None:
    text = json.dumps(value)
    assert loads(text) == value
    assert loads(f"\ufeff{text}".encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\u0dNa1e-\ufeff\ud800 ', max_size=40))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_any_bytes_are_read_or_a_value_error(raw: bytes | str) -> None:
    try:
        value = loads(raw)
    except ValueError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
