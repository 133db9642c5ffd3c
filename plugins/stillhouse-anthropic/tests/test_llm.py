"""The backend against a scripted server, and against the SDK as an oracle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from stillhouse import ConfigurationError, GenerationError, UnsupportedError, create
from stillhouse_anthropic import AnthropicLLM
from stillhouse_anthropic.failures import anthropic_failure

KEY = "sk-ant-test-0001"
Make = Callable[..., AnthropicLLM]

USER: Any = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
FORM: Any = {"format": "json", "schema": SCHEMA}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def message(*content: Any, **fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": [{"type": "text", "text": item} if isinstance(item, str) else item for item in content],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 2},
        **fields,
    }


# What is sent


def consumed(value: Any) -> Any:
    """A validated value with its lazy parts read, which is when they are validated."""
    if isinstance(value, dict):
        return {key: consumed(item) for key, item in value.items()}
    if isinstance(value, str) or not isinstance(value, Iterator | list | tuple):
        return value
    return [consumed(item) for item in value]


CASES: list[tuple[Any, dict[str, Any]]] = [
    ([USER], {}),
    ([{"role": "system", "content": "Be brief."}, USER], {"stop": "END", "max_new_tokens": 7}),
    (
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                    {"type": "image_url", "image_url": {"url": "https://host/a.png"}},
                ],
            }
        ],
        {"thinking": {"type": "enabled", "budget_tokens": 2048}, "stop": ["a", "b"]},
    ),
    (
        [
            USER,
            {
                "role": "assistant",
                "content": "Wait.",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                "thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}],
            },
            {"role": "tool", "tool_call_id": "c", "content": "done"},
        ],
        {"tools": [TOOL], "tool_choice": "required"},
    ),
    (([USER], FORM), {"reasoning_effort": "low", "extra_body": {"metadata": {"user_id": "u"}}}),
]


@pytest.mark.parametrize(("input", "arguments"), CASES)
def test_bodies_are_those_of_the_sdk(script: Any, make: Make, input: Any, arguments: dict[str, Any]) -> None:
    script.reply(message('{"a": 1}'))
    make().generate_outputs([input], **arguments)
    body = script.requests[-1].body
    # What the types do not know is dropped by the validation, and would be missing here.
    assert consumed(TypeAdapter(MessageCreateParamsNonStreaming).validate_python(body)) == body
    with anthropic.Anthropic(api_key=KEY, base_url=script.url, max_retries=0) as client:
        client.messages.create(**body)
    ours, theirs = script.requests
    assert (theirs.path, theirs.body) == (ours.path, ours.body)
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert ours.headers["x-api-key"] == KEY
    assert ours.headers["anthropic-version"] == "2023-06-01"


def test_generation_parameters_and_headers_are_sent_with_the_names_of_the_api(
    script: Any, make: Make
) -> None:
    script.reply(message('{"a": 1}'))
    llm = make(
        structured_output=FORM, default_headers={"anthropic-beta": "x-2026"}, anthropic_version="2024-01-01"
    )
    llm.generate_outputs(
        [[USER]],
        temperature=0.0,
        top_p=0.9,
        top_k=3,
        reasoning_effort="high",
        service_tier="auto",
        extra_body={"output_config": {"task_budget": 9}},
    )
    (request,) = script.requests
    assert request.path == "/v1/messages"
    assert request.headers["anthropic-beta"] == "x-2026"
    assert request.headers["anthropic-version"] == "2024-01-01"
    assert "authorization" not in request.headers
    assert request.body == {
        "model": "claude-test",
        "max_tokens": 4096,
        "messages": [USER],
        "temperature": 0.0,
        "top_p": 0.9,
        "top_k": 3,
        "output_config": {
            "format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}},
            "effort": "high",
            "task_budget": 9,
        },
        "service_tier": "auto",
    }


def test_levels_of_effort_are_those_that_the_api_has() -> None:
    llm = AnthropicLLM(model="m")
    for effort in ("low", "medium", "high", "max"):
        assert llm.request_of([USER], 1, {"reasoning_effort": effort}).body["output_config"] == {
            "effort": effort
        }
    for effort in ("none", "minimal"):
        with pytest.raises(UnsupportedError, match=effort) as caught:
            llm.request_of([USER], 1, {"reasoning_effort": effort})
        assert "low, medium, high, max" in caught.value.hint
    extra = {"extra_body": {"output_config": {"effort": "xhigh"}}}
    assert llm.request_of([USER], 1, extra).body["output_config"] == {"effort": "xhigh"}


def test_budget_for_thinking_leaves_room_for_the_answer(script: Any, make: Make) -> None:
    script.reply(message("Hi"))
    llm = make()
    thinking = {"type": "enabled", "budget_tokens": 2048}
    llm.generate_outputs([[USER]], thinking=thinking)
    llm.generate_outputs([[USER]], thinking=thinking, max_new_tokens=3000)
    assert [request.body["max_tokens"] for request in script.requests] == [6144, 3000]


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_base_url(script: Any, make: Make, ending: str) -> None:
    script.reply(message("Hi"))
    make(base_url=f"{script.url}/proxy{ending}").generate_outputs([[USER]])
    assert script.requests[0].path == "/proxy/v1/messages"


def test_api_key_and_base_url_are_read_from_the_environment(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.reply(message("Hi"))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", script.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-1")
    with create("anthropic:m") as llm:
        llm.generate_outputs([[USER]])
    assert script.requests[0].headers["x-api-key"] == KEY
    assert "authorization" not in script.requests[0].headers
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-1")
    with AnthropicLLM(model="m") as llm:
        llm.generate_outputs([[USER]])
    headers = script.requests[1].headers
    assert (headers["authorization"], "x-api-key" in headers) == ("Bearer token-1", False)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN")
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
        AnthropicLLM(model="m").load()


@pytest.mark.parametrize(
    ("input", "error"),
    [
        ("a raw prompt", UnsupportedError),
        ([{"role": "system", "content": "alone"}], ConfigurationError),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}],
            ConfigurationError,
        ),
        (([USER], {"format": "json", "schema": {"type": "integer", "minimum": 1}}), UnsupportedError),
        (([USER], {"format": "choice", "schema": ["a"]}), UnsupportedError),
    ],
)
def test_invalid_inputs_are_refused_before_any_request(
    script: Any, make: Make, input: Any, error: type[Exception]
) -> None:
    script.reply(message("Hi"))
    with pytest.raises(error):
        make().generate_outputs([[USER], input])
    assert script.requests == []


def test_schema_of_the_llm_is_refused_when_it_is_set() -> None:
    with pytest.raises(UnsupportedError, match="'minimum'"):
        AnthropicLLM(
            model="m", structured_output={"format": "json", "schema": {"type": "integer", "minimum": 1}}
        )


def test_seed_is_no_parameter(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="seed"):
        make().generate_outputs([[USER]], seed=1)


# What comes back


def test_content_is_that_of_the_sdk(script: Any, make: Make) -> None:
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 13, "ephemeral_1h_input_tokens": 7},
        "output_tokens": 30,
        "output_tokens_details": {"thinking_tokens": 12},
    }
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {"x": ["é"]}}
    script.reply(message(thinking, hidden, "One. ", "Two.", use, stop_reason="tool_use", usage=usage))
    (output,) = make().generate_outputs([[USER]], tools=[TOOL])
    with anthropic.Anthropic(api_key=KEY, base_url=script.url) as client:
        found = client.messages.create(model="m", max_tokens=9, messages=[USER])
    texts = [block.text for block in found.content if block.type == "text"]
    assert output["generations"] == ["".join(texts)] == ["One. Two."]
    assert output["reasoning"] == [block.thinking for block in found.content if block.type == "thinking"]
    (tool_use,) = (block for block in found.content if block.type == "tool_use")
    calls = output["tool_calls"][0] or []
    assert [call["id"] for call in calls] == [tool_use.id]
    assert calls[0]["function"]["name"] == tool_use.name
    assert json.loads(calls[0]["function"]["arguments"]) == tool_use.input
    assert output["thinking_blocks"] == [[thinking, hidden]]  # type: ignore[typeddict-item]
    assert output["finish_reasons"] == ["tool_calls"]
    assert output["stop_reasons"] == [found.stop_reason]  # type: ignore[typeddict-item]
    assert found.usage.output_tokens_details is not None
    assert found.usage.cache_creation is not None
    assert output["statistics"] == {
        "input_tokens": [125],
        "output_tokens": [found.usage.output_tokens],
        "cached_tokens": [found.usage.cache_read_input_tokens],
        "cache_creation_tokens": [found.usage.cache_creation_input_tokens],
        "cache_creation_1h_tokens": [found.usage.cache_creation.ephemeral_1h_input_tokens],
        "reasoning_tokens": [found.usage.output_tokens_details.thinking_tokens],
    }


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "pause_turn"),
        ("something_new", "something_new"),
        (None, None),
    ],
)
def test_finish_reasons(script: Any, make: Make, stop_reason: Any, finish_reason: Any) -> None:
    script.reply(message("Hi", stop_reason=stop_reason))
    (output,) = make().generate_outputs([[USER]])
    assert (output["generations"], output["finish_reasons"]) == (["Hi"], [finish_reason])


def test_refusal_is_a_content_filter_output_without_text(script: Any, make: Make) -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "No."}
    script.reply(message("Well, ", stop_reason="refusal", stop_details=details))
    (output,) = make(structured_output=FORM).generate_outputs([[USER]])
    assert (output["generations"], output["finish_reasons"]) == ([None], ["content_filter"])
    assert output["stop_details"] == [details]  # type: ignore[typeddict-item]


def test_empty_answer_without_usage(script: Any, make: Make) -> None:
    answer = message()
    del answer["usage"]
    script.reply(answer)
    (output,) = make().generate_outputs([[USER]])
    assert (output["generations"], output["statistics"]) == ([None], {})


def test_merged_generations_stay_aligned(script: Any, make: Make) -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    script.reply(message("A"))
    script.reply(message(thinking, "B"))
    script.reply(message(stop_reason="refusal"))
    (output,) = make(max_concurrency=1).generate_outputs([[USER]], num_generations=3)
    assert output["generations"] == ["A", "B", None]
    assert output["reasoning"] == [None, "Hm.", None]
    assert output["statistics"]["input_tokens"] == [5, 5, 5]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (message('{"a": ', stop_reason="max_tokens"), "truncated"),
        (message('{"a":', stop_reason="pause_turn"), "truncated"),
        (message('{"a": '), "schema"),
        (message('{"a": "x"}'), "schema"),
        (message(), "schema"),
    ],
)
def test_invalid_structured_answer_is_an_error_with_request_id_and_hint(
    script: Any, make: Make, answer: Any, kind: str
) -> None:
    script.reply(message("Sure!"), request_id="req_1")
    script.reply(answer, request_id="req_2")
    with pytest.raises(GenerationError) as caught:
        make(structured_output=FORM).generate_outputs([[USER]])
    assert caught.value.kind == kind
    assert caught.value.request_id == "req_2"
    assert caught.value.hint


def test_valid_structured_answers_and_tool_calls_are_accepted(script: Any, make: Make) -> None:
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    script.reply(message('{"a": ', "1}"))
    script.reply(message(use, stop_reason="tool_use"))
    llm = make(structured_output=FORM)
    assert llm.generate_outputs([[USER]])[0]["generations"] == ['{"a": 1}']
    assert llm.generate_outputs([[USER]])[0]["tool_calls"][0]
    llm.structured_output = None
    script.reply(message("free"))
    llm.generate_outputs([[USER]])
    assert llm.generate_outputs([[USER]])[0]["generations"] == ["free"]
    assert "output_config" not in script.requests[-1].body


@pytest.mark.parametrize("body", [{"choices": []}, [], {"content": "text"}, {"content": [1]}])
def test_response_that_is_not_a_message_is_an_error(script: Any, make: Make, body: Any) -> None:
    script.reply(body)
    with pytest.raises(GenerationError, match="is not a message"):
        make().generate_outputs([[USER]])


# What goes wrong


def error(name: str, text: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": name, "message": text}, "request_id": "req_body"}


@pytest.mark.parametrize(
    ("status", "name", "text", "kind", "hint", "stops_run"),
    [
        (
            400,
            "invalid_request_error",
            "prompt is too long: 9 tokens > 8 maximum",
            "context_length",
            "shorten",
            False,
        ),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 9 + 8 > 10",
            "context_length",
            "shorten",
            False,
        ),
        (
            400,
            "invalid_request_error",
            "max_tokens: 99999 > 8192, which is the maximum allowed number of output tokens for m",
            "invalid_request",
            "lower max_new_tokens",
            False,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access",
            "rate_limit",
            "credit",
            True,
        ),
        (
            400,
            "invalid_request_error",
            "Output blocked by content filtering policy",
            "content_filter",
            "prompt",
            False,
        ),
        (400, "invalid_request_error", "top_k: Extra inputs are not permitted", "invalid_request", "", False),
        (401, "authentication_error", "invalid x-api-key", "authentication", "API key", True),
        (403, "permission_error", "Your API key does not have permission", "authentication", "API key", True),
        (404, "not_found_error", "model: claude-nine", "invalid_request", "check the model's name", True),
        (413, "request_too_large", "Request exceeds the maximum size", "context_length", "images", False),
    ],
)
def test_permanent_api_errors_are_not_retried(
    script: Any, make: Make, status: int, name: str, text: str, kind: str, hint: str, stops_run: bool
) -> None:
    script.reply(error(name, text), status=status, request_id="req_header")
    with pytest.raises(GenerationError, match="status") as caught:
        make().generate_outputs([[USER]])
    found = caught.value
    assert (found.kind, found.stops_run, found.attempts) == (kind, stops_run, 1)
    assert text in found.message
    assert hint in found.hint
    assert found.request_id == "req_header"
    assert KEY not in str(found)


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (429, "rate_limit_error", "rate_limit"),
        (500, "api_error", "server"),
        (504, "timeout_error", "timeout"),
        (529, "overloaded_error", "server"),
    ],
)
@pytest.mark.usefixtures("at_once")
def test_transient_api_errors_are_retried(script: Any, make: Make, status: int, name: str, kind: str) -> None:
    script.reply(error(name, "Later."), status=status)
    with pytest.raises(GenerationError) as caught:
        make(retry_timeout=0).generate_outputs([[USER]])
    assert caught.value.kind == kind
    assert caught.value.request_id == "req_body"
    script.reply(message("Hi"))
    assert make().generate_outputs([[USER]])[0]["generations"] == ["Hi"]


def test_used_up_quota_says_when_it_is_full_again() -> None:
    body = json.dumps(error("rate_limit_error", "Too many.")).encode()
    reset = (datetime.now(UTC) + timedelta(seconds=40)).isoformat(timespec="seconds")
    headers = {
        "anthropic-ratelimit-requests-remaining": "7",
        "anthropic-ratelimit-requests-reset": "2999-01-01T00:00:00Z",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": reset.replace("+00:00", "Z"),
    }
    assert 35 < (anthropic_failure(429, headers, body).retry_after or 0) <= 40
    assert anthropic_failure(429, {**headers, "retry-after": "3"}, body).retry_after == 3
    headers["anthropic-ratelimit-input-tokens-reset"] = "soon"
    assert anthropic_failure(429, headers, body).retry_after is None


@pytest.mark.parametrize(
    ("status", "body", "kind", "stops_run"),
    [
        (400, error("invalid_request_error", "Your credit balance is too low to access the API."), "rate_limit", True),
        (402, error("billing_error", "no"), "rate_limit", True),
        (400, error("authentication_error", "invalid x-api-key"), "authentication", True),
        (529, error("overloaded_error", "Overloaded"), "server", False),
        (400, {"error": {"type": ["odd"], "message": {"detail": 5}}}, "invalid_request", False),
        (400, [[]], "invalid_request", False),
    ],
)  # fmt: skip
def test_failure_has_the_kind_that_the_error_means(
    status: int, body: Any, kind: str, stops_run: bool
) -> None:
    failure = anthropic_failure(status, {}, json.dumps(body).encode())
    assert (failure.kind, failure.stops_run) == (kind, stops_run)


def test_page_instead_of_an_error(script: Any, make: Make) -> None:
    script.reply(b"<html><body>Bad gateway</body></html>", status=400)
    with pytest.raises(GenerationError, match="Bad gateway"):
        make().generate_outputs([[USER]])


def test_no_secret_is_written(make: Make) -> None:
    llm = make(default_headers={"authorization": "Bearer hidden-1"})
    text = repr(llm) + json.dumps(llm.dump())
    assert KEY not in text
    assert "hidden-1" not in text
    assert AnthropicLLM.from_dict(llm.dump()).model_name == "claude-test"


def test_invalid_structured_answer_is_requested_again_with_the_problem(script: Any, make: Make) -> None:
    script.reply(message('{"a": "x"}'))
    script.reply(message('{"a": 1}'))
    output = make(structured_output=FORM).generate_outputs([[USER]])[0]
    assert output["generations"] == ['{"a": 1}']
    first, second = (request.body["messages"] for request in script.requests)
    assert second[:2] == [*first, {"role": "assistant", "content": '{"a": "x"}'}]
    assert "'x' is not of type 'integer' at $.a" in second[2]["content"]
    assert len(output["statistics"]["output_tokens"]) == 1
