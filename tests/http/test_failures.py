"""What the error of a provider means: bodies of every form, kinds by meaning, waits and quotas."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.http.transport import bodies
from stillhouse.http.transport.answers import failure_in, status_of
from stillhouse.http.transport.bodies import MAX_ERROR_BYTES, MAX_MESSAGE_CHARS, clean
from stillhouse.http.transport.failures import failure_of, message_of, request_id_of
from stillhouse.http.transport.retry import retry_after_of_text, retry_after_seconds
from stillhouse.offline.failures import Failure

KEY = "check the API key"
CREDIT = "no credit left"
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def fail(status: int, body: Any = b"", **headers: Any) -> Failure:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return failure_of(status, {name.replace("_", "-"): str(value) for name, value in headers.items()}, raw)


def err(message: Any = "no", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def google(message: str, status: str, *details: dict[str, Any], code: int = 429) -> dict[str, Any]:
    return err(message, code=code, status=status, details=list(details))


def violation(quota: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]}


def retry_info(delay: Any) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (err("no such field", code="bad"), "bad", "no such field"),
        (err("no such field", type="bad", code=None), "bad", "no such field"),
        (err("no", code=400, type=None), "400", "no"),
        (err("no", code="400"), "400", "no"),
        (err("no", code=True), "", "no"),
        (err("no", code={"a": 1}, type=["b"]), "", "no"),
        ({"message": "flat", "type": "t", "code": "c"}, "c", "flat"),
        ({"object": "error", "message": "Tool call id", "code": "3280"}, "3280", "Tool call id"),
        ({"error": "a plain text"}, "", "a plain text"),
        ({"error": ["a list of texts", "and more"]}, "", "a list of texts; and more"),
        ({"error": [{"message": "in a list"}]}, "", "in a list"),
        ({"errors": [{"message": "errors", "code": 7}]}, "7", "errors"),
        ([{"error": {"code": 429, "message": "Google's list"}}], "429", "Google's list"),
        ([], "", "[]"),
        ({}, "", "{}"),
        (
            {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "store"],
             "msg": "Extra inputs are not permitted"}]}, "type": "invalid_request_error"},
            "invalid_request_error", "body.store: Extra inputs are not permitted",
        ),
        ({"detail": [{"loc": ["body", 0], "msg": "required"}]}, "", "body.0: required"),
        ({"detail": "Not Found"}, "", "Not Found"),
        ({"error": "invalid_grant", "error_description": "expired"}, "", "expired"),
        ({"title": "Bad", "status": 400, "detail": "of RFC 9457"}, "400", "of RFC 9457"),
        ({"Message": "AWS", "__type": "ThrottlingException"}, "ThrottlingException", "AWS"),
        ({"error": {"error": {"message": "deep", "code": "d"}}}, "d", "deep"),
        (err("Provider returned error", metadata={"raw": "Too Many Requests"}), "",
         "Provider returned error: Too Many Requests"),
        (err("Provider returned error", metadata={"raw": '{"error":{"message":"busy"}}'}), "",
         "Provider returned error: busy"),
        ("a JSON text", "", "a JSON text"),
        (b"plain text: must be <= 4096 tokens", "", "plain text: must be <= 4096 tokens"),
        (b"", "", ""),
        (b"null", "", "null"),
        (b"12", "", "12"),
        (b'{"error": {"message": "NaN beside it", "x": NaN}}', "", "NaN beside it"),
        (b'{"error": {"message": "half \\ud83d a pair"}}', "", "half ? a pair"),
        (b'\xef\xbb\xbf{"error": "after a BOM"}', "", "after a BOM"),
        (b"\x82\xa5error\x81\xa7message\xafrate limit hit\x00", "", "error message rate limit hit"),
        (b"\x00\x01\x02", "", "3 bytes that are not text"),
        ("Überlast".encode("latin-1") * 10, "", "berlast " * 9 + "berlast"),
        (b"<html><head><title>502 Bad Gateway</title></head><body></body></html>", "", "502 Bad Gateway"),
        (b"<html><script>if (a<b) {}</script><h1>No &amp; no</h1><style>p{}</style></html>", "", "No & no"),
        (b"<!DOCTYPE html><body>cut <b>off", "", "cut off"),
        (b"<!DOCTYPE html>&#27;[31mred&#27;[0m", "", "[31mred[0m"),
        (b"<html></html>", "", "a page without text"),
    ],
)  # fmt: skip
def test_message_is_found_in_every_form_of_body(body: Any, code: str, text: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found_code, found = message_of(raw)
    assert (found_code, found.replace("\ufffd", "").strip()) == (code, text)


def test_message_of_json_that_was_cut_is_still_shown() -> None:
    body = json.dumps(err('the "prompt" is odd', prompt="x" * MAX_ERROR_BYTES)).encode()
    assert message_of(body)[1] == 'the "prompt" is odd'


HOSTILE = {
    "open tags": b"<" * 300_000,
    "open scripts": b"<script " * 40_000,
    "scripts without an end": b"<html>" + b"<script>" * 40_000,
    "nested": b"<a><b>" * 40_000,
    "closing": b"<html>" + b"</script" * 40_000,
    "comments": b"<html>" + b"<!--" * 80_000,
    "titles": b"<html><head>" + b"<title" * 40_000,
    "entities": b"<html>" + b"&" * 300_000,
    "escapes": b"\x1b[" * 150_000,
    "long escape": b"\x1b]" + b"0" * 300_000,
    "escapes of operating systems": b"\x1b]0;" * 80_000,
    "json": b"[" * 300_000,
    "objects": b'{"error":' * 30_000,
    "deep": b'{"error":' * 500 + b"1" + b"}" * 500,
    "deep lists": b"[" * 900 + b"]" * 900,
    "messages": b'{"message":' + b'"message" ' * 30_000,
    "backslashes": b'{"message":"' + b"\\" * 300_000,
    "spaces": b" " * 300_000,
    "numbers": b"retry " + b"1" * 300_000,
    "waits": b"try again in 1m" * 20_000,
    "words": b"model " * 50_000,
    "limits": b"exceeds " * 40_000,
    "accounts": b"account balance " * 20_000,
    "binary": bytes(range(256)) * 1200,
    "digits": b'{"code":' + b"9" * 60_000 + b"}",
    "many objects": b"[" + b'{"code":1,"details":[{}]},' * 2_000 + b"{}]",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("status", [400, 429, 500])
def test_hostile_body_is_cut_before_anything_looks_at_it(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    looked_at: list[int] = []

    def counted(function: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        return lambda raw: (looked_at.append(len(raw)), function(raw))[1]

    monkeypatch.setattr(bodies, "_json", counted(bodies._json))
    monkeypatch.setattr(bodies, "_from_bytes", counted(bodies._from_bytes))
    failure = failure_of(status, {}, body)
    assert looked_at
    assert max(looked_at) <= MAX_ERROR_BYTES
    assert len(failure.message) <= MAX_MESSAGE_CHARS + 40
    assert failure.message.isprintable()


@pytest.mark.parametrize("part", [b"<", b"<script ", b"<script>", b"</", b"<a>", b"&", b"\x1b[", b"<title"])
def test_page_is_read_in_one_pass(monkeypatch: pytest.MonkeyPatch, part: bytes) -> None:
    """Count the characters that searches run over: a page of any form is read a few times, not once a tag."""

    class Page(str):
        read = 0

        def find(self, *args: Any) -> int:
            found = str.find(self, *args)
            start = args[1] if len(args) > 1 else 0
            Page.read += (len(self) if found < 0 else found) - start
            return found

        def lower(self) -> Page:
            return Page(str.lower(self))

    page = Page("<html>" + (part * (60_000 // len(part))).decode())
    bodies._from_page(page)
    assert Page.read <= 4 * len(page)


@pytest.mark.parametrize("part", ["<", "<script ", "<script>", "<a", "</", "<!--", "&#", "\x1b["])
def test_page_of_four_times_the_size_takes_about_four_times_as_long(part: str) -> None:
    """With a search over the rest of the page for each tag it would take sixteen times as long."""

    def seconds(size: int) -> float:
        page = "<html>" + part * (size // len(part))
        times = []
        for _ in range(5):
            start = time.process_time()
            clean(bodies._from_page(page))
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(64_000) < 11 * max(seconds(16_000), 0.0005)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.sampled_from([200, 302, 400, 401, 402, 403, 404, 410, 422, 424, 429, 498, 499, 500, 503, 529]),
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "errors", "message", "code", "type", "status", "detail", "details", "metadata",
                     "raw", "headers", "retryDelay", "quotaId", "retry_after", "request_id", "loc", "msg"]
                ),
                inner,
                max_size=4,
            ),
            max_leaves=12,
        ).map(lambda data: json.dumps(data).encode()),
    ),
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-request-id", "location", "x-should-retry",
                         "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]),
        st.text(max_size=12),
    ),
)  # fmt: skip
def test_any_body_and_header_is_a_failure_that_can_be_shown(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    failure = failure_of(status, headers, body)
    for text in (failure.message, failure.request_id):
        assert not CONTROLS.search(text)
        assert len(text) <= 2 * MAX_MESSAGE_CHARS
    assert failure.retry_after is None or 0 <= failure.retry_after < 1e8
    try:
        answer = json.loads(body)
    except ValueError:
        return
    found = failure_in(answer, headers)
    assert found is None or not CONTROLS.search(found.message)
    assert 400 <= status_of(answer) < 600


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b\x07c\x7fd\x85e\x9bf", "a b c d e"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]52;c;aGk=\x1b\\text", "\\text"),
        ("\x1b[2Jtext\x1b[0m", "text"),
        ("\u202egnp.exe\u2028", "gnp.exe"),
        ("lone \ud83d surrogate", "lone ? surrogate"),
        ("  many \n\t spaces ", "many spaces"),
        ("x" * 600, "x" * 500 + " …"),
        ("ключ 🔑", "ключ 🔑"),
    ],
)
def test_text_of_a_server_is_shown_on_one_line_without_control_characters(text: str, shown: str) -> None:
    assert clean(text) == shown


STOPS = [
    # No credit, whatever the status.
    (402, err("Insufficient Balance", type="unknown_error", code="invalid_request_error"), {}, CREDIT),
    (402, b"", {}, CREDIT),
    (402, err("This request requires more credits, or fewer max_tokens", code=402), {}, CREDIT),
    (402, {"error": "You have exceeded your monthly included credits for Inference Providers"}, {}, CREDIT),
    (402, err("You have no quota", code="quota_exceeded"), {}, CREDIT),
    (429, err("You exceeded your current quota, please check your plan and billing details.",
              type="insufficient_quota", code="insufficient_quota"), {}, CREDIT),
    (429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}, {}, CREDIT),
    (400, err("Your credit balance is too low to access the Anthropic API.",
              type="invalid_request_error"), {}, CREDIT),
    (403, err("Insufficient balance"), {}, CREDIT),
    (429, err("Your account is out of credits"), {}, CREDIT),
    (403, err("The model m requires credits"), {}, CREDIT),
    (400, err("You have reached your specified API usage limits. You will regain access on 2026-12-01",
              type="invalid_request_error"), {}, CREDIT),
    (400, {"code": "Arrearage", "message": "Access denied"}, {}, CREDIT),
    (400, err("litellm.BudgetExceededError: Budget has been exceeded! Current cost: 10.5, Max budget: 10.0",
              type="budget_exceeded", code="400"), {}, CREDIT),
    (429, err("ExceededTokenBudget: Current spend for token: 7.2e-05; Max Budget for Token: 2e-07"), {}, CREDIT),
    (403, err("The free tier of the model has been exhausted.", code="AllocationQuota.FreeTierOnly"), {}, CREDIT),
    (429, err("账户余额不足，请充值", code="1113"), {}, CREDIT),
    (403, err("Your account is suspended: insufficient balance"), {}, CREDIT),
    # A quota of a day or longer.
    (429, err("您的账户已达到每日调用上限", code="1308"), {}, "renewed"),
    (429, err("Rate limit reached for m on tokens per day (TPD): Limit 100000, Used 99900. Please try again "
              "in 7m12s. Visit https://x.test/settings/billing", code="rate_limit_exceeded"), {}, "renewed"),
    (429, err("Rate limit reached on requests per day (RPD): Limit 200"), {}, "renewed"),
    (429, {"message": "You are using a Trial key, which is limited to 1000 API calls / month."}, {},
     "renewed"),
    (429, {"message": "Too many tokens per day, please wait before trying again."}, {}, "renewed"),
    (429, err("Daily limit reached"), {}, "renewed"),
    (400, err("Too many tokens per day"), {}, "renewed"),
    (429, err("Rate limit exceeded: free-models-per-day", code=429), {}, "renewed"),
    (429, google("You exceeded your current quota, please check your plan and billing details",
                 "RESOURCE_EXHAUSTED", violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
                 retry_info("34s")), {}, "renewed"),
    (429, google("Quota", "RESOURCE_EXHAUSTED", violation("GenerateRequestsPerMinutePerProject"),
                 violation("GenerateRequestsPerDayPerProject")), {}, "renewed"),
    (429, err("slow down"), {"x_ratelimit_remaining_requests_day": 0}, "renewed"),
    (403, err("Daily Limit Exceeded", status="dailyLimitExceeded"), {}, "renewed"),
    # A wrong key, whatever the status.
    (400, google("API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT",
                 {"reason": "API_KEY_INVALID"}, code=400), {}, KEY),
    (400, {"error": "Invalid API key"}, {}, KEY),
    (400, err("Incorrect API key provided: sk-12*********34."), {}, KEY),
    (422, {"detail": "invalid x-api-key"}, {}, KEY),
    (500, {"message": "Missing API key"}, {}, KEY),
    (401, b"", {}, KEY),
    (401, err("Invalid Authentication", type="invalid_authentication_error"), {}, KEY),
    (403, b"<html><body>Forbidden</body></html>", {}, KEY),
    (403, {"message": "The security token included in the request is expired"},
     {"x_amzn_errortype": "ExpiredTokenException"}, KEY),
    (400, {"message": "The security token included in the request is invalid."},
     {"x_amzn_errortype": "UnrecognizedClientException:http://internal.amazon.com/"}, KEY),
    (400, err("This organization has been disabled.", type="invalid_request_error"), {}, KEY),
    (403, err("Your account is suspended, please check your plan"), {}, KEY),
    (400, err("The project `p` was deactivated"), {}, KEY),
    (407, b"", {}, "HOST:PORT"),
    # An address or a model that answers nothing.
    (301, b"", {"location": "https://elsewhere.test/v1"}, "redirects"),
    (308, b"<html></html>", {}, "redirects"),
    (404, b"", {}, "base_url"),
    (404, err("The model `m` does not exist", code="model_not_found"), {}, "model's name"),
    (400, err("Model Not Exist"), {}, "model's name"),
    (400, {"message": "Invocation of model ID m with on-demand throughput isn't supported. Retry your "
                      "request with the ID of an inference profile"}, {}, "model's name"),
    (410, {"error": "no longer supported. Please use m2"}, {}, "retired"),
    (410, b"", {}, "retired"),
    (400, {"error": "Bad Request: Invalid state"}, {}, "paused"),
    (400, err("The model `m` has been decommissioned", code="model_decommissioned"), {}, "retired"),
    (503, {"error": "The endpoint is paused, ask a maintainer to restart it"}, {}, "paused"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "headers", "hint"), STOPS)
def test_what_every_request_would_meet_stops_the_run(
    status: int, body: Any, headers: dict[str, Any], hint: str
) -> None:
    failure = fail(status, body, **headers)
    assert (failure.stops_run, failure.retried, failure.congestion) == (True, False, False)
    assert hint in failure.hint
    expected = {KEY: "authentication", CREDIT: "rate_limit", "renewed": "rate_limit"}
    assert failure.kind == expected.get(hint, "authentication" if status == 407 else "invalid_request")


RETRIED = [
    (429, google("You exceeded your current quota, please check your plan and billing details",
                 "RESOURCE_EXHAUSTED", violation("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
                 retry_info("34s")), {}, 34.0),
    (429, google("You exceeded your current quota, please check your plan and billing details",
                 "RESOURCE_EXHAUSTED", retry_info("34.074824224s")), {}, 34.074824224),
    (429, google("Quota", "RESOURCE_EXHAUSTED", retry_info({"seconds": 12, "nanos": 5})), {}, 12.0),
    (429, [google("Quota exceeded", "RESOURCE_EXHAUSTED", retry_info("7s"))], {}, 7.0),
    (429, err("You exceeded your current quota, please check your plan and billing details"),
     {"retry_after": 20}, 20.0),
    (429, err("Rate limit reached for m on requests per min (RPM): Limit 3, Used 3. Please try again in 20s. "
              "Visit https://x.test/account/billing to add a payment method", code="rate_limit_exceeded"),
     {}, 20.0),
    (429, {"message": "You are using a Trial key, which is limited to 20 API calls / minute."}, {}, None),
    (429, {"message": "Too many tokens, please wait before trying again."}, {}, None),
    (429, err("limits: 10 per minute, 1000 per day"), {"retry_after": 5}, 5.0),
    (429, err("slow down"), {"x_ratelimit_remaining_requests": 0, "x_ratelimit_reset_requests": "12s"}, 12.0),
    (429, err("slow down"), {"x_ratelimit_remaining_tokens_minute": 0}, None),
    (429, err("slow down"), {"x_ratelimit_remaining": 0, "x_ratelimit_reset": "24h", "retry_after": 2}, 2.0),
    (429, b"", {}, None),
    (429, b"<html>Too many requests</html>", {"retry_after": "0.503"}, 0.503),
    (402, err("in-flight budget", metadata={"limit_source": "openrouter_in_flight_budget"}),
     {"retry_after": 3}, 3.0),
    (400, {"message": "Too many requests"},
     {"x_amzn_errortype": "ServiceQuotaExceededException:http://x/"}, None),
    (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}, {}, None),
    (403, err("Rate Limit Exceeded", status="rateLimitExceeded", code=403), {}, None),
    (429, err("Provider returned error", code=429, metadata={"headers": {"Retry-After": "9"}}), {}, 9.0),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "headers", "wait"), RETRIED)
def test_refusal_of_a_minute_is_retried_whatever_words_it_uses(
    status: int, body: Any, headers: dict[str, Any], wait: float | None
) -> None:
    failure = fail(status, body, **headers)
    assert (failure.kind, failure.retried, failure.congestion) == ("rate_limit", True, True)
    assert failure.retry_after == wait
    assert not failure.stops_run or status == 402, "after it was retried, an account without credit stops it"


def test_words_that_may_mean_no_credit_stop_the_run_only_after_it_was_retried() -> None:
    failure = fail(429, err("You exceeded your current quota, please check your plan and billing details"))
    assert (failure.kind, failure.retried, failure.stops_run) == ("rate_limit", True, True)
    assert "billing" in failure.hint


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (err("tokens per day (TPD). Please try again in 7m12s."), {}, "432 s"),
        (err("Daily limit"), {"retry_after": 600}, "600 s"),
        (err("no", code="insufficient_quota"), {"retry_after": 40_000}, "40000 s, about 11 h"),
    ],
)
def test_used_up_quota_says_when_to_come_back(body: Any, headers: dict[str, Any], said: str) -> None:
    failure = fail(429, body, **headers)
    assert failure.stops_run
    assert not failure.retried
    assert f"it asks to wait {said}" in failure.message


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (err("per day"), {"retry_after": 40_000}),
        (err("no"), {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "11h6m40s"}),
    ],
)
def test_long_wait_of_a_used_up_quota_is_left_to_the_time_allowed(body: Any, headers: dict[str, Any]) -> None:
    failure = fail(429, body, **headers)
    assert (failure.retried, failure.stops_run, failure.retry_after) == (True, True, 40_000)


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "retried"),
    [
        (498, err("blocked output"), {}, "content_filter", False),
        (400, err("Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
                  code="invalid_prompt"), {}, "content_filter", False),
        (400, err("the tool call of the user was disabled: " + "x" * 400 + " account suspended"), {},
         "invalid_request", False),
        (499, err("request cancelled"), {}, "server", True),
        (424, {"error": "Request failed during generation", "error_type": "generation"}, {}, "server", True),
        (424, {"message": "model"}, {"x_amzn_errortype": "ModelErrorException"}, "server", True),
        (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: "
                        "5000 `inputs` tokens and 20 `max_new_tokens`"}, {}, "context_length", False),
        (422, {"error": "`inputs` must have less than 1024 tokens. Given: 2000"}, {}, "context_length", False),
        (400, err("litellm.BadRequestError: litellm.ContextWindowExceededError: AnthropicException - prompt "
                  "is too long", type=None, param=None, code="400"), {}, "context_length", False),
        (500, err("litellm.ContextWindowExceededError: m", code="500"), {}, "context_length", False),
        (500, err("no", type="exceed_context_size_error"), {}, "context_length", False),
        (400, {"error": "the input length exceeds the context length"}, {}, "context_length", False),
        (400, err("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
         {}, "context_length", False),
        (400, {"message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
                          "maximum context length"}, {}, "context_length", False),
        (503, {"error": "Model m is currently loading", "estimated_time": 20.0}, {}, "server", True),
        (503, b"", {}, "server", True),
        (529, err("Overloaded", type="overloaded_error"), {}, "server", True),
        (400, err("After the system message, messages should alternate", code=400), {}, "invalid_request",
         False),
        (400, err("Invalid value: " + "x" * 400 + " invalid api key, no such model, insufficient balance"),
         {}, "invalid_request", False),
        (400, {"error": '"m" does not support thinking'}, {}, "invalid_request", False),
        (400, err("prompt is too long: it says 'once a day, at 5 / minute'"), {}, "context_length", False),
        (400, err("too many tokens: the prompt has 9000"), {}, "context_length", False),
        (400, err("no credit card numbers, please"), {}, "invalid_request", False),
        (418, b"", {}, "invalid_request", False),
        (409, b"", {}, "invalid_request", True),
        (408, b"", {}, "timeout", True),
        (504, b"", {}, "server", True),
    ],
)  # fmt: skip
def test_kind_follows_the_meaning_and_fails_the_row_alone(
    status: int, body: Any, headers: dict[str, Any], kind: str, retried: bool
) -> None:
    failure = fail(status, body, **headers)
    assert (failure.kind, failure.retried, failure.stops_run) == (kind, retried, False)


def test_loading_model_is_waited_for_as_long_as_it_says() -> None:
    for body in ({"error": "loading", "estimated_time": 20.0}, [{"error": "loading", "estimated_time": 20}]):
        assert fail(503, body).retry_after == 20


def test_should_retry_header_decides() -> None:
    assert not fail(429, b"", x_should_retry="false").retried
    assert fail(400, b"", x_should_retry="true").retried


def test_redirect_shows_no_login_and_no_query() -> None:
    message = fail(302, b"", location="https://u:pass@h.test/v1?key=sk-1#f").message
    assert "https://h.test/v1," in message
    assert "pass" not in message
    assert "sk-1" not in message


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("inf", None), ("nan", None), ("-5", None), ("", None), (" ", None), ("1e300", None), ("99999999", None),
        ("-inf", None), ("0x10", None), ("Wed, 21 Oct 9999 07:28:00 GMT", None), ("Wed, 99 Oct 99999", None),
        ("Thu, 01 Jan 1970 00:01:40 +9999", None), ("9" * 5000, None), ("0", 0.0), ("0.503", 0.503), ("12 ", 12.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0), ("Thursday, 01-Jan-70 00:01:40 GMT", 60.0),
    ],
)  # fmt: skip
def test_nonsense_in_retry_after_is_ignored(given: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": given}, now=40.0) == seconds
    for body in (err("no", retry_after=given), err("no", details=[{"retryDelay": given}])):
        assert fail(429, body).retry_after in (seconds, None)


@pytest.mark.parametrize(
    "value",
    ["inf", "nan", -1, 1e300, float("inf"), True, None, [5], {"a": 1}, {"seconds": "x"}, "soon", 10**400],
)
def test_nonsense_in_a_wait_of_the_body_is_ignored(value: Any) -> None:
    for key in ("retryDelay", "estimated_time", "retry_after"):
        failure = failure_of(429, {}, json.dumps({"error": {key: value}}).encode())
        assert failure.retry_after is None


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"retry_after": 2}, 2.0),
        ({"RetryAfterMs": 1500, "retry_after": 1}, 1.5),
        ({"wait_seconds": 3}, 3.0),
        ({"waitTime": "1m30s"}, 90.0),
        ({"retry-in": "250ms"}, 0.25),
        ({"retryDelay": {"seconds": "34"}}, 34.0),
        ({"Retry_At": "1970-01-01T00:00:00Z"}, None),
        ({"details": [{"seconds_to_wait": 4}]}, 4.0),
        ({"waiting_list": 5, "weight": 6, "": 7}, None),
    ],
)
def test_wait_in_the_body_has_any_of_the_names_in_use(error: Any, seconds: float | None) -> None:
    assert failure_of(429, {}, json.dumps({"error": error}).encode()).retry_after == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 7m12s.", 432.0),
        ("Please try again in 20s. Visit", 20.0),
        ("try again in 1h2m3.5s", 3723.5),
        ("Please retry after 5 seconds.", 5.0),
        ("Please retry in 34.07s", 34.07),
        ("please wait 2 minutes and 5 seconds", 125.0),
        ("try again in 500ms", 0.5),
        ("available again in 2 days", 172_800.0),
        ("try again in 3 models", None),
        ("Limit 100000, Used 5s", None),
        ("wait before trying again", None),
        ("try again later", None),
    ],
)
def test_wait_in_a_message(text: str, seconds: float | None) -> None:
    assert retry_after_of_text(text) == seconds


@pytest.mark.parametrize(
    "name",
    ["x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "mistral-correlation-id",
     "x-kong-request-id", "cf-ray"],
)  # fmt: skip
def test_request_id_is_found_short_and_printable(name: str) -> None:
    assert request_id_of({name: "req-1"}) == "req-1"
    assert fail(500, b"", **{name: "r\x1b[31m\x00" + "x" * 5000}).request_id == "r[31m" + "x" * 121


def test_request_id_in_the_body_is_used_where_no_header_has_one() -> None:
    assert fail(500, {"type": "error", "request_id": "req-2", "error": {}}).request_id == "req-2"
    assert fail(500, {"request_id": "req-2"}, request_id="req-1").request_id == "req-1"


def same(error: Any, headers: dict[str, str] | None = None) -> Failure:
    failure = failure_in({"id": None, "choices": None, "error": error}, headers or {})
    assert failure is not None
    assert failure.message.startswith("the answer is an error in spite of its status: ")
    return failure


@pytest.mark.parametrize(
    ("error", "kind", "retried", "stops_run"),
    [
        ({"message": "Provider returned error", "code": 429}, "rate_limit", True, False),
        ({"message": "Provider returned error", "code": "429"}, "rate_limit", True, False),
        ({"message": "Provider returned error", "code": 429.0}, "rate_limit", True, False),
        ({"message": "Provider returned error", "code": 502}, "server", True, False),
        ({"message": "Provider returned error", "code": 529}, "server", True, False),
        ({"message": "bad", "code": 400}, "invalid_request", False, False),
        ({"message": "requires more credits", "code": 402}, "rate_limit", False, True),
        ({"message": "no", "code": 401}, "authentication", False, True),
        ({"message": "no", "status": 503}, "server", True, False),
        ({"type": "overloaded_error", "message": "Overloaded"}, "server", True, False),
        ({"type": "rate_limit_error", "message": "slow"}, "rate_limit", True, False),
        ({"type": "authentication_error", "message": "invalid x-api-key"}, "authentication", False, True),
        ({"type": "permission_error", "message": "no"}, "authentication", False, True),
        ({"type": "insufficient_quota", "message": "no"}, "rate_limit", False, True),
        ({"type": "invalid_request_error", "message": "no"}, "invalid_request", False, False),
        ({"code": "context_length_exceeded", "message": "too long"}, "context_length", False, False),
        ({"code": "content_filter", "message": "no"}, "content_filter", False, False),
        ({"code": 8, "status": "RESOURCE_EXHAUSTED", "message": "no"}, "rate_limit", True, False),
        ({"code": "1302", "type": None, "message": "Rate limit reached"}, "rate_limit", True, False),
        ({"message": "Internal server error"}, "server", True, False),
        ({"error": {"code": 429}}, "rate_limit", True, False),
        ("Rate limit exceeded", "rate_limit", True, False),
        ("429 Too Many Requests", "rate_limit", True, False),
        ("Error code: 401 - no", "authentication", False, True),
        ("an error was encountered while running the model", "server", True, False),
        ("invalid api key", "authentication", False, True),
        ([{"code": 429}], "rate_limit", True, False),
        (["busy"], "server", True, False),
        (True, "server", True, False),
        (429, "rate_limit", True, False),
        ({"code": True}, "server", True, False),
        ({"code": 10**30, "message": []}, "server", True, False),
        ({"code": 0, "message": "it failed"}, "server", True, False),
    ],
)
def test_answer_that_says_it_failed_is_the_failure_of_its_status(
    error: Any, kind: str, retried: bool, stops_run: bool
) -> None:
    failure = same(error)
    assert (failure.kind, failure.retried, failure.stops_run) == (kind, retried, stops_run)
    if kind == "rate_limit" and retried:
        assert failure.congestion


def test_answer_that_failed_keeps_wait_and_ids() -> None:
    failure = same({"code": 429, "message": "slow"}, {"retry-after": "7", "x-request-id": "r-1"})
    assert (failure.retry_after, failure.request_id) == (7.0, "r-1")
    assert failure.message == "the answer is an error in spite of its status: slow", "it names no status"
    assert same({"code": 429, "details": [retry_info("34s")]}).retry_after == 34.0


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"choices": []}, {"error": None}, {"error": False}, {"error": ""}, {"error": {}}, {"error": []},
        {"error": 0}, {"error": "none"}, {"error": {"code": 0, "message": ""}}, {"error": [None]},
        {"error": {"code": 200, "message": "OK"}}, {"error": {"message": None, "code": None}},
        [], [{}], [1], None, 5, "error", True, {"object": "list"},
        {"message": {"content": "an error"}}, {"message": "fine"}, {"detail": 5}, {"errors": []}, {"success": True},
        {"id": "job-1", "status": "failed", "message": "Internal Server Error", "errors": [{"code": 500}]},
    ],
)  # fmt: skip
def test_answer_without_an_error_is_none(answer: Any) -> None:
    assert failure_in(answer, {}) is None


def test_answers_of_other_forms_that_failed() -> None:
    for answer in (
        [{"error": {"code": 429}}],
        {"object": "error", "code": 429, "message": "slow"},
        {"type": "error", "code": 429, "message": "slow"},
        {"code": 429, "message": "slow"},
        {"error_code": "429", "error_msg": "slow"},
        {"message": "Too many requests"},
        {"id": None, "success": False, "errors": [{"message": "rate limit"}]},
        {"errors": ["rate limit"]},
    ):
        failure = failure_in(answer, {})
        assert failure is not None
        assert failure.kind == "rate_limit"


def test_classify_of_a_backend_sees_the_error_and_the_status() -> None:
    seen: list[Any] = []

    def classify(status: int, headers: Any, body: bytes) -> Failure:
        seen.append((status, json.loads(body)))
        return failure_of(status, headers, body)

    answer = {"type": "error", "error": {"type": "overloaded_error"}, "request_id": "r", "x": "y" * 10}
    failure = failure_in(answer, {}, classify)
    assert failure is not None
    assert seen == [(529, {"error": {"type": "overloaded_error"}, "request_id": "r"})]
    assert failure.request_id == "r"


def test_random_bytes_never_raise() -> None:
    chance = random.Random(7)
    for _ in range(300):
        raw = chance.randbytes(chance.randrange(200))
        failure = failure_of(chance.choice([400, 429, 500]), {}, raw)
        assert re.fullmatch(r"status \d+(: .*)?", failure.message)
