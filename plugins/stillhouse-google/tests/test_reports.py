"""What people reported of other tools with this API: each a shape that it sends, and what is right for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse.http import Failure
from stillhouse.testing import Reply
from stillhouse_google import GeminiLLM, VertexAILLM

CHAT: Any = [{"role": "user", "content": "hello"}]
QUOTA = "You exceeded your current quota, please check your plan and billing details."


def candidate(reason: Any, **fields: Any) -> dict[str, Any]:
    return {"candidates": [{"finishReason": reason, **fields}], "usageMetadata": {"promptTokenCount": 17}}


def test_budget_used_up_by_thoughts_is_an_empty_answer_that_was_cut_off(read: Any, server: Any) -> None:
    usage = {"promptTokenCount": 17, "thoughtsTokenCount": 30, "totalTokenCount": 47}
    output = read({**candidate("MAX_TOKENS", content={"role": "model"}), "usageMetadata": usage})
    assert (output["generations"], output["finish_reasons"]) == ([None], ["length"])
    assert output["statistics"] == {"input_tokens": [17], "output_tokens": [30], "reasoning_tokens": [30]}
    assert len(server.requests) == 1


def test_blocked_prompt_is_filtered_with_the_reason_and_its_tokens(read: Any, server: Any) -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "no"}
    usage = {"promptTokenCount": 13, "totalTokenCount": 13}
    output = read({"promptFeedback": feedback, "usageMetadata": usage})
    assert (output["generations"], output["finish_reasons"]) == ([None], ["content_filter"])
    assert (output["stop_reasons"], output["stop_details"]) == (["PROHIBITED_CONTENT"], [feedback])
    assert output["statistics"] == {"input_tokens": [13]}
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reason",
    [
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "OTHER",
        "NO_IMAGE",
        "CONTINUATION",
        "FINISH_REASON_FROM_2027",
    ],
)
def test_other_finish_reasons_are_carried_through(read: Any, reason: str) -> None:
    output = read(candidate(reason, content={}, finishMessage="why"))
    assert (output["generations"], output["finish_reasons"]) == ([None], [reason.lower()])
    assert (output["stop_reasons"], output["stop_details"]) == ([reason], [{"finishMessage": "why"}])


@pytest.mark.parametrize(
    "reason",
    [
        "SAFETY",
        "RECITATION",
        "LANGUAGE",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "MODEL_ARMOR",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_OTHER",
    ],
)
@pytest.mark.parametrize("content", [{}, {"content": {}}, {"content": {"parts": [{"text": "half"}]}}])
def test_filtered_answer_is_empty_and_says_so(read: Any, reason: str, content: Any) -> None:
    output = read(candidate(reason, **content))
    assert (output["generations"], output["finish_reasons"]) == ([None], ["content_filter"])
    assert output["stop_reasons"] == [reason]


def test_citations_of_a_recitation_are_not_its_answer(make: Any) -> None:
    """In the results of a batch, too, no text and no reason is made up."""
    cited = {"citationMetadata": {"citationSources": [{"uri": "https://example.org"}]}}
    output = make().output_of(candidate("RECITATION", **cited), None)
    assert (output["generations"], output["stop_reasons"]) == ([None], ["RECITATION"])
    with pytest.raises(GenerationError, match="no candidates"):
        make().output_of({"usageMetadata": {"promptTokenCount": 3}}, None)


def test_text_is_all_parts_that_are_no_thoughts(read: Any) -> None:
    parts = [{"thought": True, "text": "hmm"}, {"text": "An"}, {"text": "swer"}, {"thoughtSignature": "c2ln"}]
    output = read(candidate("STOP", content={"parts": parts}))
    assert (output["generations"], output["reasoning"]) == (["Answer"], ["hmm"])
    assert output["finish_reasons"] == ["stop"]


@pytest.mark.parametrize("content", [{}, {"content": {}}, {"content": {"parts": []}}, {"content": None}])
def test_stop_without_parts_is_an_empty_answer(read: Any, content: Any) -> None:
    output = read(candidate("STOP", **content))
    assert (output["generations"], output["finish_reasons"]) == ([None], ["stop"])


def test_cached_tokens_are_counted_once(read: Any) -> None:
    usage = {"promptTokenCount": 262960, "cachedContentTokenCount": 257955, "candidatesTokenCount": 1744}
    statistics = read({**candidate("STOP"), "usageMetadata": usage})["statistics"]
    assert statistics == {"input_tokens": [262960], "output_tokens": [1744], "cached_tokens": [257955]}


def test_candidates_come_in_the_order_of_their_index(make: Any) -> None:
    both = [
        {"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"},
        {"content": {"parts": [{"text": "a"}, {"functionCall": {"name": "f"}}]}, "finishReason": "STOP"},
    ]
    output = make().output_of({"candidates": both}, None)
    assert output["generations"] == ["a", "b"]
    assert output["finish_reasons"] == ["tool_calls", "stop"]
    assert output["tool_calls"][1] is None


def error(code: int, status: str, message: str, *details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def quota(*ids: str, wait: str = "34s") -> dict[str, Any]:
    violations = [{"quotaMetric": "generativelanguage.googleapis.com/requests", "quotaId": id} for id in ids]
    return error(
        429,
        "RESOURCE_EXHAUSTED",
        QUOTA,
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait},
    )


INVALID_KEY = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "API_KEY_INVALID",
    "domain": "googleapis.com",
}
PAGE = (
    b"<!DOCTYPE html>\n<html lang=en>\n<title>Error 404 (Not Found)!!1</title>\n<style>*{margin:0}</style>\n"
    b"<p>The requested URL <code>/v1/projects</code> was not found on this server."
)
INVALID, FAILED, DENIED = "INVALID_ARGUMENT", "FAILED_PRECONDITION", "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("status", "body", "kind", "retried", "stops_run"),
    [
        (429, quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), "rate_limit", True, False),
        (429, quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), "rate_limit", False, True),
        (429, [quota("GenerateContentInputTokensPerMinute")], "rate_limit", True, False),
        (429, error(429, "RESOURCE_EXHAUSTED", QUOTA), "rate_limit", True, True),
        (429, error(429, "RESOURCE_EXHAUSTED", "Resource exhausted. Try again."), "rate_limit", True, False),
        (400, error(400, INVALID, "API key not valid.", INVALID_KEY), "authentication", False, True),
        (400, error(400, INVALID, "API key expired. Please renew it.", INVALID_KEY), "authentication", False, True),
        (403, error(403, DENIED, "Method doesn't allow unregistered callers."), "authentication", False, True),
        (401, [error(401, "UNAUTHENTICATED", "Invalid credentials.")], "authentication", False, True),
        (400, error(400, FAILED, "User location is not supported for the API use."), "invalid_request", False, True),
        (400, error(400, FAILED, "Please enable billing on your project."), "invalid_request", False, True),
        (400, error(400, INVALID, "Developer instruction is not enabled for models/m"), "invalid_request", False, False),
        (400, error(400, INVALID, "Multiple candidates is not enabled for this model"), "invalid_request", False, False),
        (400, error(400, INVALID, "Function call is missing a thought_signature in functionCall parts."), "invalid_request", False, False),
        (400, error(400, INVALID, "The specified schema produces a constraint that has too many states for serving."), "invalid_request", False, False),
        (400, error(400, INVALID, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."), "context_length", False, False),
        (400, error(400, INVALID, "The input token count is 1200000 but model only supports up to 1048576."), "context_length", False, False),
        (404, error(404, "NOT_FOUND", "models/x is not found for API version v1beta"), "invalid_request", False, True),
        (404, PAGE, "invalid_request", False, True),
        (499, error(499, "CANCELLED", "The operation was cancelled."), "server", True, False),
        (500, error(500, "INTERNAL", "An internal error has occurred."), "server", True, False),
        (503, error(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), "server", True, False),
        (504, error(504, "DEADLINE_EXCEEDED", "Deadline expired."), "server", True, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cls", [GeminiLLM, VertexAILLM])
def test_errors_mean_what_they_say(
    cls: Any, status: int, body: Any, kind: str, retried: bool, stops_run: bool
) -> None:
    failure = cls(model="m").classify(
        status, {}, body if isinstance(body, bytes) else json.dumps(body).encode()
    )
    assert (failure.kind, failure.retried, failure.stops_run) == (kind, retried, stops_run)
    assert "\n" not in failure.message
    assert "<" not in failure.message


def test_wait_of_a_quota_is_that_of_its_retry_info() -> None:
    body = json.dumps(quota("GenerateRequestsPerMinute", wait="1.5s")).encode()
    failure: Failure = GeminiLLM(model="m").classify(429, {}, body)
    assert failure.retry_after == 1.5


def test_page_of_html_is_told_in_one_line(make: Any, server: Any) -> None:
    server.script = [Reply(404, PAGE)]
    with pytest.raises(GenerationError, match="status 404: Error 404") as caught:
        make().generate_outputs([CHAT])
    assert "\n" not in caught.value.message


def test_error_in_a_list_and_in_spite_of_its_status_is_one(make: Any, server: Any) -> None:
    overloaded = error(503, "UNAVAILABLE", "The model is overloaded.")
    server.script = [Reply(body=[overloaded]), Reply(body=overloaded)]
    (output,) = make(retry_timeout=30).generate_outputs([CHAT])
    assert (output["generations"], len(server.requests)) == (["fine"], 3)


def test_fault_of_the_request_that_looks_like_the_servers_ends_with_its_message(
    make: Any, server: Any
) -> None:
    server.always = Reply(500, error(500, "INTERNAL", "Internal error encountered."))
    with pytest.raises(GenerationError, match="Internal error encountered") as caught:
        make(retry_timeout=0.05).generate_outputs([CHAT])
    assert caught.value.kind == "server"


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (403, "Gemini API has not been used in project 1 before or it is disabled.", "enable the API"),
        (
            401,
            "Expected OAuth 2 access token, login cookie or other credential.",
            "application-default login",
        ),
        (403, "Permission 'aiplatform.endpoints.predict' denied on resource '//a'.", "Vertex AI User"),
        (404, "Publisher Model `projects/p/x` was not found or your project has no access.", "global"),
        (
            400,
            "The schema produces a constraint that has too many states for serving.",
            "simplify the schema",
        ),
        (400, "Request payload size exceeds the limit: 20971520 bytes.", "fewer images"),
    ],
)
def test_what_to_do_is_said_of_the_identity_the_location_and_the_schema(
    status: int, message: str, hint: str
) -> None:
    body = json.dumps(error(status, "X", message)).encode()
    failure = VertexAILLM(model="m").classify(status, {}, body)
    assert hint in failure.hint
    assert failure.stops_run == (status != 400)


@pytest.mark.parametrize(
    "message",
    [
        "Project `p` is not allowed to use Publisher Model `projects/p/publishers/x/models/y`",
        "Invalid resource field value in the request.",
    ],
)
def test_refusal_of_the_project_stops_the_run(message: str) -> None:
    body = json.dumps(error(400, FAILED, message)).encode()
    assert VertexAILLM(model="m").classify(400, {}, body).stops_run
