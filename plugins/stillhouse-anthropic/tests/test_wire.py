"""Answers of servers that are nearly like Anthropic's, whole and as streams of events."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_anthropic import AnthropicLLM
from stillhouse_anthropic.streams import answer_of_events
from stillhouse_anthropic.wire import message_output

TEXT = {"type": "text", "text": "a"}


def message(*content: Any, **fields: Any) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": list(content),
        "stop_reason": "end_turn",
        **fields,
    }


def test_counts_of_any_type_are_counts_or_unknown() -> None:
    usage = {"input_tokens": "3", "cache_read_input_tokens": 2.0, "output_tokens": "4"}
    whole = message(TEXT, usage=usage)
    assert message_output(whole)["statistics"] == {
        "input_tokens": [5],
        "output_tokens": [4],
        "cached_tokens": [2],
    }
    llm = AnthropicLLM(model="m")
    assert llm.used_tokens(message_output(whole)) == 7
    for odd in (-1, 2**63, 1e308, True, [1], {}, "x", None):
        names = (
            "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation", "output_tokens_details",
        )  # fmt: skip
        for given in (dict.fromkeys(names, odd), odd):
            output = message_output(message(TEXT, usage=given))
            assert output["statistics"] == {}
            assert not llm.used_tokens(output)


@pytest.mark.parametrize("odd", [5, True, {"a": 1}, ["x"]])
def test_a_text_of_another_type_fails_with_what_was_counted(odd: Any) -> None:
    with pytest.raises(GenerationError, match="another shape") as caught:
        message_output(message({"type": "text", "text": odd}, usage={"input_tokens": 3}))
    assert caught.value.kind == "server"
    assert caught.value.outputs == [{"generations": [], "statistics": {"input_tokens": [3]}}]


@pytest.mark.parametrize("odd", [5, True, {"a": 1}, ["x"], 1.5, None])
def test_what_is_of_another_type_beside_the_text_costs_no_text(odd: Any) -> None:
    thinking = {"type": "thinking", "thinking": odd}
    whole = message(thinking, TEXT, {"type": odd}, stop_reason=odd, stop_sequence=odd, stop_details=odd)
    output: Any = message_output(whole)
    assert (output["generations"], output["finish_reasons"], output["stop_reasons"]) == (
        ["a"],
        [None],
        [None],
    )
    assert "reasoning" not in output
    assert "stop_sequences" not in output
    use = {"type": "tool_use", "id": 5, "name": "f", "input": odd}
    ((call,),) = message_output(message(use))["tool_calls"]
    assert call["id"] == "5"
    assert json.loads(call["function"]["arguments"]) == (odd or {})


# Streams


def events(*deltas: Any, stop: str | None = "end_turn", last: bool = True) -> list[Any]:
    made: list[Any] = [
        {"type": "message_start", "message": message(stop_reason=None, usage={"input_tokens": 9, "output_tokens": 1})},
        {"type": "ping"},
        *deltas,
    ]  # fmt: skip
    if stop:
        made.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 7}})
    return [*made, {"type": "message_stop"}] if last else made


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **piece: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **piece}}


def test_the_events_of_a_message_are_one_message() -> None:
    answer = answer_of_events(
        events(
            start(0, type="thinking", thinking=""),
            delta(0, "thinking_delta", thinking="h"),
            delta(0, "thinking_delta", thinking="m"),
            delta(0, "signature_delta", signature="sig"),
            start(1, type="text", text=""),
            delta(1, "text_delta", text="An"),
            delta(1, "text_delta", text="swer"),
            {"type": "content_block_stop", "index": 1},
            start(2, type="tool_use", id="t", name="f", input={}),
            delta(2, "input_json_delta", partial_json='{"x"'),
            delta(2, "input_json_delta", partial_json=":1}"),
            stop="tool_use",
        )
    )
    output: Any = message_output(answer)
    assert output["generations"] == ["Answer"]
    assert output["reasoning"] == ["hm"]
    assert output["thinking_blocks"] == [[{"type": "thinking", "thinking": "hm", "signature": "sig"}]]
    ((call,),) = output["tool_calls"]
    assert call == {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    assert output["finish_reasons"] == ["tool_calls"]
    assert output["statistics"] == {"input_tokens": [9], "output_tokens": [7]}


def test_a_stream_that_ended_early_is_told_apart() -> None:
    text = delta(0, "text_delta", text="half")
    assert message_output(answer_of_events(events(text, stop=None)))["generations"] == ["half"]
    assert message_output(answer_of_events(events(text, last=False)))["generations"] == ["half"]
    assert answer_of_events(events(text, stop=None, last=False), ended=True)
    with pytest.raises(GenerationError, match="ended before the message did") as caught:
        answer_of_events(events(text, stop=None, last=False))
    assert caught.value.kind == "connection"


def test_an_error_in_the_middle_is_the_answer_s_error() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}
    answer = answer_of_events(events(delta(0, "text_delta", text="half"), error))
    assert (answer["type"], answer["error"]["type"]) == ("error", "overloaded_error")
    with pytest.raises(GenerationError, match="no") as caught:
        message_output(answer)
    assert caught.value.outputs[0] is not None
    assert caught.value.outputs[0]["statistics"]["input_tokens"] == [9]


@pytest.mark.parametrize("given", [[], [{"type": "ping"}], ["[DONE]"], [5, None, {"type": []}]])
def test_a_stream_without_a_message_is_an_error(given: list[Any]) -> None:
    with pytest.raises(GenerationError, match="without a message"):
        answer_of_events(given, ended=True)


@pytest.mark.parametrize("odd", [5, "x", [1], {"a": 1}, True, None])
def test_odd_events_are_read_or_fail(odd: Any) -> None:
    for event in (
        {"type": "content_block_start", "index": odd, "content_block": odd},
        {"type": "content_block_delta", "index": odd, "delta": odd},
        delta(0, "text_delta", text=odd),
        delta(0, "input_json_delta", partial_json=odd),
        start(0, type="text", text=odd),
        {"type": "message_delta", "delta": odd, "usage": odd},
        {"type": odd},
    ):
        with contextlib.suppress(GenerationError):
            message_output(answer_of_events(events(event)))


@pytest.mark.parametrize("budget", ["many", None, [1], -5])
def test_budget_that_is_no_number_is_the_apis_to_refuse(budget: Any) -> None:
    chat: Any = [{"role": "user", "content": "Hi"}]
    thinking = {"type": "enabled", "budget_tokens": budget}
    body = AnthropicLLM(model="m").request_of(chat, 1, {"thinking": thinking}).body
    assert (body["max_tokens"], body["thinking"]) == (4096, thinking)
