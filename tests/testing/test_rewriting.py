"""What the kit changes in an answer of the author's `respond`, in JSON and in bytes."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.testing.rewriting import with_counts, with_error, without_text

LINES = b'{"text": "a river"}\n{"text": "", "tokens": 3}\n'
EVENTS = b'event: part\ndata: {"text": "a river"}\n\ndata: {"tokens": 3}\n\ndata: [DONE]\n\n'
PACKED = b"\xdf\x00\x00\x00\x01\xdb\x00\x00\x00\x07a river"
PRETTY = b'{\n  "text": "a river",\n  "tokens": 3\n}'


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (LINES, b'{"text": 5}\n{"text": "", "tokens": 3}\n'),
        (EVENTS, EVENTS.replace(b'"a river"', b"5")),
        (PRETTY, b'{"text": 5, "tokens": 3}'),
        (PACKED, PACKED),
        (b"a river", b"a river"),
        ([{"text": "a river"}], [{"text": 5}]),
    ],
)
def test_text_gives_way_to_what_is_none(answer: Any, expected: Any) -> None:
    assert without_text(answer, "a river", 5) == expected


@pytest.mark.parametrize("answer", [LINES, EVENTS, b"it is a river"])
def test_text_gives_way_to_nothing(answer: bytes) -> None:
    assert without_text(answer, "a river", "") == answer.replace(b"a river", b"")


def test_format_that_counts_its_bytes_is_left_alone() -> None:
    assert without_text(PACKED, "a river", "") == PACKED
    assert with_counts(PACKED, None) == with_error(PACKED, {}) == PACKED


@pytest.mark.parametrize("odd", ["12", None, True, 2**70])
def test_counts_are_changed_in_lines_and_events(odd: Any) -> None:
    for answer in (LINES, EVENTS, PRETTY, {"usage": {"tokens": 1}}):
        assert str(with_counts(answer, odd)) != str(answer)
    assert with_counts(b'{"text":"x"}', odd) == b'{"text":"x"}', "what has no count is not written again"


def test_error_is_in_the_last_object_of_a_stream() -> None:
    assert with_error(LINES, 1) == LINES.replace(b"3}", b'3, "error": 1}')
    assert with_error(EVENTS, 1) == EVENTS.replace(b"3}", b'3, "error": 1}')
    assert with_error(PRETTY, 1) == b'{"text": "a river", "tokens": 3, "error": 1}'
    assert with_error({"text": "x"}, 1) == {"text": "x", "error": 1}
    assert with_error(["x"], 1) == ["x"]
