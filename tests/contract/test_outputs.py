"""Making, merging and counting what was generated."""

from __future__ import annotations

import copy
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, compute_tokens, merge_responses, prepare_output
from stillhouse.outputs import check_output, count_of, merge_results


def response(text: str | None, **extra: Any) -> Any:
    return {"generations": [text], "statistics": {}, **extra}


def test_merge_responses_of_nothing_is_empty() -> None:
    assert merge_responses([], 3) == []


def test_merge_responses_merges_groups_and_the_last_may_be_short() -> None:
    merged = merge_responses([response(text) for text in "abcdefgh"], 3)
    assert [output["generations"] for output in merged] == [["a", "b", "c"], ["d", "e", "f"], ["g", "h"]]
    assert [len(output["generations"]) for output in merge_responses([response("a")], 5)] == [1]


def test_merge_responses_with_groups_of_one_changes_nothing() -> None:
    responses = [response("a", logprobs=[[]]), response(None)]
    assert merge_responses(responses, 1) == responses


def test_a_group_has_at_least_one_response() -> None:
    with pytest.raises(ConfigurationError, match="n is 0"):
        merge_responses([response("a")], 0)


def test_merge_responses_keeps_every_entry_of_every_list() -> None:
    (merged,) = merge_responses(
        [
            {
                "generations": ["a", "b"],
                "statistics": {"input_tokens": [1, 2], "output_tokens": [3, 4]},
                "logprobs": [[[{"token": "a", "logprob": -1.0}]], []],
                "finish_reasons": ["stop", "length"],  # type: ignore[typeddict-unknown-key]
            },
            {
                "generations": ["c", "d"],
                "statistics": {"input_tokens": [5, 6], "output_tokens": [7, 8]},
                "logprobs": [[], [[{"token": "d", "logprob": -2.0}]]],
                "finish_reasons": ["stop", "stop"],
            },
        ],
        2,
    )
    assert merged == {
        "generations": ["a", "b", "c", "d"],
        "statistics": {"input_tokens": [1, 2, 5, 6], "output_tokens": [3, 4, 7, 8]},
        "logprobs": [[[{"token": "a", "logprob": -1.0}]], [], [], [[{"token": "d", "logprob": -2.0}]]],
        "finish_reasons": ["stop", "length", "stop", "stop"],
    }


def test_merged_lists_stay_aligned_with_the_generations() -> None:
    (merged,) = merge_responses(
        [
            response("a"),
            {"generations": [None], "statistics": {}},
            {"generations": ["c"], "statistics": {"output_tokens": [7]}, "logprobs": [[]]},
            response("d", reasoning=["because"]),
        ],
        4,
    )
    assert merged == {
        "generations": ["a", None, "c", "d"],
        "statistics": {"output_tokens": [None, None, 7, None]},
        "logprobs": [None, None, [], None],
        "reasoning": [None, None, None, "because"],
    }


def test_a_statistic_of_a_whole_request_is_not_repeated() -> None:
    (merged,) = merge_responses(
        [
            {"generations": ["a", "b"], "statistics": {"input_tokens": [10]}},
            {"generations": ["c", "d"], "statistics": {"input_tokens": [20]}},
        ],
        2,
    )
    assert merged["statistics"]["input_tokens"] == [10, None, 20, None]
    assert sum(filter(None, merged["statistics"]["input_tokens"])) == 30


def test_merging_leaves_the_responses_alone() -> None:
    responses = [response("a", extra=[1]), response("b")]
    before = copy.deepcopy(responses)
    merge_responses(responses, 2)[0]["generations"].append("z")
    assert responses == before


def test_prepare_output_omits_unknown_token_counts_and_keeps_zero() -> None:
    assert prepare_output(["a"]) == {"generations": ["a"], "statistics": {}}
    assert prepare_output(["a"], [], []) == {"generations": ["a"], "statistics": {}}
    assert prepare_output(["a"], [0], [0]) == {
        "generations": ["a"],
        "statistics": {"input_tokens": [0], "output_tokens": [0]},
    }


def test_prepare_output_includes_optional_lists_only_when_given() -> None:
    output = prepare_output(
        ["a", None], logprobs=[[], None], finish_reasons=["stop", "content_filter"], reasoning=None
    )
    assert output == {
        "generations": ["a", None],
        "statistics": {},
        "logprobs": [[], None],
        "finish_reasons": ["stop", "content_filter"],
    }
    assert "logprobs" not in prepare_output(["a"], logprobs=[])


class Words:
    def encode(self, text: str) -> list[str]:
        return text.split()


