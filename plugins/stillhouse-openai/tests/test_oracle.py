"""OpenAI's own SDK as the reference: its types validate the requests, its parser gives the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import stillhouse
from stillhouse_openai import AzureOpenAILLM, OpenAILLM

openai = pytest.importorskip("openai")

CHAT = [{"role": "user", "content": "hello"}]


class Answer(BaseModel):
    name: str
    tags: list[str] = []


def check(body: dict[str, Any], params: Any) -> None:
    """Hold a body to the SDK's types, and to the names in them: a TypedDict takes any others."""
    TypeAdapter(params).validate_python(body)
    assert set(body) <= set(params.__annotations__), "the SDK knows no such field"


IMAGE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ],
    }
]
CALLED = [
    *CHAT,
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c", "content": "42"},
]  # fmt: skip


@pytest.mark.parametrize("input", [CHAT, IMAGE, CALLED], ids=["text", "image", "tools"])
def test_chat_requests_validate_against_the_sdk_types(make: Any, server: Any, input: Any) -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Params

    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    server.script = [server.chat('{"name": "a", "tags": []}', '{"name": "b", "tags": []}')]
    with make(structured_output={"format": "json", "schema": Answer}) as llm:
        llm.generate_outputs(
            [input], num_generations=2, max_new_tokens=5, temperature=0.5, top_p=0.5, stop=["a"], seed=1,
            frequency_penalty=0.5, presence_penalty=0.5, logprobs=True, top_logprobs=2, logit_bias={"1": 5},
            tools=tools, tool_choice="required", reasoning_effort="low",
        )  # fmt: skip
    body = server.bodies[0]
    check(body, Params)
    with pytest.raises((ValidationError, AssertionError)):  # the check can fail
        check({**body, "max_new_tokens": 5}, Params)
    with pytest.raises(ValidationError):
        check({**body, "n": "two"}, Params)


def test_raw_prompt_requests_validate_against_the_sdk_types(make: Any, server: Any) -> None:
    from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as Params

    server.script = [{"choices": [{"text": "a", "index": 0}, {"text": "b", "index": 1}]}]
    with make() as llm:
        llm.generate_outputs(
            ["Once"], num_generations=2, max_new_tokens=5, temperature=0.5, top_p=0.5, stop="a", seed=1,
            frequency_penalty=0.5, presence_penalty=0.5, top_logprobs=2, logit_bias={"1": 5},
        )  # fmt: skip
    check(server.bodies[0], Params)


class Leaf(BaseModel):
    weight: float
    label: str | None = None


class Tree(BaseModel):
    first: Leaf
    leaves: list[Leaf]


