"""What backends make outputs of: no type in an answer is taken for granted."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.http import chat_logprobs, finish_reason, logprobs_of, statistics_of, string_of, total_of

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_unknown_finish_reasons_are_kept_in_lower_case() -> None:
    table = {"max_tokens": "length"}
    assert finish_reason("MAX_TOKENS", table) == "length"
    assert finish_reason("NEW_in_2027", table) == "new_in_2027"
    assert finish_reason("", table) is None
    assert finish_reason({"type": "stop"}, table) is None


def test_unknown_counts_are_left_out_and_zero_is_kept() -> None:
    found = statistics_of(
        input_tokens=7.0, output_tokens=0, cached_tokens=None, reasoning_tokens=-1, other="many"
    )
    assert found == {"input_tokens": [7], "output_tokens": [0]}


def test_total_is_unknown_without_its_first_count() -> None:
    assert total_of(5, None, 2, "many") == 7
    assert total_of(None, 5) is None
    assert total_of(0, -1) == 0


def test_generated_token_is_the_first_candidate_and_stands_once() -> None:
    assert logprobs_of("a", -0.1, [("b", -3), ("a", -0.1), (None, -1), ("c", True)]) == [
        {"token": "a", "logprob": -0.1},
        {"token": "b", "logprob": -3},
    ]
    read = chat_logprobs(
        [{"token": "a", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": -2}]}, "odd"]
    )
    assert read == [[{"token": "a", "logprob": -1}, {"token": "b", "logprob": -2}], []]


@given(JSON, JSON)
@settings(derandomize=True, max_examples=200)
def test_odd_values_give_nothing_of_another_type(odd: Any, other: Any) -> None:
    assert isinstance(string_of(odd), str | None)
    assert isinstance(finish_reason(odd, {}), str | None)
    assert isinstance(total_of(odd, other), int | None)
    assert all(type(counts[0]) is int and counts[0] >= 0 for counts in statistics_of(a=odd, b=other).values())
    position = {"token": odd, "logprob": other, "top_logprobs": [{"token": other, "logprob": odd}, odd]}
    for positions in (odd, [odd], [position]):
        read = chat_logprobs(positions)
        assert read is None or all(
            isinstance(item["token"], str) and type(item["logprob"]) in (int, float)
            for candidates in read
            for item in candidates
        )
