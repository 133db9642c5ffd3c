"""Making, merging and counting what was generated."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from stillhouse import ConfigurationError, compute_tokens, merge_responses, prepare_output


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
