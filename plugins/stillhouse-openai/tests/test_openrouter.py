"""OpenRouter: what is asked of providers, what an answer says besides, and its errors by their meaning."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.http import Failure
from stillhouse.outputs import check_output, merge_responses
from stillhouse_openai import OpenRouterLLM

CHAT: Any = [{"role": "user", "content": "hello"}]
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
FORM: Any = {
    "format": "json",
    "schema": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
}


def at(server: Any, **fields: Any) -> OpenRouterLLM:
    given = {"model": "m", "base_url": server.origin, "api_key": "key", "retry_timeout": 5, **fields}
    return OpenRouterLLM(**given)


def sent(server: Any, given: Any = CHAT, **arguments: Any) -> dict[str, Any]:
    server.script[:] = [server.chat('{"river": "Ucayali"}')]
    with at(server) as llm:
        llm.generate_outputs([given], **arguments)
    body: dict[str, Any] = server.bodies[-1]
    return body


def test_nothing_is_sent_that_was_not_asked_for(server: Any) -> None:
    assert sent(server) == {"model": "m", "messages": CHAT}
    assert server.paths == ["/api/v1/chat/completions"]


@pytest.mark.parametrize(
    "given",
    [
        {"seed": 0}, {"tools": TOOLS}, {"logprobs": True}, {"top_logprobs": 3},
        {"response_format": {"type": "json_object"}}, {"extra_body": {"seed": 1}},
    ],
)  # fmt: skip
def test_providers_that_would_ignore_a_parameter_are_not_chosen(server: Any, given: Any) -> None:
    assert sent(server, **given)["provider"] == {"require_parameters": True}
    mine = {"only": ["together"], "require_parameters": False}
    assert sent(server, provider=mine, **given)["provider"] == mine
    merged = sent(server, provider={"only": ["together"]}, **given)["provider"]
    assert merged == {"require_parameters": True, "only": ["together"]}


def test_a_form_requires_a_provider_that_keeps_to_it(server: Any) -> None:
    body = sent(server, (CHAT, FORM))
    assert body["provider"] == {"require_parameters": True}
    assert body["response_format"]["json_schema"]["strict"] is True


def test_what_the_user_says_of_providers_and_reasoning_is_merged_and_wins(server: Any) -> None:
    provider, extra = {"sort": "price"}, {"provider": {"zdr": True}, "reasoning": {"exclude": True}}
    body = sent(server, provider=provider, extra_body=extra, reasoning_effort="max", seed=1)
    assert body["provider"] == {"require_parameters": True, "sort": "price", "zdr": True}
    assert body["reasoning"] == {"effort": "xhigh", "exclude": True}
    assert provider == {"sort": "price"}
    assert extra["provider"] == {"zdr": True}
    body = sent(server, reasoning={"max_tokens": 100}, reasoning_effort="none")
    assert body["reasoning"] == {"effort": "none", "max_tokens": 100}
    assert sent(server, extra_body={"provider": None}, seed=1)["provider"] == {"require_parameters": True}


def test_its_own_parameters_are_sent_under_their_names(server: Any) -> None:
    given: dict[str, Any] = {
        "top_k": 4, "top_a": 0.1, "min_p": 0.1, "repetition_penalty": 1.1, "models": ["a", "b"],
        "plugins": [{"id": "web"}], "session_id": "s", "cache_control": {"type": "ephemeral"},
        "service_tier": "flex",
    }  # fmt: skip
    assert sent(server, max_new_tokens=7, **given) == {
        "model": "m", "messages": CHAT, "max_tokens": 7, **given,
    }  # fmt: skip
    with at(server) as llm:
        with pytest.raises(ConfigurationError, match="zdr"):
            llm.generate_outputs([CHAT], zdr=True)
        with pytest.raises(UnsupportedError):
            llm.generate_outputs(["raw"])


def test_prompts_are_cached_when_asked(server: Any) -> None:
    usage = {
        "prompt_tokens": 9, "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
    }  # fmt: skip
    server.script[:] = [server.chat("a", usage=usage)]
    with at(server, prompt_caching=True) as llm:
        (output,) = llm.generate_outputs([CHAT])
        llm.generate_outputs([CHAT], cache_control={"type": "ephemeral", "ttl": "1h"})
    assert [body["cache_control"] for body in server.bodies] == [
        {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"},
    ]  # fmt: skip
    assert output["statistics"] == {
        "input_tokens": [9], "output_tokens": [1], "cached_tokens": [5], "cache_creation_tokens": [3],
    }  # fmt: skip


def test_an_application_is_named_by_fields_or_by_headers(server: Any) -> None:
    with at(server, app_url="https://app.example", app_title="App") as llm:
        llm.generate_outputs([CHAT])
    with at(server, app_title="App", default_headers={"X-OpenRouter-Title": "Other"}) as llm:
        llm.generate_outputs([CHAT])
    first, second = server.headers
    assert (first["http-referer"], first["x-openrouter-title"]) == ("https://app.example", "App")
    assert second["x-openrouter-title"] == "Other"
    assert "http-referer" not in second


DETAILS = [{"type": "reasoning.text", "text": "hm", "signature": "c2ln", "format": "x", "index": 0}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_the_details_of_reasoning_are_kept_and_go_back_unchanged(server: Any) -> None:
    first = server.chat(
        None, finish="tool_calls", tool_calls=[CALL], reasoning="hm", reasoning_details=DETAILS
    )
    server.script[:] = [first]
    with at(server) as llm:
        (output,) = llm.generate_outputs([CHAT], tools=TOOLS)
        assert (output["reasoning"], output["reasoning_details"]) == (["hm"], [DETAILS])
        message = {
            "role": "assistant", "content": output["generations"][0], "tool_calls": output["tool_calls"][0],
            "reasoning_details": output["reasoning_details"][0],
        }  # fmt: skip
        result = {"role": "tool", "tool_call_id": "1", "content": "42"}
        llm.generate_outputs([[*CHAT, message, result]], tools=TOOLS)
    assert server.bodies[-1]["messages"][1:] == [message, result]


def test_the_cost_is_a_statistic_that_adds_up(server: Any) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "cost": 0.00078, "is_byok": False}
    server.script[:] = [server.chat("a", usage=usage)] * 2
    with at(server) as llm:
        (output,) = llm.generate_outputs([CHAT], num_generations=2)
    assert output["statistics"]["cost"] == [0.00078, 0.00078]
    assert not any("n" in body for body in server.bodies), "it makes one generation per request"
    assert merge_responses([output, output], 2)[0]["statistics"]["cost"] == [0.00078] * 4
    with at(server, structured_output=FORM) as llm:  # an answer that is asked for again costs, too
        good = server.chat('{"river": "a"}', usage={**usage, "cost": 1})
        server.script[:] = [server.chat("no", usage=usage), good]
        (output,) = llm.generate_outputs([CHAT])
    assert output["statistics"]["cost"] == [1.00078]


@pytest.mark.parametrize("odd", [None, True, "1", -1, 1e400, [], {}])
def test_a_cost_of_another_type_is_unknown(server: Any, odd: Any) -> None:
    llm = at(server)
    answer = server.chat("a", usage={"cost": odd})
    output = llm.output_of(answer, llm.request_of(CHAT, 1, {}))
    assert "cost" not in check_output(output, 1, "LLM")["statistics"]


def failure(status: int, error: Any, headers: Mapping[str, str] | None = None) -> Failure:
    llm = OpenRouterLLM(model="m", api_key="key")
    return llm.classify(status, headers or {}, json.dumps({"error": error}).encode())


def error(code: int, message: str = "Provider returned error", **metadata: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "metadata": metadata}


FLAGGED = {"reasons": ["violence"], "flagged_input": "…", "provider_name": "x", "model_slug": "m"}
BUDGET = {"limit_source": "openrouter_in_flight_budget", "error_type": "payment_required"}


@pytest.mark.parametrize(
    ("status", "body", "headers", "meaning"),
    [
        (400, error(400, error_type="context_length_exceeded"), {}, ("context_length", False, False)),
        (400, error(400, error_type="max_tokens_exceeded"), {}, ("truncated", False, False)),
        (400, error(400, error_type="token_limit_exceeded"), {}, ("context_length", False, False)),
        (400, error(400, error_type="content_policy_violation"), {}, ("content_filter", False, False)),
        (400, error(400, error_type="refusal"), {}, ("content_filter", False, False)),
        (400, error(400, error_type="provider_overloaded"), {}, ("server", True, False)),
        (400, error(400, "Bad", error_type="invalid_request"), {}, ("invalid_request", False, False)),
        (400, error(400, "No", error_type="payment_required"), {}, ("rate_limit", False, True)),
        (401, error(401, "No auth credentials found"), {}, ("authentication", False, True)),
        (402, error(402, "This request requires more credits"), {}, ("rate_limit", False, True)),
        (402, error(402, "Insufficient credits", **BUDGET), {"retry-after": "2"}, ("rate_limit", True, False)),
        (403, error(403, "Your input was flagged", **FLAGGED), {}, ("content_filter", False, False)),
        (403, error(403, "Not this one", **FLAGGED), {}, ("content_filter", False, False)),
        (403, error(403, "Budget limit exceeded", limit_source="openrouter_key_limit"), {},
         ("rate_limit", False, True)),
        (403, error(403, "Key limit exceeded (total limit)."), {}, ("rate_limit", False, True)),
        (403, error(403, "Forbidden", error_type="permission_denied"), {}, ("authentication", False, True)),
        (404, error(404, "No endpoints found for m."), {}, ("invalid_request", False, True)),
        (408, error(408), {}, ("timeout", True, False)),
        (429, error(429, raw="Too Many Requests"), {}, ("rate_limit", True, False)),
        (502, error(502, provider_name="x"), {}, ("server", True, False)),
        (503, error(503, error_type="provider_unavailable"), {}, ("server", True, False)),
        (524, error(524), {}, ("server", True, False)),
        (529, error(529, error_type="provider_overloaded"), {}, ("server", True, False)),
        (500, "no object", {}, ("server", True, False)),
        (400, {"metadata": 5}, {}, ("invalid_request", False, False)),
    ],
)  # fmt: skip
def test_errors_by_their_meaning(
    status: int, body: Any, headers: Any, meaning: tuple[str, bool, bool]
) -> None:
    found = failure(status, body, headers)
    assert (found.kind, found.retried, found.stops_run) == meaning
    for garbage in (b"", b"<html>", b"[]", b'{"error": []}', b"\xff"):
        OpenRouterLLM(model="m", api_key="key").classify(status, headers, garbage)


@pytest.mark.parametrize(
    "why", ["support tool use", "can handle the requested parameters", "match your policy"]
)
def test_it_says_what_to_do_if_no_provider_is_left(why: str) -> None:
    found = failure(404, {"code": 404, "message": f"No endpoints found that {why}."})
    assert found.stops_run
    assert "require_parameters" in found.hint


def in_choice(code: int, message: str = "Upstream failed") -> dict[str, Any]:
    choice = {
        "index": 0, "finish_reason": "error", "native_finish_reason": None,
        "message": {"role": "assistant", "content": "half"}, "error": {"code": code, "message": message},
    }  # fmt: skip
    return {"id": "gen-1", "choices": [choice], "usage": {"prompt_tokens": None, "completion_tokens": None}}


@pytest.mark.parametrize(
    "answer",
    [
        {"id": None, "choices": None, "error": error(429, raw="Too Many Requests")},
        {"id": "gen-1", "error": error(502)},
        {"choices": [], "error": error(503)},
        in_choice(502),
        {
            "choices": [
                {
                    "finish_reason": "stop",
                    "native_finish_reason": "network_error",
                    "message": {"role": "assistant", "content": ""},
                }
            ],
            "usage": None,
        },
        {"choices": [{"finish_reason": "ERROR", "message": {"role": "assistant", "content": "half"}}]},
    ],
)
def test_an_error_with_a_good_status_is_tried_again(server: Any, answer: Any) -> None:
    server.script[:] = [answer, server.chat("fine")]
    with at(server, retry_timeout=30) as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["generations"] == ["fine"]
    assert len(server.paths) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"id": "gen-1", "error": error(400, "The prompt is not good")}, "invalid_request"),
        ({"id": "gen-1", "error": error(403, "flagged", **FLAGGED)}, "content_filter"),
        (in_choice(400, "The maximum context length is 5 tokens"), "context_length"),
        ({"choices": None, "error": error(402, "This request requires more credits")}, "rate_limit"),
    ],
)
def test_an_error_with_a_good_status_means_what_its_code_does(server: Any, answer: Any, kind: str) -> None:
    server.script[:] = [answer]
    with at(server) as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.attempts) == (kind, 1)
    assert "Upstream" not in caught.value.message
    said = (answer.get("error") or answer["choices"][0]["error"])["message"]
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("completed", "stop"),
        (None, "stop"),
        (5, "stop"),
    ],
)
def test_the_provider_s_own_finish_reason_is_not_lost(server: Any, native: Any, reason: str) -> None:
    answer = server.chat(None)
    answer["choices"][0]["native_finish_reason"] = native
    llm = at(server)
    assert llm.output_of(answer, llm.request_of(CHAT, 1, {}))["finish_reasons"] == [reason]


def test_models_have_prices_and_limits() -> None:
    answer = {
        "data": [
            {
                "id": "a/b", "created": 1_700_000_000, "context_length": 131072,
                "pricing": {"prompt": "0.000003", "completion": "0.000015", "image": "0"},
                "top_provider": {"max_completion_tokens": 8192},
            },
            {"id": "auto", "context_length": 2_000_000, "pricing": {"prompt": "-1", "completion": "x"}},
            {"id": "c", "pricing": 5, "top_provider": {"max_completion_tokens": None}}, "d",
        ]
    }  # fmt: skip
    llm = OpenRouterLLM(model="m", api_key="key")
    first, second, third, fourth = llm.models_in(answer)
    assert (first["input_price"], first["output_price"]) == (3.0, 15.0)
    assert (first["context_length"], first["max_new_tokens"]) == (131072, 8192)
    assert second == {"name": "auto", "context_length": 2_000_000}
    assert (third, fourth) == ({"name": "c"}, {"name": "d"})
    assert list(llm.models_in({"data": None})) == []
