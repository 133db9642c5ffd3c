"""A cache that is asked for: where the marks are, and that nothing else changes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from stillhouse_anthropic import AnthropicLLM

MARK = {"type": "ephemeral"}
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL: Any = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
TURN: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "thinking_blocks": [THOUGHT]},
    {"role": "tool", "tool_call_id": "c", "content": "done"},
]


def body_of(chat: Any, *, prompt_caching: bool = True, **arguments: Any) -> dict[str, Any]:
    before = copy.deepcopy((chat, arguments))
    llm = AnthropicLLM(model="m", prompt_caching=prompt_caching)
    body: dict[str, Any] = llm.request_of(chat, 1, arguments).body
    assert (chat, arguments) == before
    TypeAdapter(MessageCreateParamsNonStreaming).validate_python(copy.deepcopy(body))
    return body


def without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_marks(item) for key, item in value.items() if key != "cache_control"}
    return [without_marks(item) for item in value] if isinstance(value, list) else value


def test_marks_are_at_the_ends_of_system_tools_and_the_last_user_message() -> None:
    tools = [TOOL, {"name": "g", "input_schema": {"type": "object"}}]
    body = body_of(TURN, tools=tools)
    assert body["system"] == [{"type": "text", "text": "Be brief.", "cache_control": MARK}]
    assert ["cache_control" in tool for tool in body["tools"]] == [False, True]
    result = {"type": "tool_result", "tool_use_id": "c", "content": "done", "cache_control": MARK}
    assert body["messages"][-1]["content"] == [result]
    assert json.dumps(body).count("cache_control") == 3
    plain = body_of(TURN, tools=tools, prompt_caching=False)
    assert "cache_control" not in json.dumps(plain)
    assert without_marks({**body, "system": "Be brief."}) == plain


def test_text_of_a_message_becomes_a_block_with_a_mark() -> None:
    body = body_of([{"role": "user", "content": "Hi"}])
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": MARK}]}
    ]
    assert body.keys() == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize("content", [" ", [], "", [THOUGHT]])
def test_what_may_have_no_mark_has_none(content: Any) -> None:
    body = body_of([{"role": "user", "content": "Hi"}, {"role": "user", "content": content}])
    assert "cache_control" not in json.dumps(body)


def test_mark_of_the_users_is_kept_and_counted() -> None:
    long = {"type": "ephemeral", "ttl": "1h"}
    own = [{"type": "text", "text": text, "cache_control": long} for text in "abc"]
    chat = [TURN[0], {"role": "user", "content": own}, {"role": "assistant", "content": "x"}, TURN[1]]
    body = body_of(chat, tools=[TOOL])
    assert body["messages"][0]["content"] == own
    assert json.dumps(body).count("cache_control") == 4  # the API takes no more
    assert body["messages"][-1]["content"][0]["cache_control"] == MARK
    (only,) = body_of([{"role": "user", "content": own[:1]}])["messages"]
    assert only["content"] == own[:1]


def test_offline_batches_are_cached_alike() -> None:
    llm = AnthropicLLM(model="m", prompt_caching=True)
    request = llm.request_of(TURN, 1, {})
    line = llm.batch_line("id", request.path, request.body)
    assert json.dumps(line).count("cache_control") == 2


def test_text_with_nothing_in_it_is_neither_sent_nor_marked() -> None:
    empty = {"type": "text", "text": "", "cache_control": MARK}
    body = body_of([{"role": "user", "content": [{"type": "text", "text": "Hi"}, empty]}])
    assert body["messages"][0]["content"] == [{"type": "text", "text": "Hi", "cache_control": MARK}]


def test_marks_within_results_of_tools_count() -> None:
    parts = [{"type": "text", "text": str(number), "cache_control": MARK} for number in range(3)]
    chat = [*TURN[:-1], {"role": "tool", "tool_call_id": "c", "content": parts}]
    body = body_of(chat, tools=[TOOL])
    assert json.dumps(body).count("cache_control") == 4
