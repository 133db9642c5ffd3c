"""Mistral's own SDK takes what is sent, and reads in the answers what is read here."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.http import Request
from stillhouse_mistral import MistralLLM

from .conftest import answer

models: Any = pytest.importorskip("mistralai.client.models")

LLM = MistralLLM(model="m", api_key="k")
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "", "parameters": {"type": "object"}, "strict": True},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CHAT: Any = [
    {"role": "developer", "content": "be brief", "name": None},
    {"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "21"},
    {"role": "assistant", "content": "It "},
]
FORM: Any = {"format": "json", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
PARAMETERS: dict[str, Any] = {
    "max_new_tokens": 5, "min_tokens": 1, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop": "x", "seed": 3,
    "frequency_penalty": 0.1, "presence_penalty": 0.2, "repetition_penalty": 1.1, "logprobs": True,
    "top_logprobs": 2, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "parallel_tool_calls": False, "reasoning_effort": "high", "prompt_mode": "reasoning", "prediction": "fine",
    "safe_prompt": True, "guardrails": [{"block_on_error": True}], "prompt_cache_key": "c",
    "service_tier": "standard_only",
}  # fmt: skip


def test_sdk_takes_every_field_and_sends_the_same() -> None:
    body = LLM.request_of((CHAT, FORM), 2, LLM.check_arguments(PARAMETERS)).body
    fields = models.ChatCompletionRequest.model_fields
    names = {item.alias or name for name, item in fields.items()}
    assert set(body) <= names  # an unknown field is refused by the API, not by the SDK
    sent = models.ChatCompletionRequest.model_validate(body).model_dump(by_alias=True, exclude_unset=True)
    for name in set(body) - {"messages", "tools"}:
        assert sent[name] == body[name], name
    for ours, theirs in zip(body["messages"], sent["messages"], strict=True):
        assert {key: theirs[key] for key in ours} == ours


def test_every_parameter_is_one_of_the_sdk() -> None:
    ours = set(LLM.generation_parameters().parameters) - {"extra_body"}
    renamed = {"max_new_tokens": "max_tokens", "seed": "random_seed"}
    assert {renamed.get(name, name) for name in ours} <= set(models.ChatCompletionRequest.model_fields)


def test_sdk_reads_the_same_in_an_answer() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}
    call = {"id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    given = answer([thought, {"type": "text", "text": "It is"}], "tool_calls", tool_calls=[call])
    theirs = models.ChatCompletionResponse.model_validate(given)
    ours = LLM.output_of(given, Request("chat/completions", None))
    message = theirs.choices[0].message
    assert ours["reasoning"] == [message.content[0].thinking[0].text]
    assert ours["generations"] == [message.content[1].text]
    assert ours["finish_reasons"] == [theirs.choices[0].finish_reason]
    calls = ours["tool_calls"][0]
    assert calls is not None
    assert calls[0]["id"] == message.tool_calls[0].id
    assert ours["statistics"]["input_tokens"] == [theirs.usage.prompt_tokens]


@pytest.mark.parametrize("word", ["stop", "length", "model_length", "tool_calls"])
def test_every_finish_reason_of_the_sdk_is_one_of_the_contract(word: str) -> None:
    (reason,) = LLM.output_of(answer("x", word), Request("chat/completions", None))["finish_reasons"]
    assert reason in ("stop", "length", "tool_calls")