def test_strict_schemas_equal_those_of_the_sdk(make: Any) -> None:
    from openai.lib._pydantic import to_strict_json_schema

    def bare(schema: Any) -> Any:
        """Without what only describes: the SDK leaves defaults and titles in."""
        if isinstance(schema, list):
            return [bare(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        return {
            key: {name: bare(item) for name, item in value.items()}
            if key in ("properties", "$defs")
            else bare(value)
            for key, value in schema.items()
            if key not in ("title", "description", "default")
        }

    for model in (Answer, Tree):
        fields = make()._prepare_structured_output({"format": "json", "schema": model})
        ours = fields["response_format"]["json_schema"]["schema"]
        assert bare(ours) == bare(to_strict_json_schema(model))


def full_chat(server: Any) -> dict[str, Any]:
    top = [{"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "b", "logprob": -3.0, "bytes": [98]}]
    answer = server.chat(
        "text", None, tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
        usage={
            "prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80,
            "prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 20},
        },
    )  # fmt: skip
    answer["choices"][1]["message"]["refusal"] = "I will not"
    answer["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    return dict(answer)


def test_chat_output_matches_what_the_sdk_parses(make: Any, server: Any) -> None:
    answer = full_chat(server)
    server.script = [answer, answer]
    with make() as llm:
        ours = llm.generate_outputs([CHAT], num_generations=2)[0]
    with openai.OpenAI(base_url=f"{server.origin}/v1", api_key="key", max_retries=0) as client:
        theirs = client.chat.completions.create(model="m", messages=CHAT, n=2)
    assert server.bodies[0] == server.bodies[1], "the SDK sends the same request"
    assert server.paths[0] == server.paths[1]
    assert server.headers[0]["authorization"] == server.headers[1]["authorization"]
    assert ours["generations"] == [choice.message.content for choice in theirs.choices]
    assert ours["refusals"] == [choice.message.refusal for choice in theirs.choices]
    assert ours["finish_reasons"][0] == theirs.choices[0].finish_reason
    assert ours["tool_calls"] == [
        [call.model_dump() for call in choice.message.tool_calls] for choice in theirs.choices
    ]
    token = theirs.choices[0].logprobs.content[0]
    assert ours["logprobs"][0] == [
        [{"token": item.token, "logprob": item.logprob} for item in token.top_logprobs]
    ]
    assert ours["logprobs"][1] is theirs.choices[1].logprobs is None
    usage = theirs.usage
    assert ours["statistics"] == {
        "input_tokens": [usage.prompt_tokens],
        "output_tokens": [usage.completion_tokens],
        "cached_tokens": [usage.prompt_tokens_details.cached_tokens],
        "reasoning_tokens": [usage.completion_tokens_details.reasoning_tokens],
    }


@pytest.mark.model
@pytest.mark.parametrize("input", [CHAT, "Once upon a"], ids=["chat", "raw"])
def test_real_server_answers_the_backend_and_the_sdk_alike(real_server: dict[str, str], input: Any) -> None:
    with OpenAILLM(model="m", **real_server) as llm:
        ours = llm.generate_outputs([input], max_new_tokens=6, temperature=0.0, seed=1)[0]
    with openai.OpenAI(max_retries=0, **real_server) as client:
        given: dict[str, Any] = {"model": "m", "temperature": 0.0, "seed": 1}
        if isinstance(input, str):
            theirs: Any = client.completions.create(prompt=input, max_tokens=6, **given)
            text = theirs.choices[0].text
        else:
            theirs = client.chat.completions.create(messages=input, max_completion_tokens=6, **given)
            text = theirs.choices[0].message.content
    assert ours["generations"] == [text]
    assert ours["finish_reasons"] == [theirs.choices[0].finish_reason]
    assert ours["statistics"]["output_tokens"] == [theirs.usage.completion_tokens]
    assert ours["statistics"]["input_tokens"] == [theirs.usage.prompt_tokens]


def test_azure_requests_have_the_address_and_headers_of_the_sdk(server: Any) -> None:
    given = {"api_version": "2024-10-21"}
    for credentials in ({"api_key": "key"}, {"azure_ad_token_provider": lambda: "token"}):
        server.paths.clear()
        server.headers.clear()
        with AzureOpenAILLM(model="dep", base_url=server.origin, **given, **credentials) as llm:
            llm.generate_outputs([CHAT])
        with openai.AzureOpenAI(
            azure_endpoint=server.origin, max_retries=0, **given, **credentials
        ) as client:
            client.chat.completions.create(model="dep", messages=CHAT)
        assert server.paths[0] == server.paths[1]
        ours, theirs = server.headers
        for name in ("api-key", "authorization"):
            assert ours.get(name) == theirs.get(name)


OUR_OWN = {
    "openrouter": {"top_k", "min_p", "top_a", "repetition_penalty", "provider", "models", "plugins", "reasoning",
                   "session_id", "cache_control"},
    "deepseek": {"thinking"}, "fireworks": {"top_k", "min_p", "repetition_penalty"}, "minimax": {"reasoning_split"},
    "perplexity": set(),
}  # fmt: skip
"""The fields of each provider that OpenAI's SDK does not know."""


@pytest.mark.parametrize("name", OUR_OWN)
def test_requests_of_providers_are_the_sdk_s_but_for_their_own_fields(name: str, server: Any) -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Params

    from stillhouse_openai import DeepSeekLLM, OpenRouterLLM, providers

    cls: Any = {"openrouter": OpenRouterLLM, "deepseek": DeepSeekLLM}.get(name)
    cls = cls or getattr(providers, providers.PROVIDERS[name].class_name)
    every = {
        "max_new_tokens": 5, "temperature": 0.5, "top_p": 0.5, "stop": ["a"], "seed": 1, "frequency_penalty": 0.5,
        "presence_penalty": 0.5, "logprobs": True, "top_logprobs": 2, "logit_bias": {"1": 5}, "top_k": 3,
        "min_p": 0.1, "top_a": 0.1, "repetition_penalty": 1.1, "reasoning_effort": "high",
        "service_tier": "priority", "provider": {"sort": "price"}, "models": ["a"], "plugins": [{"id": "web"}],
        "session_id": "s", "cache_control": {"type": "ephemeral"}, "thinking": {"type": "enabled"},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
    }  # fmt: skip
    taken = {key: value for key, value in every.items() if key in cls.generation_parameters().parameters}
    server.script = [server.chat('{"name": "a", "tags": []}')]
    with cls(model="m", base_url=server.origin, api_key="key") as llm:
        llm.generate_outputs([(IMAGE, {"format": "json", "schema": Answer})], **taken)
    body = server.bodies[0]
    assert body.keys() - Params.__annotations__.keys() == OUR_OWN[name]
    check({key: value for key, value in body.items() if key not in OUR_OWN[name]}, Params)


def test_the_sdk_reads_an_answer_of_openrouter_as_we_do(server: Any) -> None:
    from stillhouse_openai import OpenRouterLLM

    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "cost": 0.5,
             "completion_tokens_details": {"reasoning_tokens": 2}, "prompt_tokens_details": {"cached_tokens": 1}}  # fmt: skip
    answer = server.chat("a", finish="tool_calls", usage=usage, tool_calls=[call], reasoning="hm")
    server.script = [answer, answer]
    with OpenRouterLLM(model="m", base_url=server.origin, api_key="key") as llm:
        (output,) = llm.generate_outputs([CHAT])
    client = openai.OpenAI(base_url=f"{server.origin}/api/v1", api_key="key")
    theirs = client.chat.completions.create(model="m", messages=CHAT)
    client.close()
    choice = theirs.choices[0]
    assert output["generations"] == [choice.message.content]
    assert output["finish_reasons"] == [choice.finish_reason]
    assert output["tool_calls"] == [[item.model_dump() for item in choice.message.tool_calls]]
    assert output["statistics"] == {
        "input_tokens": [theirs.usage.prompt_tokens], "output_tokens": [theirs.usage.completion_tokens],
        "cached_tokens": [theirs.usage.prompt_tokens_details.cached_tokens],
        "reasoning_tokens": [theirs.usage.completion_tokens_details.reasoning_tokens],
        "cost": [theirs.usage.cost],
    }  # fmt: skip


def test_lines_of_batch_results_have_the_sdk_types(make: Any, server: Any, tmp_path: Path) -> None:
    """What `--format openai-batch` writes is what a program reads that reads OpenAI's own results."""
    from openai.types.chat import ChatCompletion

    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    top = [
        {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
        {"token": "e", "logprob": -1.0, "bytes": [101]},
    ]
    first = server.chat("one", "two")
    for choice in first["choices"]:
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    server.script = [first, server.chat(None, None, finish="tool_calls", tool_calls=calls)]
    with make() as llm:
        rows = [{"custom_id": "first", "prompt": "a"}, {"prompt": "b"}, {"no": "prompt"}]
        run = stillhouse.run(
            rows,
            llm=llm,
            output=tmp_path / "out.jsonl",
            format="openai-batch",
            num_generations=2,
            show_bar=False,
        )
    lines = list(run)
    assert [line["custom_id"] for line in lines] == ["first", "2", "3"]
    assert lines[2]["response"] is None
    for line in lines[:2]:
        completion = ChatCompletion.model_validate(line["response"]["body"], strict=True)
        assert not completion.model_extra
        assert completion.model == llm.model_name
        assert completion.usage is not None
        assert completion.usage.total_tokens > 0
        assert [choice.index for choice in completion.choices] == [0, 1]
    bodies = [line["response"]["body"] for line in lines[:2]]
    assert {body["choices"][0]["finish_reason"] for body in bodies} == {"stop", "tool_calls"}
