"""Messages that are streamed: by a script, and by a real server with a real model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_anthropic import AnthropicLLM

HELLO: Any = [{"role": "user", "content": "Say hello."}]
START = {"type": "message", "id": "m", "content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}
WHOLE = {
    **START,
    "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}, {"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 5},
}


def events(*values: dict[str, Any]) -> bytes:
    return "".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n" for value in values).encode()


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


THOUGHT = block(
    0,
    {"type": "thinking", "thinking": ""},
    {"type": "thinking_delta", "thinking": "Hm"},
    {"type": "signature_delta", "signature": "s"},
)
TEXT = block(
    1, {"type": "text", "text": "H"}, *({"type": "text_delta", "text": text} for text in ("el", "lo"))
)
BEGUN = [{"type": "message_start", "message": START}, {"type": "ping"}, *THOUGHT, *TEXT]
END = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer(lambda path, body: WHOLE)
    yield server
    server.close()


def loaded(server: ScriptedServer) -> AnthropicLLM:
    return AnthropicLLM(model="claude-test", base_url=server.origin, api_key="key", retry_timeout=5)


def test_a_message_comes_in_pieces_of_its_text(server: ScriptedServer) -> None:
    server.script = [Reply(body=events(*BEGUN, *END))]
    with loaded(server) as llm:
        *pieces, output = llm.stream(HELLO)
        (whole,) = llm.generate_outputs([HELLO])
    assert pieces == ["H", "el", "lo"]
    assert output == whole
    assert output["reasoning"] == ["Hm"]  # type: ignore[index]
    streamed, plain = (request.body for request in server.requests)
    assert streamed == {**plain, "stream": True}


def test_a_rate_limit_in_the_middle_has_its_kind(server: ScriptedServer) -> None:
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "No"}}
    server.script = [Reply(body=events(*BEGUN, error))]
    with loaded(server) as llm, pytest.raises(GenerationError) as caught:
        list(llm.stream(HELLO))
    assert caught.value.kind == "rate_limit"


def test_overload_before_the_first_piece_is_retried(server: ScriptedServer, at_once: None) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    server.script = [Reply(body=events(error)), Reply(body=events(*BEGUN, *END))]
    with loaded(server) as llm:
        assert "".join([*llm.stream(HELLO)][:-1]) == "Hello"  # type: ignore[arg-type]


def test_a_call_of_a_tool_has_no_pieces(server: ScriptedServer) -> None:
    start = {"type": "tool_use", "id": "1", "name": "river", "input": {}}
    pieces = ('{"in": ', '"Peru"}')
    call = block(0, start, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))
    end = [{"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}]
    server.script = [Reply(body=events(BEGUN[0], *call, *end))]
    tool = {"type": "function", "function": {"name": "river", "parameters": {"type": "object"}}}
    with loaded(server) as llm:
        (output,) = llm.stream(HELLO, tools=[tool])
    assert output["finish_reasons"] == ["tool_calls"]  # type: ignore[index]
    arguments = output["tool_calls"][0][0]["function"]["arguments"]  # type: ignore[index]
    assert json.loads(arguments) == {"in": "Peru"}


@pytest.mark.model
def test_a_real_server_streams_what_it_answers(real_server: Any) -> None:
    given = {"temperature": 0.0, "max_new_tokens": 12}
    with AnthropicLLM(
        model="smollm2",
        base_url=real_server.listening_address,
        api_key="sk-ant-test-0001",
        generation_kwargs=given,
    ) as llm:
        *pieces, output = llm.stream(HELLO)
        (whole,) = llm.generate_outputs([HELLO])
    assert len(pieces) > 3
    assert "".join(pieces) == whole["generations"][0]  # type: ignore[arg-type]
    for key in ("generations", "finish_reasons"):
        assert output[key] == whole[key]  # type: ignore[literal-required, index]
    for name in ("input_tokens", "output_tokens"):
        assert output["statistics"][name] == whole["statistics"][name]  # type: ignore[index]
