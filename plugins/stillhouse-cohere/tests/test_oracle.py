"""Cohere's own SDK sends the same bodies, and reads in the answers what is read here."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from stillhouse.http import Request
from stillhouse_cohere import CohereLLM

from .conftest import answer

cohere: Any = pytest.importorskip("cohere")
httpx: Any = pytest.importorskip("httpx")

LLM = CohereLLM(model="m", api_key="k")
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "", "parameters": {"type": "object"}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CHAT: Any = [
    {"role": "developer", "content": "be brief", "name": None},
    {"role": "user", "content": [{"type": "text", "text": "what is it?"}, IMAGE]},
    {"role": "assistant", "content": "I look", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "21"},
    {"role": "user", "content": "as JSON"},
]
FORM: Any = {
    "format": "json",
    "schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
}
PARAMETERS: dict[str, Any] = {
    "max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop": "x", "seed": 3, "logprobs": True,
    "frequency_penalty": 0.1, "presence_penalty": 0.2, "thinking": {"type": "enabled", "token_budget": 5},
    "citation_options": {"mode": "OFF"}, "safety_mode": "STRICT", "priority": 3,
}  # fmt: skip


def sdk(script: Any, **arguments: Any) -> Any:
    """What the SDK makes of the server's answer."""
    with httpx.Client() as http:
        client = cohere.ClientV2("key-0001-test", base_url=script.url, httpx_client=http)
        return client.chat(**arguments)


@pytest.mark.parametrize(
    ("form", "more"),
    [
        (None, {"tools": [TOOL], "tool_choice": "required", "strict_tools": True}),
        (None, {"documents": ["a", {"data": {"text": "b"}, "id": "d1"}]}),
        (FORM, {}),
    ],
)
def test_sdk_sends_the_same_body(script: Any, form: Any, more: Any) -> None:
    ours = LLM.request_of((CHAT, form), 1, LLM.check_arguments({**PARAMETERS, **more}))
    script.reply(answer())
    sdk(script, **{name: value for name, value in ours.body.items() if name != "stream"})
    (asked,) = script.requests
    assert asked.path == f"/{ours.path}"
    assert asked.body == json.loads(json.dumps(ours.body))


def test_every_parameter_is_one_of_the_sdk() -> None:
    names = {"max_new_tokens": "max_tokens", "top_p": "p", "top_k": "k", "stop": "stop_sequences"}
    names |= {"reasoning_effort": "thinking"}
    ours = set(LLM.generation_parameters().parameters) - {"extra_body"}
    assert {names.get(name, name) for name in ours} <= set(inspect.signature(cohere.ClientV2.chat).parameters)


def test_sdk_reads_the_same_in_an_answer(script: Any) -> None:
    given = answer(
        [{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": "fine"}], "TOOL_CALL",
        tool_plan="I look", tool_calls=[CALL],
    )  # fmt: skip
    given["logprobs"] = [{"text": "fine", "token_ids": [1, 2], "logprobs": [-0.5, -0.25]}]
    script.reply(given)
    theirs = sdk(script, model="m", messages=CHAT[:1])
    ours: Any = LLM.output_of(given, Request("v2/chat", None))
    assert ours["reasoning"] == [theirs.message.content[0].thinking]
    assert ours["generations"] == [theirs.message.content[1].text]
    assert ours["tool_plan"] == [theirs.message.tool_plan]
    assert (
        ours["tool_calls"][0][0]["function"]["arguments"] == theirs.message.tool_calls[0].function.arguments
    )
    assert ours["statistics"]["input_tokens"] == [theirs.usage.tokens.input_tokens]
    assert ours["statistics"]["billed_output_tokens"] == [theirs.usage.billed_units.output_tokens]
    assert ours["logprobs"][0][0][0]["logprob"] == sum(theirs.logprobs[0].logprobs)