def test_tokens_of_a_text_and_of_the_contents_of_a_chat() -> None:
    assert compute_tokens("one two three", Words()) == 3
    assert compute_tokens("", Words()) == 0
    chat: Any = [
        {"role": "system", "content": "one two"},
        {"role": "user", "content": [{"type": "text", "text": "three four"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None},
    ]
    assert compute_tokens(chat, Words()) == 4
    assert compute_tokens([], Words()) == 0


class Real:
    """A number of another library."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)


class Index:
    """A whole number of another library."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("value", "count"),
    [
        *((0, 0), (3, 3), (2**53, 2**53), ("3", 3), ("007", 7), (132.0, 132), (0.0, 0), (Index(), 7)),
        *((value, None) for value in (2**53 + 1, 2**63, 10**400, -1, -1.0, 0.5, 1e308, float("nan"))),
        *((value, None) for value in (float("inf"), "", "x", "-3", "3.0", " 3", "\u0663", "9" * 5000)),
        *((value, None) for value in (True, False, None, [1], (1,), {}, {"a": 1}, object(), b"3")),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_count_is_a_whole_number_from_0_to_2_to_the_53(value: Any, count: int | None) -> None:
    found = count_of(value)
    assert found == count
    assert type(found) in (int, type(None))


def test_prepare_output_leaves_out_counts_that_are_none() -> None:
    given: Any = ["3"]
    assert prepare_output(["a"], given, [True])["statistics"] == {"input_tokens": [3]}
    given = [-5, 2.0, {}]
    assert prepare_output(["a"], given, given[:1])["statistics"] == {"input_tokens": [None, 2, None]}
    given = "12"
    assert prepare_output(["a"], given, 7)["statistics"] == {  # type: ignore[arg-type]
        "input_tokens": [12],
        "output_tokens": [7],
    }


def test_a_good_output_is_not_copied() -> None:
    output = prepare_output(["a", None], [5], [7, 0], finish_reasons=["stop", "length"])
    output["statistics"]["output_tokens"] = [7, 1]
    output["statistics"]["cached_tokens"] = [0]
    assert check_output(output, 2, "an LLM") is output


_ODD: tuple[Any, ...] = (True, -1, 1.5, 2**63, 1e308, float("nan"), "x", [[1]], {}, {"a": [{}]}, object())


@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: repr(odd)[:12])
def test_what_is_of_another_type_than_the_contract_s_is_left_out(odd: Any) -> None:
    good = {
        "generations": ["a"],
        "statistics": {"input_tokens": [5]},
        "finish_reasons": ["stop"],
        "logprobs": [[[{"token": "a", "logprob": -1.0}]]],
        "reasoning": ["because"],
        "tool_calls": [[{"id": "1"}]],
    }
    assert check_output(good, 1, "an LLM") == good
    for entry in ([odd], odd):
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            output = {**good, "statistics": {name: entry}}
            before = copy.deepcopy(output) if type(odd) is not object else None
            assert check_output(output, 1, "an LLM") == {**good, "statistics": {}}
            assert before is None or repr(output) == repr(before)
        for key in ("finish_reasons", "reasoning", "logprobs", "tool_calls"):
            checked: Any = check_output({**good, key: entry}, 1, "an LLM")
            kept = checked.pop(key, None)
            assert checked == {name: value for name, value in good.items() if name != key}
            if key in ("finish_reasons", "reasoning"):
                assert kept in (None, [None], ["x"])
            else:
                assert kept in (None, [None], [[[]]])
    assert check_output({**good, "statistics": odd}, 1, "an LLM") == {**good, "statistics": {}}
    checked = check_output({**good, "logprobs": [[[odd, {"token": "a", "logprob": odd}]]]}, 1, "an LLM")
    assert [item["token"] for item in checked["logprobs"][0][0]] == ["a"]


@pytest.mark.parametrize("odd", [odd for odd in _ODD if odd != "x"], ids=lambda odd: repr(odd)[:12])
def test_a_generation_that_is_no_text_fails_the_input_and_keeps_what_was_counted(odd: Any) -> None:
    output = {"generations": ["a", odd], "statistics": {"input_tokens": [5], "output_tokens": ["x"]}}
    with pytest.raises(GenerationError, match=f"of type {type(odd).__name__} instead of a text") as caught:
        check_output(output, 2, "an LLM")
    assert caught.value.outputs == [{"generations": [], "statistics": {"input_tokens": [5]}}]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (["a", None], "a list of texts.*\n.*return prepare_output\\(\\["),
        ("a", "str.*\n.*return prepare_output\\(\\["),
        (None, "NoneType"),
        (5, "int"),
        ({}, "dict"),
        ([{"generations": ["a"]}], "list"),
        ({"generations": "a", "statistics": {}}, "dict"),
    ],
    ids=repr,
)
def test_what_is_no_output_is_told_with_what_to_return(output: Any, message: str) -> None:
    with pytest.raises(GenerationError, match=f"an LLM returned {message}"):
        check_output(output, 1, "an LLM")
    error = merge_results([prepare_output(["b"]), output], "an LLM")
    assert isinstance(error, GenerationError)
    assert error.outputs == [prepare_output(["b"])]


