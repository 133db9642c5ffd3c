"""The responses API: requests and outputs, with the SDK and a real server as references."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from stillhouse import GenerationError, UnsupportedError
from stillhouse_openai import OpenAILLM
from stillhouse_openai.responses import has_only_responses

from .test_oracle import CALLED, CHAT, IMAGE, Answer, check

FORM = {"format": "json", "schema": Answer}


def answer(*output: Any, **others: Any) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed",
        "error": None, "incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "output": list(output),
        "usage": {
            "input_tokens": 50, "output_tokens": 30, "total_tokens": 80,
            "input_tokens_details": {"cached_tokens": 40}, "output_tokens_details": {"reasoning_tokens": 20},
        },
        **others,
    }  # fmt: skip


def said(*content: Any) -> dict[str, Any]:
    parts = [
        {"type": "output_text", "text": part, "annotations": [], "logprobs": []}
        if isinstance(part, str)
        else part
        for part in content
    ]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": parts}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-5-mini", False), ("gpt-4o", False), ("o3", False), ("o3-mini", False), ("my-pro", False),
        ("gpt-4o-search-preview", False), ("gpt-5-chat-latest", False), ("gemini-2.5-pro", False),
        ("gpt-5-pro", True), ("gpt-5.1-codex-mini", True), ("codex-mini-latest", True),
    ],
)  # fmt: skip
def test_models_that_only_have_the_responses_api_are_recognized(model: str, expected: bool) -> None:
    assert has_only_responses(model) is expected
    assert OpenAILLM(model=model).uses_responses is expected
    assert OpenAILLM(model=model, api="chat").uses_responses is False
    assert OpenAILLM(model=model, api="responses").uses_responses is True


def test_responses_only_models_match_those_of_the_sdk() -> None:
    types = pytest.importorskip("openai.types.shared.responses_model")
    _, chats, only = get_args(types.ResponsesModel)
    names = get_args(only)
    assert len(names) > 5
    assert [name for name in names if not has_only_responses(name)] == []
    assert len([name for name in get_args(chats) if has_only_responses(name)]) < len(get_args(chats)) / 5


@pytest.mark.parametrize("input", [CHAT, IMAGE, CALLED], ids=["text", "image", "tools"])
def test_responses_requests_validate_against_the_sdk_types(make: Any, server: Any, input: Any) -> None:
    pytest.importorskip("openai")
    from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming as Params

    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    before = json.dumps(input)
    server.script = [answer(said('{"name": "a", "tags": []}'))]
    with make(structured_output=FORM, api="responses") as llm:
        llm.generate_outputs(
            [input], max_new_tokens=5, temperature=0.5, top_p=0.5, logprobs=True, top_logprobs=2, tools=tools,
            tool_choice={"type": "function", "function": {"name": "f"}}, reasoning_effort="low",
            extra_body={"reasoning": {"summary": "auto"}},
        )  # fmt: skip
    assert json.dumps(input) == before
    (body,) = server.bodies
    check(body, Params)
    with pytest.raises(ValueError):  # the check can fail
        check({**body, "input": [{"type": "function_call", "arguments": 3}]}, Params)
    assert server.paths == ["/v1/responses"]
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["max_output_tokens"] == 5
    assert body["store"] is False
    assert body["text"]["format"]["schema"]["required"] == ["name", "tags"]
    assert body["tools"][0] == {
        "type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False,
    }  # fmt: skip


def test_chat_messages_become_input_items(make: Any, server: Any) -> None:
    server.script = [answer(said("fine"))]
    chat: Any = [{"role": "system", "content": "Be brief."}, *IMAGE, *CALLED[1:]]
    with make(api="responses") as llm:
        llm.generate_outputs([chat])
    assert server.bodies[0]["input"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
            ],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
    ]


def test_responses_output_matches_what_the_sdk_parses(make: Any, server: Any) -> None:
    openai = pytest.importorskip("openai")
    logprobs = [
        {
            "token": "a", "logprob": -0.1, "bytes": [97],
            "top_logprobs": [
                {"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "b", "logprob": -3.0, "bytes": [98]},
            ],
        }
    ]  # fmt: skip
    text = {"type": "output_text", "text": "te", "annotations": [], "logprobs": logprobs}
    thought = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    call = {
        "id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": 1}',
        "status": "completed",
    }  # fmt: skip
    server.script = [answer(thought, said(text, "xt"), call)] * 2
    with make(model="gpt-5-pro") as llm:
        (ours,) = llm.generate_outputs([CHAT])
    with openai.OpenAI(base_url=f"{server.origin}/v1", api_key="key", max_retries=0) as client:
        theirs = client.responses.create(model="gpt-5-pro", input=CHAT, store=False)
    assert server.bodies[0] == server.bodies[1], "the SDK sends the same request"
    assert server.paths == ["/v1/responses"] * 2
    assert ours["generations"] == [theirs.output_text] == ["text"]
    assert ours["reasoning"] == [theirs.output[0].summary[0].text]
    read = theirs.output[2]
    assert ours["tool_calls"] == [
        [
            {
                "id": read.call_id,
                "type": "function",
                "function": {"name": read.name, "arguments": read.arguments},
            }
        ]
    ]
    assert ours["logprobs"] == [[[{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -3.0}]]]
    assert ours["statistics"] == {
        "input_tokens": [theirs.usage.input_tokens],
        "output_tokens": [theirs.usage.output_tokens],
        "cached_tokens": [theirs.usage.input_tokens_details.cached_tokens],
        "reasoning_tokens": [theirs.usage.output_tokens_details.reasoning_tokens],
    }
    assert ours["finish_reasons"] == ["tool_calls"]


@pytest.mark.parametrize(
    ("content", "others", "generation", "reason"),
    [
        (["done"], {}, "done", "stop"),
        (["cut"], {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "cut", "length"),
        ([], {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, None, "content_filter"),
        ([{"type": "refusal", "refusal": "I will not"}], {}, None, "refusal"),
    ],
)  # fmt: skip
def test_response_status_maps_to_finish_reason(
    make: Any, server: Any, content: Any, others: Any, generation: str | None, reason: str
) -> None:
    server.script = [answer(said(*content), **others)]
    with make(api="responses") as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert (output["generations"], output["finish_reasons"]) == ([generation], [reason])


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        ({"choices": []}, "server", "no output"),
        (answer(status="failed", error={"code": "server_error", "message": "broke"}), "server", "broke"),
        (answer(status="failed", error={"code": "rate_limit_exceeded", "message": "slow"}), "rate_limit", "slow"),
        (answer({"type": "message", "content": [{"type": "output_text"}]}), "server", "another shape"),
    ],
)  # fmt: skip
def test_unusable_response_is_an_error_of_its_kind(
    make: Any, server: Any, reply: Any, kind: str, message: str
) -> None:
    server.script = [reply]
    with (
        make(api="responses", retry_timeout=0) as llm,
        pytest.raises(GenerationError, match=message) as caught,
    ):
        llm.generate_outputs([CHAT])
    assert caught.value.kind == kind


@pytest.mark.parametrize("code", ["server_error", "rate_limit_exceeded"])
def test_response_that_failed_is_requested_again(make: Any, server: Any, code: str) -> None:
    failed = answer(status="failed", error={"code": code, "message": "try again"})
    server.script = [failed, failed, answer(said("fine"))]
    with make(api="responses") as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
    assert len(server.bodies) == 3


def test_several_generations_are_several_requests_and_are_asked_again(make: Any, server: Any) -> None:
    good, bad = answer(said('{"name": "a", "tags": []}')), answer(said('{"name": 1}'))
    server.script = [good, bad, good]
    with make(api="responses", structured_output=FORM, max_concurrency=1) as llm:
        (output,) = llm.generate_outputs([CHAT], num_generations=2)
    assert output["generations"] == ['{"name": "a", "tags": []}'] * 2
    assert sum(output["statistics"]["output_tokens"]) == 90
    assert "1 is not of type 'string'" in json.dumps(server.bodies[2]["input"])


def test_responses_mode_refuses_unsupported_parameters_but_allows_raw_prompts(make: Any, server: Any) -> None:
    server.script = [{"choices": [{"index": 0, "text": " upon", "finish_reason": "stop"}]}]
    with make(api="responses") as llm:
        assert llm.generate_outputs(["Once"])[0]["generations"] == [" upon"]
        for arguments in ({"seed": 1}, {"stop": "a"}, {"logit_bias": {"1": 1}}):
            with pytest.raises(
                (UnsupportedError, GenerationError), match="the responses API does not support"
            ):
                llm.generate_outputs([CHAT], **arguments)
    assert server.paths == ["/v1/completions"]


def test_intermittent_failures_of_the_responses_api_are_retried(
    llmock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.04 * 2**attempt
    )
    fields = {"base_url": llmock.base_url("openai"), "api_key": "k", "retry_timeout": 20.0}
    with OpenAILLM(model="gpt-5-pro", **fields) as llm:
        llmock.fail(503, times=2).reply("fine")
        (output,) = llm.generate_outputs([CHAT])
        llmock.call_tool("f", {"x": 1})
        (called,) = llm.generate_outputs([CHAT])
    assert (output["generations"], output["finish_reasons"]) == (["fine"], ["stop"])
    ((call,),) = called["tool_calls"]
    assert call is not None
    assert json.loads(call["function"]["arguments"]) == {"x": 1}
    assert called["finish_reasons"] == ["tool_calls"]
    assert {record.path for record in llmock.requests} == {"/v1/responses"}
    llmock.assert_resilient(strict=True)


@pytest.mark.model
def test_a_real_server_says_the_same_on_both_apis(real_server: dict[str, str]) -> None:
    outputs = []
    for api in ("chat", "responses"):
        with OpenAILLM(model="m", api=api, **real_server) as llm:
            outputs += llm.generate_outputs([CHAT], max_new_tokens=6, temperature=0.0)
    chat, responses = outputs
    assert responses["generations"] == chat["generations"]
    assert responses["generations"][0]
    assert responses["statistics"]["output_tokens"] == chat["statistics"]["output_tokens"]
