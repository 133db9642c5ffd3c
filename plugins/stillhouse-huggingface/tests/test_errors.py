"""The errors of TGI, of endpoints and of the router, each with what it means for the row and for the run."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse.testing import Reply
from stillhouse_huggingface import InferenceEndpointsLLM
from stillhouse_huggingface.failures import endpoint_failure, quotas_of

CHAT: list[Any] = [{"role": "user", "content": "Name a river."}]

CREDITS = "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO to get 20x more."
TOO_LONG = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4090 `inputs` tokens"
)

ERRORS = [
    (422, {"error": TOO_LONG, "error_type": "validation"}, "context_length", False),
    (422, {"error": "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000", "error_type": "validation"}, "context_length", False),
    (422, {"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"}, "invalid_request", False),
    (422, {"error": "Template error: unknown filter", "error_type": "template_error"}, "invalid_request", False),
    (422, {"error": "Tool error: no tool found", "error_type": "tool_error"}, "invalid_request", False),
    (400, {"error": "Bad Request: Invalid state"}, "invalid_request", True),
    (410, {"error": "https://api-inference.huggingface.co is no longer supported. Please use https://router.huggingface.co instead."}, "invalid_request", True),
    (401, {"error": "Invalid username or password."}, "authentication", True),
    (403, {"error": "This authentication method does not have sufficient permissions to call Inference Providers"}, "authentication", True),
    (402, {"error": CREDITS}, "rate_limit", True),
    (400, {"error": "Model not supported by provider together"}, "invalid_request", True),
    (400, {"error": "Model org/x is not supported for task conversational and provider hf-inference. Supported task: text-generation."}, "invalid_request", True),
    (400, {"error": {"message": "The requested model 'org/x' is not supported by any provider you have enabled.", "type": "invalid_request_error", "param": "model", "code": "model_not_supported"}}, "invalid_request", True),
    (404, {"error": "Model not found", "error_type": "not_found"}, "invalid_request", True),
    (400, {"error": {"message": "The requested model 'org/x' does not exist", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}, "invalid_request", True),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "stops_run"), ERRORS)
def test_error_that_another_try_does_not_help(
    make: Any, site: Any, status: int, body: Any, kind: str, stops_run: bool
) -> None:
    site.pages["/v1/chat/completions"] = Reply(status, body)
    with pytest.raises(GenerationError) as caught:
        make(model="m").generate_outputs([CHAT])
    error = caught.value
    tries = site.paths.count("/v1/chat/completions")
    assert (error.kind, error.stops_run, tries) == (kind, stops_run, 1)
    text = body["error"] if isinstance(body["error"], str) else body["error"]["message"]
    assert text[:60] in error.message


LOADING = {"error": "Model m is currently loading", "estimated_time": 0.01}

PASSING = [
    (424, {"error": "Request failed during generation: Server error", "error_type": "generation"}),
    (429, {"error": "Model is overloaded", "error_type": "overloaded"}),
    (500, {"error": "Incomplete generation", "error_type": "incomplete_generation"}),
    (503, {"error": "unhealthy", "error_type": "healthcheck"}),
    (502, b"<html>Bad Gateway</html>"),
    (503, b""),
    (503, LOADING),
    (503, [LOADING]),
    (200, {"error": "Model is overloaded", "error_type": "overloaded"}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), PASSING)
def test_error_that_passes_is_tried_again(
    make: Any, site: Any, at_once: None, status: int, body: Any
) -> None:
    llm = make(model="m")
    site.says(Reply(status, body), Reply(status, body))
    (output,) = llm.generate_outputs([CHAT])
    assert output["generations"] == ["The Ucayali."]
    assert len(site.paths) == 3


@pytest.mark.parametrize("body", [b'{"error":"Model m is currently loading","estimated_time":20.0}',
                                  b'[{"error":"Model m is currently loading","estimated_time":20.0}]'])  # fmt: skip
def test_model_that_is_loading_is_waited_for_as_long_as_it_says(body: bytes) -> None:
    failure = endpoint_failure(503, {}, body)
    assert (failure.retry_after, failure.retried, failure.congestion, failure.stops_run) == (
        20,
        True,
        True,
        False,
    )
    assert "retry_timeout" in failure.hint


def test_requests_are_tried_again_for_as_long_as_an_endpoint_takes_to_start() -> None:
    assert InferenceEndpointsLLM(model="m").retry_timeout >= 600


def test_too_many_at_once_is_no_quota_of_a_minute() -> None:
    failure = endpoint_failure(429, {}, b'{"error":"Model is overloaded","error_type":"overloaded"}')
    assert (failure.kind, failure.retried, failure.congestion) == ("server", True, True)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"ratelimit": '"api";r=0;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}, 55),
        ({"ratelimit": '"api";r=3;t=55, "pages";r=0;t=7'}, 7),
        ({"ratelimit": '"api"; r = 3; t = 55'}, None),
        ({"ratelimit": '"api";r=0;t=55', "retry-after": "3"}, 3),
        ({"ratelimit": "0;t"}, None),
        ({}, None),
    ],
)
def test_wait_of_a_used_up_quota_is_read(headers: dict[str, str], wait: float | None) -> None:
    failure = endpoint_failure(429, headers, b'{"error":"Too Many Requests"}')
    assert (failure.kind, failure.retried, failure.retry_after) == ("rate_limit", True, wait)


@pytest.mark.parametrize(
    ("headers", "quotas"),
    [
        ({"ratelimit": '"api";r=489;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'},
         {"api": (489, 500, 55)}),
        ({"ratelimit": '"api";r=489;t=55'}, {"api": None}),
        ({"ratelimit": '"a";r=1;t=2,"b";r=3;t=4', "ratelimit-policy": '"a";q=5;w=1,"b";q=6;w=1'},
         {"a": (1, 5, 2), "b": (3, 6, 4)}),
        ({"ratelimit": "x" * 10_000}, {}),
        ({"ratelimit": ""}, {}),
        ({}, {}),
    ],
)  # fmt: skip
def test_quotas_are_read_from_the_headers(headers: dict[str, str], quotas: dict[str, Any]) -> None:
    assert quotas_of(headers) == quotas


def test_quotas_of_an_answer_slow_requests_down(make: Any, site: Any) -> None:
    llm = make(model="m")
    whole = site.pages["/v1/chat/completions"]
    headers = {"ratelimit": '"api";r=1;t=3600', "ratelimit-policy": '"fixed window";"api";q=500;w=3600'}
    site.pages["/v1/chat/completions"] = Reply(200, whole, headers)
    llm.generate_outputs([CHAT])
    assert llm._transport._client._limits._quotas  # one is being kept to