def test_statistics_of_a_backend_s_own_may_be_numbers_and_texts() -> None:
    own = {"seconds": [0.5], "engine": ["v1"], "warm": [True], "offset": [-3]}
    odd = {"ratio": [float("inf")], "huge": [2**70], "list": [[1]], "one": 0.25}
    checked = check_output({"generations": ["a"], "statistics": {**own, **odd}}, 1, "an LLM")
    assert checked["statistics"] == {**own, "one": [0.25], "not_finite": [1]}


def test_zeros_beside_a_text_are_no_report() -> None:
    def checked(text: str | None, given: int, made: int) -> Any:
        return check_output(prepare_output([text], [given], [made]), 1, "an LLM")["statistics"]

    assert checked("a", 0, 0) == {}
    assert checked("a", 5, 0) == {"input_tokens": [5]}
    assert checked(None, 5, 0) == {"input_tokens": [5], "output_tokens": [0]}
    assert checked(None, 0, 0) == {"input_tokens": [0], "output_tokens": [0]}


def test_what_is_nested_too_deep_to_be_stored_is_left_out() -> None:
    deep: Any = []
    for _ in range(2_000):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for odd in (deep, endless):
        output = {"generations": ["a"], "statistics": {}, "own": [odd], "tool_calls": [[{"f": odd}]]}
        assert check_output(output, 1, "an LLM") == {
            "generations": ["a"],
            "statistics": {},
            "tool_calls": [None],
        }


def test_one_value_for_all_generations_is_repeated_when_outputs_are_merged() -> None:
    merged = merge_responses([response("a", model="m", n=5), response("b")], 2)[0]
    assert merged["model"] == ["m", None]  # type: ignore[typeddict-item]
    assert merged["n"] == [5, None]  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((value, value) for value in (-0.1, -0.0, -1e308, -math.inf)),
        *((value, float(value)) for value in (-1, -(2**70), Fraction(-1, 2), Decimal("-0.5"), Real(-0.5))),
        *((value, None) for value in (math.nan, math.inf, None, "-0.5", b"", True, [-0.5], Real(math.nan))),
        *((value, None) for value in (10**400, Decimal("NaN"), 1j, Real("x"), object())),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_candidate_without_a_log_probability_stays_and_is_counted(value: Any, number: float | None) -> None:
    """Minus infinity is the log probability of what cannot be, and a number."""
    candidates = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": value, "rank": 2}]
    output: Any = {"generations": ["a"], "statistics": {}, "logprobs": [[candidates]]}
    once: Any = check_output(output, 1, "X")
    for checked in (once, check_output(once, 1, "X"), merge_results([once])):  # no number is counted twice
        first, second = checked["logprobs"][0][0]
        assert first == candidates[0]
        assert (second["token"], second["rank"], type(second["logprob"])) == ("b", 2, float)
        assert math.isnan(second["logprob"]) if number is None else second["logprob"] == number
        assert checked["statistics"] == ({"not_finite": [1]} if number is None else {})
    assert candidates[1]["logprob"] is value
    merged = merge_results([once, once, prepare_output(["b"])])
    assert sum(filter(None, merged["statistics"].get("not_finite", []))) == (2 if number is None else 0)
    assert check_output(merged, 3, "X")["statistics"] == merged["statistics"]


def test_numbers_that_are_none_are_counted_wherever_they_are() -> None:
    class Array:
        def tolist(self) -> list[Any]:
            return [[1.0, math.nan], [math.inf, 2.0]]

    own = [{"a": [math.nan, 1.0, (math.inf,)], "b": {"c": -math.inf}, "d": "NaN", "e": None}]
    output: Any = {
        "generations": ["a"],
        "statistics": {"seconds": [math.nan, 0.5]},
        "own": own,
        "states": [Array()],
    }
    checked: Any = check_output(output, 1, "X")
    assert checked["statistics"] == {"seconds": [None, 0.5], "not_finite": [6]}
    assert checked["own"] is own


def test_a_statistic_that_holds_itself_ends_no_check() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert check_output({"generations": ["a"], "statistics": {"own": endless}}, 1, "X")["statistics"] == {}
