"""What AWS sends when something is wrong, and what people reported of other tools: each with what is right for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.http import Failure
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_bedrock import BedrockLLM
from stillhouse_bedrock.failures import bedrock_failure

from .conftest import CHAT, KEYS, answer, refused

ON_DEMAND = (
    "Invocation of model ID anthropic.claude-test-v1:0 with on-demand throughput isn’t supported. Retry your "
    "request with the ID or ARN of an inference profile that contains this model."
)


def failure(status: int, name: str, message: str, **more: Any) -> Failure:
    reply = refused(status, name, message, **more)
    return bedrock_failure(status, reply.headers, json.dumps(reply.body).encode())


@pytest.mark.parametrize(
    ("status", "name", "message", "kind", "then"),
    [
        (429, "ThrottlingException", "Too many requests, please wait before trying again.", "rate_limit", "retried"),
        (429, "ThrottlingException", "Too many tokens, please wait before trying again.", "rate_limit", "retried"),
        (429, "ThrottlingException", "Too many tokens per day, please wait before trying again.", "rate_limit", "stops"),
        (429, "ModelNotReadyException", "The model is not ready for inference.", "server", "retried"),
        (408, "ModelTimeoutException", "Processing time exceeded the model timeout length.", "timeout", "retried"),
        (424, "ModelErrorException", "The system encountered an unexpected error.", "server", "retried"),
        (500, "InternalServerException", "The system encountered an unexpected error.", "server", "retried"),
        (503, "ServiceUnavailableException", "Bedrock is unable to process your request.", "server", "retried"),
        (503, "ServiceUnavailableException", "Too many connections, please wait.", "server", "retried"),
        (400, "ServiceQuotaExceededException", "Your request exceeds the service quota.", "rate_limit", "retried"),
        (400, "ServiceQuotaExceededException", "Too many tokens, please wait before trying again.", "rate_limit", "retried"),
        (400, "ThrottlingException", "Too many input tokens, please wait before trying again.", "rate_limit", "retried"),
        (400, "ThrottlingException", "Too many tokens per day, please wait before trying again.", "rate_limit", "stops"),
        (400, "ValidationException", "The guardrail identifier or version provided in the request does not exist.", "invalid_request", "stops"),
        (404, "ResourceNotFoundException", "The guardrail identifier or version provided in the request does not exist.", "invalid_request", "stops"),
        (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.", "authentication", "stops"),
        (403, "AccessDeniedException", "User: arn:aws:iam::1:user/a is not authorized to perform: bedrock:InvokeModel", "authentication", "stops"),
        (403, "AccessDeniedException", "Bearer Token has expired", "authentication", "stops"),
        (403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid.", "authentication", "stops"),
        (403, "AccessDeniedException", "You invoked an unsupported model or your request did not allow prompt caching.", "authentication", "stops"),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid.", "authentication", "stops"),
        (403, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided.", "authentication", "stops"),
        (403, "MissingAuthenticationTokenException", "Missing Authentication Token", "authentication", "stops"),
        (403, "ExpiredTokenException", "The security token included in the request is expired", "authentication", "stops"),
        (400, "ExpiredTokenException", "The security token included in the request is expired", "authentication", "stops"),
        (404, "ResourceNotFoundException", "Model use case details have not been submitted for this account.", "invalid_request", "stops"),
        (404, "ResourceNotFoundException", "This model version has reached the end of its life.", "invalid_request", "stops"),
        (404, "ResourceNotFoundException", "Could not resolve the foundation model from the model identifier.", "invalid_request", "stops"),
        (400, "ValidationException", ON_DEMAND, "invalid_request", "stops"),
        (400, "ValidationException", ON_DEMAND.replace("’", "'"), "invalid_request", "stops"),
        (400, "ValidationException", "The provided model identifier is invalid.", "invalid_request", "stops"),
        (400, "ValidationException", "Operation not allowed", "authentication", "stops"),
        (400, "ValidationException", "Input is too long for requested model.", "context_length", ""),
        (400, "ValidationException", "The model returned the following errors: prompt is too long: 9 tokens > 5 maximum", "context_length", ""),
        (400, "ValidationException", "The text field in the ContentBlock object at messages.0.content.0 is blank.", "invalid_request", ""),
        (400, "ValidationException", "The toolConfig field must be defined when using toolUse and toolResult content blocks.", "invalid_request", ""),
    ],
)  # fmt: skip
def test_errors_are_what_they_mean(status: int, name: str, message: str, kind: str, then: str) -> None:
    found = failure(status, name, message)
    assert (found.kind, found.retried, found.stops_run) == (kind, then == "retried", then == "stops")
    assert message in found.message
    assert found.request_id == "5b3b2a57-0000-4000-8000-00000000e441"


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("ValidationException", ON_DEMAND, "inference profile"),
        ("ValidationException", "The provided model identifier is invalid.", "the region has the model"),
        ("ResourceNotFoundException", "Model use case details have not been submitted.", "form"),
        (
            "AccessDeniedException",
            "You don't have access to the model with the specified model ID.",
            "request access",
        ),
        ("AccessDeniedException", "Your account is currently being verified.", "AWS account"),
        ("AccessDeniedException", "Model access is denied due to INVALID_PAYMENT_INSTRUMENT: A valid payment instrument must be provided.", "AWS account"),
        ("InvalidSignatureException", "Credential should be scoped to a valid region, not us-east-1.", "set region"),
        ("ValidationException", "The guardrail identifier or version provided does not exist.", "guardrail_config"),
        ("ValidationException", "Malformed input request: #: extraneous key [top_k] is not permitted", "extra_body"),
        ("ValidationException", "Conversation blocks and tool result blocks cannot be provided in the same turn.", "assistant message"),
        ("AccessDeniedException", "User: x is not authorized to perform: bedrock:InvokeModel", "IAM"),
        ("AccessDeniedException", "Your request did not allow prompt caching.", "prompt_caching"),
        ("AccessDeniedException", "Bearer Token has expired", "AWS_BEARER_TOKEN_BEDROCK"),
        ("ExpiredTokenException", "The security token included in the request is expired", "log in again"),
        ("com.amazon.coral.service#UnrecognizedClientException", "The security token is invalid.", "secret"),
        ("InvalidSignatureException", "The request signature we calculated does not match.", "secret"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(name: str, message: str, hint: str) -> None:
    assert hint in failure(403, name, message).hint


def test_names_near_an_unknown_model_are_looked_for_and_not_near_a_known_one() -> None:
    assert failure(400, "ValidationException", "The provided model identifier is invalid.").unknown_model
    assert not failure(400, "ValidationException", ON_DEMAND).unknown_model


def test_throttling_names_the_limit_that_the_quota_is_reserved_by() -> None:
    assert "max_new_tokens" in failure(429, "ThrottlingException", "Too many tokens, please wait.").hint


def test_name_of_an_error_may_be_in_the_body() -> None:
    body = json.dumps({"__type": "com.amazonaws#ModelNotReadyException", "message": "wait"}).encode()
    found = bedrock_failure(429, {"X-Other": "x"}, body)
    assert (found.kind, found.retried, found.congestion) == ("server", True, False)


@pytest.mark.parametrize(
    ("original", "retried"), [(400, False), (422, False), (429, True), (500, True), (None, True)]
)
def test_model_that_refuses_an_input_is_not_asked_again(original: int | None, retried: bool) -> None:
    found = failure(424, "ModelErrorException", "it failed", originalStatusCode=original, resourceName="m")
    assert (found.retried, found.kind) == (retried, "server" if retried else "invalid_request")


@pytest.mark.parametrize("seconds", [-1500, 1500, 0, None])
@pytest.mark.parametrize(
    "message",
    [
        "Signature expired: 20261128T100000Z is now earlier than 20261128T110000Z (20261128T110500Z - 5 min.)",
        "Signature not yet current: 20261128T120000Z is still later than 20261128T110500Z (20261128T110000Z + 5 min.)",
    ],
)
def test_wrong_clock_is_told(message: str, seconds: int | None) -> None:
    date = {} if seconds is None else {"Date": formatdate(time.time() - seconds, usegmt=True)}
    headers = {"x-amzn-ErrorType": "InvalidSignatureException", **date}
    found = bedrock_failure(403, headers, json.dumps({"message": message}).encode())
    assert (found.kind, found.stops_run, found.retried) == ("authentication", True, False)
    assert "clock" in found.hint
    expected = {-1500: "25 minutes behind", 1500: "25 minutes ahead of"}.get(seconds or 0, "disagrees")
    assert expected in found.message


@pytest.mark.parametrize("date", ["yesterday", "", "\x00", "Wed, 99 Foo 2026"])
def test_date_that_is_none_does_no_harm(date: str) -> None:
    headers = {"date": date, "x-amzn-errortype": "InvalidSignatureException"}
    assert "disagrees" in bedrock_failure(403, headers, b'{"message": "Signature expired: x"}').message


@pytest.mark.parametrize(
    "body", [b"", b"\x00\xff", b"<html>no</html>", b"[1]", b'{"message": 5}', b"5", b"null"]
)
@pytest.mark.parametrize("status", [400, 403, 424, 429, 503])
def test_body_of_any_kind_is_a_failure(status: int, body: bytes) -> None:
    assert bedrock_failure(status, {}, body).message.startswith(f"status {status}")


# Through the LLM


@pytest.mark.parametrize(
    "reply",
    [
        refused(429, "ThrottlingException", "Too many tokens, please wait before trying again."),
        refused(429, "ModelNotReadyException", "The model is not ready for inference."),
        refused(408, "ModelTimeoutException", "The request took too long to process."),
        refused(424, "ModelErrorException", "The system encountered an unexpected error."),
        refused(400, "ServiceQuotaExceededException", "Your request exceeds the service quota."),
        refused(503, "ServiceUnavailableException", "Bedrock is unable to process your request."),
        Reply(200, {"message": "Too many requests"}, {"x-amzn-errortype": "ThrottlingException"}),
    ],
)
def test_failure_of_a_moment_is_tried_again(
    make: Callable[..., BedrockLLM], server: ScriptedServer, at_once: None, reply: Reply
) -> None:
    server.script = [reply, reply]
    assert make(**KEYS).generate_outputs([CHAT])[0]["generations"] == ["The Ucayali."]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "reply",
    [
        refused(400, "ValidationException", ON_DEMAND),
        refused(400, "ValidationException", "The provided model identifier is invalid."),
        refused(
            403, "AccessDeniedException", "You don't have access to the model with the specified model ID."
        ),
        refused(429, "ThrottlingException", "Too many tokens per day, please wait before trying again."),
    ],
)
def test_failure_of_every_row_stops_the_run(
    make: Callable[..., BedrockLLM], server: ScriptedServer, reply: Reply
) -> None:
    llm = make(max_concurrency=2, **KEYS)

    def respond(path: str, body: Any) -> Any:
        return {"modelSummaries": []} if body is None else answer()

    server.respond, server.always = respond, reply
    with pytest.raises(GenerationError) as caught:
        list(llm.iter_outputs([CHAT] * 300, on_error="yield"))
    assert caught.value.stops_run
    assert sum(request.path.endswith("/converse") for request in server.requests) <= 2


@pytest.mark.parametrize(
    "given",
    [
        {"reasoning_effort": "minimal"},
        {"tool_choice": "required"},
        {"tools": [{"function": {"name": "a b"}}]},
    ],
)
def test_what_no_request_can_have_is_refused_before_the_first_row(
    make: Callable[..., BedrockLLM], server: ScriptedServer, given: Any
) -> None:
    with pytest.raises((ConfigurationError, UnsupportedError), match=r"minimal|requires tools|a b"):
        list(make(**KEYS).iter_outputs([CHAT], on_error="yield", **given))
    assert not server.requests


def test_no_prefix_of_a_profile_is_guessed(make: Callable[..., BedrockLLM], server: ScriptedServer) -> None:
    make(model="anthropic.claude-test-v1:0", region="eu-west-1", **KEYS).generate_outputs([CHAT])
    assert server.requests[0].path == "/model/anthropic.claude-test-v1%3A0/converse"


def test_row_of_blanks_fails_alone(make: Callable[..., BedrockLLM], server: ScriptedServer) -> None:
    blank: Any = [{"role": "user", "content": " \n"}]
    results = dict(make(**KEYS).iter_outputs([CHAT, blank, CHAT], on_error="yield"))
    assert isinstance(results[1], GenerationError)
    assert "blank" in str(results[1])
    assert [results[index]["generations"] for index in (0, 2)] == [["The Ucayali."]] * 2
    assert len(server.requests) == 2
    assert not any(" \n" in json.dumps(request.body) for request in server.requests)


def test_two_results_of_tools_are_one_message(
    make: Callable[..., BedrockLLM], server: ScriptedServer
) -> None:
    calls = [
        {"id": f"tooluse_{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for number in (1, 2)
    ]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": call["id"]} for call in calls]
    chat: Any = [*CHAT, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
    make(**KEYS).generate_outputs([chat])
    body = server.requests[0].body
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    found = [block["toolResult"]["toolUseId"] for block in body["messages"][2]["content"]]
    assert found == ["tooluse_1", "tooluse_2"]
    assert body["toolConfig"]["tools"]  # which a history with calls must have


def test_answer_that_begins_with_reasoning(make: Callable[..., BedrockLLM], server: ScriptedServer) -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "hmm", "signature": "c2ln"}}}
    server.respond = lambda path, body: answer(thought, {"text": "Hi"})
    (output,) = make(**KEYS).generate_outputs([CHAT])
    assert (output["generations"], output["reasoning"]) == (["Hi"], ["hmm"])
    assert "thinking_blocks" not in output


def test_schema_is_held_to(make: Callable[..., BedrockLLM], server: ScriptedServer) -> None:
    form: Any = {"format": "json", "schema": {"type": "object", "properties": {"river": {"type": "string"}}}}
    texts = iter(["The Ucayali.", '{"river": "Ucayali"}'])
    server.respond = lambda path, body: answer({"text": next(texts)})
    (output,) = make(structured_output=form, **KEYS).generate_outputs([CHAT])
    assert json.loads(output["generations"][0] or "") == {"river": "Ucayali"}
    assert len(server.requests) == 2


def test_real_address_of_another_wire(make: Callable[..., BedrockLLM], aimock: Any) -> None:
    """A server that speaks the Converse API, by somebody else; ids with a colon find their way."""
    aimock.reply("longest river", "The Ucayali.", usage={"input_tokens": 9, "output_tokens": 4})
    llm = make(base_url=aimock.url, model="anthropic.claude-v1:0", **KEYS)
    (output,) = llm.generate_outputs([CHAT], max_new_tokens=20)
    assert (output["generations"], output["finish_reasons"]) == (["The Ucayali."], ["stop"])
    aimock.fail_once(503)
    assert make(base_url=aimock.url, **KEYS).generate_outputs([CHAT])[0]["generations"] == ["The Ucayali."]
    (first, *_) = aimock.requests()
    assert first["path"].startswith("/model/anthropic.claude-v1")
