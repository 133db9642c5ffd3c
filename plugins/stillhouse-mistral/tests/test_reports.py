"""What people reported of other tools with this API, and its errors: what is sent, and what is right for it."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_mistral import MistralLLM

from .conftest import answer

CHAT: Any = [{"role": "user", "content": "hello"}]
LLM = MistralLLM(model="m", api_key="k")

UNKNOWN_FIELD = {"type": "extra_forbidden", "loc": ["body", "store"], "msg": "Extra inputs are not permitted"}


def test_content_is_a_list_of_thoughts_and_texts(make: Any, script: Any) -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]},
        {"type": "text", "text": "An"},
        {"type": "thinking", "thinking": []},
        {"type": "text", "text": "swer"},
    ]
    script.reply(answer(content))
    (output,) = make().generate_outputs([CHAT])
    assert (output["generations"], output["reasoning"]) == (["Answer"], ["hmm"])
    assert output["statistics"]["output_tokens"] == [3]


@pytest.mark.parametrize(
    ("status", "body", "kind", "stops", "said"),
    [
        (
            422,
            {"object": "error", "message": {"detail": [UNKNOWN_FIELD]}, "type": "invalid_request_error"},
            "invalid_request", False, "body.store: Extra inputs are not permitted",
        ),
        (422, {"detail": [UNKNOWN_FIELD]}, "invalid_request", False, "body.store: Extra inputs are not"),
        (
            400,
            {"object": "error", "message": "Unexpected role 'user' after role 'tool'",
             "type": "invalid_request_message_order", "code": "3230"},
            "invalid_request", False, "Unexpected role 'user' after role 'tool'",
        ),
        (
            400,
            {"object": "error", "type": "invalid_function_call", "code": "3280",
             "message": "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9."},
            "invalid_request", False, "must be a-z",
        ),
        (
            400,
            {"object": "error", "message": "Invalid model: mistral-gross", "type": "invalid_model",
             "param": None, "code": "1500"},
            "invalid_request", True, "check the model's name",
        ),
        (
            400,
            {"object": "error", "type": "invalid_request_error", "code": "3051", "message":
             "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length"},
            "context_length", False, "shorten the prompt",
        ),
        (401, {"detail": "Unauthorized"}, "authentication", True, "Unauthorized"),
        (401, {"message": "Unauthorized", "request_id": "r"}, "authentication", True, "check the API key"),
        (
            403,
            {"object": "error", "message": "Request blocked by guardrails", "type": "guardrail_violation"},
            "content_filter", False, "change the prompt",
        ),
        (403, {"message": "You cannot access this model"}, "authentication", True, "check the API key"),
        (402, {"message": "Payment required"}, "rate_limit", True, "billing"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("at_once")
def test_errors_that_are_not_retried(
    make: Any, script: Any, status: int, body: Any, kind: str, stops: bool, said: str
) -> None:
    script.reply(body, status)
    script.reply(answer())  # one that is retried ends at once, and not as an error
    with pytest.raises(GenerationError, match=said) as caught:
        make().generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run, caught.value.attempts) == (kind, stops, 1)
    assert [asked.path for asked in script.requests].count("/v1/chat/completions") == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"}),
        (
            429,
            {"object": "error", "message": "Service tier capacity exceeded for this model.",
             "type": "service_tier_capacity_exceeded", "param": None, "code": "3505"},
        ),
        (500, {"object": "error", "message": "Service unavailable.", "type": "internal_server_error"}),
        (503, b"upstream connect error"),
        (200, answer(None, "error")),
        (200, {"object": "error", "message": "Internal server error", "type": "internal_server_error"}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("at_once")
def test_errors_that_are_retried(make: Any, script: Any, status: int, body: Any) -> None:
    script.reply(body, status)
    script.reply(answer())
    (output,) = make().generate_outputs([CHAT])
    assert (output["generations"], len(script.requests)) == (["fine"], 2)


@pytest.mark.usefixtures("at_once")
def test_model_without_any_quota_stops_the_run(make: Any, script: Any) -> None:
    headers = {"x-ratelimit-limit-req-minute": "0", "x-ratelimit-remaining-req-minute": "0"}
    script.reply({"message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"}, 429, headers)
    script.reply(answer())
    with pytest.raises(GenerationError, match="no quota for this model") as caught:
        make().generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run, len(script.requests)) == ("rate_limit", True, 1)


@pytest.mark.usefixtures("at_once")
def test_month_that_is_used_up_stops_the_run(make: Any, script: Any) -> None:
    headers = {"x-ratelimit-limit-tokens-month": "1000", "x-ratelimit-remaining-tokens-month": "0"}
    script.reply({"message": "Requests rate limit exceeded"}, 429, headers)
    script.reply(answer())
    with pytest.raises(GenerationError, match="used up") as caught:
        make().generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run) == ("rate_limit", True)


@pytest.mark.parametrize("name", ["req", "tokens"])
def test_quota_without_a_reset_is_one_of_a_minute(make: Any, script: Any, name: str) -> None:
    """So little is left that the next request waits, and is given up before it is sent."""
    headers = {f"x-ratelimit-limit-{name}-minute": "60", f"x-ratelimit-remaining-{name}-minute": "0"}
    script.reply(answer(), headers=headers)
    llm = make()
    llm.generate_outputs([CHAT])
    limits = llm._transport.limits
    assert limits.try_acquire(10) is None


def test_batch_line_keeps_its_finish_reason_and_thoughts() -> None:
    body = answer([{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}], "length")
    line = {"custom_id": "r1", "response": {"status_code": 200, "body": body}, "error": None}
    found = LLM.batch_result(line)
    output = LLM.batch_answer(found.answer, "chat/completions")
    assert (output["finish_reasons"], output["reasoning"]) == (["length"], ["hmm"])
    assert output["statistics"] == {"input_tokens": [7], "output_tokens": [3]}
