"""Answers of servers that are nearly like OpenAI's, whole and as streams of events."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_openai import OpenAILLM
from stillhouse_openai.streams import answer_of_events
from stillhouse_openai.wire import output_of


def answer(message: Any, usage: Any = None, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}], "usage": usage}


def test_counts_of_any_type_are_counts_or_unknown() -> None:
    usage = {"prompt_tokens": "3", "completion_tokens": 2.0, "total_tokens": "5"}
    whole = answer({"content": "a"}, usage)
    assert output_of(whole, chat=True)["statistics"] == {"input_tokens": [3], "output_tokens": [2]}
    llm = OpenAILLM(model="m")
    assert llm.used_tokens(output_of(whole, chat=True)) == 5
    for odd in (-1, 2**63, 1e308, True, [1], {}, "x", None):
        usage = {"prompt_tokens": odd, "completion_tokens": odd, "total_tokens": odd}
        usage |= {"prompt_tokens_details": {"cached_tokens": odd}, "completion_tokens_details": odd}
        for given in (usage, odd):
            output = output_of(answer({"content": "a"}, given), chat=True)
            assert output["statistics"] == {}
            assert llm.used_tokens(output) is None


def test_the_cache_hits_of_deepseek_are_part_of_the_input() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_cache_hit_tokens": 80}
    statistics = output_of(answer({"content": "a"}, usage), chat=True)["statistics"]
    assert statistics == {"input_tokens": [100], "output_tokens": [5], "cached_tokens": [80]}


@pytest.mark.parametrize("odd", [5, True, {"a": 1}, [5], [{"type": "text", "text": 5}], [{"thinking": 5}]])
def test_a_content_of_another_type_fails_with_what_was_counted(odd: Any) -> None:
    for body, chat in ((answer({"content": odd}, {"prompt_tokens": 3}), True),):
        with pytest.raises(GenerationError, match="another shape") as caught:
            output_of(body, chat=chat)
        assert caught.value.kind == "server"
        assert caught.value.outputs == [{"generations": [], "statistics": {"input_tokens": [3]}}]
    with pytest.raises(GenerationError, match="another shape"):
        output_of({"choices": [{"text": odd, "finish_reason": "stop"}]}, chat=False)


def test_parts_are_one_text_and_thoughts_are_apart() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "An"},
        {"type": "thinking", "thinking": []},
        "s",
        {"type": "text", "text": "wer"},
        {"type": "thinking", "thinking": "m"},
    ]
    output = output_of(answer({"content": content}), chat=True)
    assert (output["generations"], output["reasoning"]) == (["Answer"], ["hmm"])


@pytest.mark.parametrize("finish", [None, 1.5, {}, [], "", "STOP"])
def test_what_a_choice_lacks_costs_no_text(finish: Any) -> None:
    whole = {"choices": [{"message": {"content": "a"}, "finish_reason": finish}, {"message": {}, **STOP}]}
    output = output_of(whole, chat=True)
    assert output["generations"] == ["a", None]
    assert output["finish_reasons"] == ["stop" if finish == "STOP" else None, "stop"]
    for index in ([1], {}, "x", True, 2**70):
        odd = {"choices": [{"index": index, **MESSAGE}, {"index": 1, **MESSAGE}]}
        assert output_of(odd, chat=True)["generations"] == ["b", "b"]
    assert output_of({"choices": [{"text": "c", **STOP}]}, chat=True)["generations"] == ["c"]


STOP = {"finish_reason": "stop"}
MESSAGE = {"message": {"content": "b"}, **STOP}


def test_tool_calls_have_texts_for_ids_and_arguments() -> None:
    function = {"name": "f", "arguments": {"city": "Oslo"}}
    given = [{"id": 0, "type": "function", "function": function}, "x", {"id": "b", "function": None}]
    (calls,) = output_of(answer({"tool_calls": given}, finish_reason="tool_calls"), chat=True)["tool_calls"]
    assert calls == [
        {"id": "0", "type": "function", "function": {"name": "f", "arguments": '{"city":"Oslo"}'}},
        {"id": "b", "function": None},
    ]
    assert given[0]["id"] == 0  # type: ignore[index]
    for odd in ("x", 5, {}, [], [5]):
        assert "tool_calls" not in output_of(answer({"content": "a", "tool_calls": odd}), chat=True)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [{"a": -0.1, "b": -2}]}, 2),
        ({"content": [{"token": "a", "logprob": -0.1, "top_logprobs": [{"token": "b", "logprob": -2}]}]}, 2),
        ({"content": [{"token": "a", "logprob": -9999.0, "top_logprobs": None}]}, 1),
        ({"content": [{}]}, 0),
        ({"content": [{"token": 5, "logprob": "x", "top_logprobs": {}}]}, 0),
        ({"tokens": ["a"], "token_logprobs": [None], "top_logprobs": 5}, 0),
    ],
)
def test_log_probabilities_of_either_form_are_read_as_far_as_they_can_be(given: Any, read: int) -> None:
    for body, chat in ((answer({"content": "a"}, logprobs=given), True),):
        (positions,) = output_of(body, chat=chat)["logprobs"]
        assert positions is not None
        assert [len(candidates) for candidates in positions] == [read]


@pytest.mark.parametrize("odd", [5, "x", [], {}, {"content": 5}, {"tokens": 5}, {"tokens": ["a"]}])
def test_log_probabilities_of_no_form_are_left_out(odd: Any) -> None:
    assert "logprobs" not in output_of(answer({"content": "a"}, logprobs=odd), chat=True)


@pytest.mark.parametrize("choice", [{"error": {"code": 502, "message": "no"}}, {"finish_reason": "error"}])
def test_a_choice_that_failed_is_an_error(choice: Any) -> None:
    with pytest.raises(GenerationError, match="answered with an error") as caught:
        output_of(answer({"content": "half"}, {"completion_tokens": 2}, **choice), chat=True)
    assert caught.value.outputs == [{"generations": [], "statistics": {"output_tokens": [2]}}]


def test_a_long_message_of_a_server_is_cut() -> None:
    for error in ("x" * 100_000, {"message": ["x"] * 100_000}):
        with pytest.raises(GenerationError) as caught:
            output_of({"error": error}, chat=True)
        assert len(caught.value.message) < 600


# Streams


def delta(index: int | None = 0, finish: str | None = None, **part: Any) -> dict[str, Any]:
    choice = {"delta": part, "finish_reason": finish} | ({} if index is None else {"index": index})
    return {"id": "c", "model": "m", "object": "chat.completion.chunk", "choices": [choice]}


def read(*events: Any, ended: bool = False) -> Any:
    return output_of(answer_of_events(list(events), ended=ended), chat=True)


def test_the_smallest_stream() -> None:
    (event,) = [{"choices": [{"delta": {"content": "he"}}]}]
    assert read(event, "[DONE]")["generations"] == read(event, ended=True)["generations"] == ["he"]
    with pytest.raises(GenerationError, match="ended before the answer did") as caught:
        read(event)
    assert caught.value.kind == "connection"


def test_generations_and_usage_are_kept_apart() -> None:
    output = read(
        delta(1, content="b"),
        delta(0, role="assistant", content="a", reasoning_content="h"),
        {"choices": []},
        {"object": "ping"},
        7,
        delta(2, content="c", refusal=None),
        delta(0, content="A", reasoning_content="m", finish="stop"),
        delta(1, finish="length"),
        delta(2, finish="stop", content=None),
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}},
    )
    assert output["generations"] == ["aA", "b", "c"]
    assert output["finish_reasons"] == ["stop", "length", "stop"]
    assert output["reasoning"] == ["hm", None, None]
    assert output["statistics"] == {"input_tokens": [5], "output_tokens": [6]}


def piece(index: Any, id: Any, name: str | None, arguments: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"function": {"name": name, "arguments": arguments}, "type": "function"}
    return {**made, **({} if index is None else {"index": index}), **({} if id is None else {"id": id})}


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "f", ""), piece(0, None, None, '{"x"'), piece(1, "b", "g", ""),
         piece(0, None, None, ":1}"), piece(1, None, None, "{}")],
        [piece(None, "a", "f", '{"x"'), piece(None, "a", None, ":1}"), piece(None, "b", "g", "{}")],
        [piece(None, "a", "f", '{"x"'), piece(None, None, None, ":1}"), piece(None, "b", "g", "{}")],
        [piece(0, "a", "f", '{"x":1}'), piece(0, "b", "g", "{}")],
        [piece(0, "a", "f", '{"x"'), piece(0, "a", "f", ":1}"), piece(0, "b", "g", "{}")],
        [piece([0], "a", "f", {"x": 1}), piece({}, "b", "g", {})],
    ],
)  # fmt: skip
def test_the_pieces_of_tool_calls_are_told_apart(pieces: list[Any]) -> None:
    events = [delta(tool_calls=[item]) for item in pieces]
    for given in ([*events, delta(finish="tool_calls")], [delta(finish="tool_calls", tool_calls=pieces)]):
        (calls,) = read(*given)["tool_calls"]
        assert [(call["id"], call["function"]["name"]) for call in calls] == [("a", "f"), ("b", "g")]
        assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"x": 1}, {}]


def test_log_probabilities_of_a_stream_are_joined() -> None:
    def event(token: str) -> dict[str, Any]:
        entry = {"content": [{"token": token, "logprob": -1.0, "top_logprobs": []}], "refusal": None}
        return {"choices": [{"index": 0, "delta": {"content": token}, "logprobs": entry}]}

    (positions,) = read(event("a"), event("b"), delta(finish="stop"))["logprobs"]
    assert positions == [[{"token": token, "logprob": -1.0}] for token in "ab"]


def test_a_stream_of_a_completion_and_one_with_a_whole_answer() -> None:
    events = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("he", "llo")]
    joined = answer_of_events([*events, "[DONE]"])
    assert output_of(joined, chat=False)["generations"] == ["hello"]
    assert read(answer({"content": "whole", "tool_calls": None}))["generations"] == ["whole"]
    response = {"output": [], "status": "completed"}
    assert answer_of_events([{"type": "response.completed", "response": response}]) == response


def test_parts_of_a_stream_are_one_text() -> None:
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
    output = read(delta(content=thinking), delta(content="An"), delta(content="swer", finish="stop"))
    assert (output["generations"], output["reasoning"]) == (["Answer"], ["hm"])


@pytest.mark.parametrize(
    "error",
    [{"error": {"message": "no"}}, {"object": "error", "message": "no"}, {"type": "error", "message": "no"}],
)
def test_an_error_in_the_middle_is_the_answer_s_error(error: Any) -> None:
    joined = answer_of_events([delta(content="half"), error, {"usage": {"prompt_tokens": 3}}, "[DONE]"])
    assert joined["error"]["message"] == "no"
    assert "choices" not in joined
    with pytest.raises(GenerationError, match="no") as caught:
        output_of(joined, chat=True)
    assert caught.value.outputs == [{"generations": [], "statistics": {"input_tokens": [3]}}]


@pytest.mark.parametrize("events", [[], ["[DONE]"], [{"choices": []}], [{"choices": "x"}], [5, None]])
def test_a_stream_without_an_answer_is_an_error(events: list[Any]) -> None:
    with pytest.raises(GenerationError, match="without an answer"):
        answer_of_events(events, ended=True)


@pytest.mark.parametrize("odd", [5, "x", [1], {"a": 1}, True])
def test_odd_events_are_read_or_fail(odd: Any) -> None:
    for choice in ({"delta": odd}, {"delta": {"content": odd}}, {"delta": {"tool_calls": odd}}, odd):
        event = {"choices": [choice], "usage": odd, "id": odd}
        with contextlib.suppress(GenerationError):
            read(event, delta(finish="stop"), ended=True)


def test_calls_that_stand_in_a_choice_of_their_own_belong_to_the_one_before() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    first = {"finish_reason": "tool_calls", "message": {"role": "assistant", "content": "t"}}
    second = {"finish_reason": "tool_calls", "message": {"role": "assistant", "tool_calls": [call]}}
    output = output_of({"choices": [first, second], "usage": {"prompt_tokens": 1066}}, chat=True)
    assert (output["generations"], output["tool_calls"]) == (["t"], [[call]])
    both = output_of({"choices": [second, second]}, chat=True)  # two generations
    assert both["tool_calls"] == [[call], [call]]


@pytest.mark.parametrize(
    ("said", "reason"), [("stop", "tool_calls"), (None, "tool_calls"), ("length", "length")]
)
def test_calls_of_tools_end_with_tool_calls_whatever_word_comes_with_them(said: Any, reason: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    output = output_of({"choices": [{"finish_reason": said, "message": message}]}, chat=True)
    assert output["finish_reasons"] == [reason]
