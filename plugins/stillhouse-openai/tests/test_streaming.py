"""Answers that are streamed, in every dialect of the API, and by a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_openai import DeepSeekLLM, GroqLLM, OpenAILLM, OpenRouterLLM

CHAT: Any = [{"role": "user", "content": "hello"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}

Make = Callable[..., OpenAILLM]


def events(*values: Any, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(value)}\n\n" for value in values]
    return "".join([": comment\n\n", *lines, "data: [DONE]\n\n" if done else ""]).encode()


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def streamed(llm: Any, input: Any = CHAT, **arguments: Any) -> tuple[list[str], Any]:
    with llm:
        *pieces, output = llm.stream(input, **arguments)
    return pieces, output


HELLO = (delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo"))
END = (delta("stop"), {"id": "c", "choices": [], "usage": USAGE})


def test_a_chat_comes_in_pieces_with_its_tokens(make: Make, server: Any) -> None:
    server.script = [events(*HELLO, *END), server.chat("Hello", usage=USAGE)]
    pieces, output = streamed(make(), temperature=0.5)
    assert pieces == ["Hel", "lo"]
    with make() as llm:
        assert output == llm.generate_outputs([CHAT], temperature=0.5)[0]
    asked, plain = server.bodies
    assert asked == {**plain, "stream": True, "stream_options": {"include_usage": True}}


def test_a_raw_prompt_comes_in_pieces(make: Make, server: Any) -> None:
    texts = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in (" a", " time")]
    texts[-1]["choices"][0]["finish_reason"] = "length"
    server.script = [events(*texts, {"choices": [], "usage": USAGE})]
    pieces, output = streamed(make(), "Once upon")
    assert pieces == [" a", " time"]
    assert output["generations"] == [" a time"]
    assert output["finish_reasons"] == ["length"]
    assert output["statistics"] == {"input_tokens": [7], "output_tokens": [5]}


def test_the_responses_api_streams_its_own_events(make: Make, server: Any) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
    whole = {"status": "completed", "output": [message], "usage": {"input_tokens": 3, "output_tokens": 2}}
    server.script = [
        events(
            {"type": "response.created", "response": {"status": "in_progress"}},
            {"type": "response.reasoning_text.delta", "delta": "Well"},
            {"type": "response.output_text.delta", "delta": "Hel"},
            {"type": "response.output_text.delta", "delta": "lo"},
            {"type": "response.output_text.done", "text": "Hello"},
            {"type": "response.completed", "response": whole},
            done=False,
        )
    ]
    pieces, output = streamed(make(api="responses"))
    assert pieces == ["Hel", "lo"]
    assert output["generations"] == ["Hello"]
    assert output["statistics"] == {"input_tokens": [3], "output_tokens": [2]}
    assert server.bodies[0]["stream"] is True
    assert "stream_options" not in server.bodies[0]


def test_groq_counts_in_a_place_of_its_own(server: Any) -> None:
    server.script = [events(*HELLO, {**delta("stop"), "x_groq": {"usage": USAGE}})]
    pieces, output = streamed(GroqLLM(model="m", base_url=f"{server.origin}/v1", api_key="key"))
    assert pieces == ["Hel", "lo"]
    assert output["statistics"]["output_tokens"] == [5]


def test_reasoning_is_no_piece(server: Any) -> None:
    server.script = [events(delta(reasoning_content="Hm"), delta(reasoning_content="m."), *HELLO, *END)]
    pieces, output = streamed(DeepSeekLLM(model="m", base_url=server.origin, api_key="key"))
    assert pieces == ["Hel", "lo"]
    assert output["reasoning"] == ["Hmm."]


def test_contents_in_parts_are_pieces_of_text(make: Make, server: Any) -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    server.script = [
        events(
            delta(content=[thought]),
            delta(content=[{"type": "text", "text": "Hel"}]),
            delta(content=[{"type": "text", "text": "lo"}]),
            *END,
        )
    ]
    pieces, output = streamed(make())
    assert pieces == ["Hel", "lo"]
    assert (output["generations"], output["reasoning"]) == (["Hello"], ["Hm"])


def test_openrouter_s_reasoning_and_reason_are_joined(server: Any) -> None:
    def detail(text: str) -> dict[str, Any]:
        return {"type": "reasoning.text", "index": 0, "text": text}

    last = delta("stop")
    last["choices"][0]["native_finish_reason"] = "MAX_TOKENS"
    server.script = [
        events(
            delta(reasoning_details=[detail("Let me ")]),
            delta(reasoning_details=[detail("think."), {"type": "reasoning.encrypted", "data": "x"}]),
            *HELLO,
            last,
            {"choices": [], "usage": {**USAGE, "cost": 0.25}},
        )
    ]
    pieces, output = streamed(OpenRouterLLM(model="m", base_url=server.origin, api_key="key"))
    assert pieces == ["Hel", "lo"]
    assert output["reasoning_details"] == [
        [detail("Let me think."), {"type": "reasoning.encrypted", "data": "x"}]
    ]
    assert output["finish_reasons"] == ["length"]
    assert output["statistics"]["cost"] == [0.25]


def test_a_call_of_a_tool_has_no_pieces(make: Make, server: Any) -> None:
    call = {"index": 0, "id": "1", "function": {"name": "river", "arguments": '{"in": '}}
    more = {"index": 0, "function": {"arguments": '"Peru"}'}}
    server.script = [events(delta(tool_calls=[call]), delta(tool_calls=[more]), delta("tool_calls"))]
    pieces, output = streamed(make(), tools=[{"type": "function", "function": {"name": "river"}}])
    assert pieces == []
    assert output["generations"] == [None]
    assert output["tool_calls"][0][0]["function"] == {"name": "river", "arguments": '{"in": "Peru"}'}


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (
            events({"error": {"message": "slow down", "type": "rate_limit_exceeded"}}, done=False),
            "rate_limit",
        ),
        (events({**delta("error"), "error": {"message": "no", "code": 502}}), "server"),
    ],
    ids=["rate limit", "choice"],
)
def test_an_error_in_the_middle_has_its_kind(make: Make, server: Any, ending: bytes, kind: str) -> None:
    server.script = [events(*HELLO, done=False) + ending]
    with make() as llm, pytest.raises(GenerationError) as caught:
        list(llm.stream(CHAT))
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "fields",
    [
        {"structured_output": {"schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
        {"reasoning_tag": "think"},
    ],
    ids=["form", "tag"],
)
def test_what_cannot_be_streamed_comes_at_once(make: Make, server: Any, fields: dict[str, Any]) -> None:
    server.script = [server.chat('<think>Hm</think>{"a": 1}' if "reasoning_tag" in fields else '{"a": 1}')]
    pieces, output = streamed(make(**fields))
    assert pieces == output["generations"] == ['{"a": 1}']
    assert "stream" not in server.bodies[0]


def test_a_server_that_knows_no_usage_is_asked_again_without_a_stream(make: Make, server: Any) -> None:
    refusal = {"error": {"message": "stream_options: extra fields not permitted"}}
    server.script = [(400, refusal), server.chat("Hello")]
    assert streamed(make())[0] == ["Hello"]


@pytest.mark.model
@pytest.mark.parametrize("input", [[{"role": "user", "content": "Count to five."}], "Once upon a"])
def test_a_real_server_streams_what_it_answers(real_server: dict[str, str], input: Any) -> None:
    given = {"temperature": 0.0, "max_new_tokens": 12}
    with OpenAILLM(model="smollm2", generation_kwargs=given, **real_server) as llm:
        *pieces, output = llm.stream(input)
        (whole,) = llm.generate_outputs([input])
    assert len(pieces) > 3
    assert "".join(pieces) == output["generations"][0] == whole["generations"][0]  # type: ignore[index]
    assert output["finish_reasons"] == whole["finish_reasons"]  # type: ignore[index]
    for name in ("input_tokens", "output_tokens"):
        assert output["statistics"][name] == whole["statistics"][name]  # type: ignore[index]


@pytest.mark.model
def test_a_real_server_is_free_when_its_stream_is_left(real_server: dict[str, str]) -> None:
    with OpenAILLM(model="smollm2", generation_kwargs={"temperature": 0.0}, **real_server) as llm:
        for _ in range(4):  # it has two slots, which would be full for minutes
            items: Any = llm.stream("Once upon a", max_new_tokens=200)
            next(items)
            items.close()
        assert llm.generate_outputs(["Once upon a"], max_new_tokens=2)[0]["generations"][0]
