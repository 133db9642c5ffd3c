"""What people reported of other tools on this wire: each a shape that a server sends, and what is right for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse.http import UnclearError
from stillhouse_anthropic import AnthropicLLM
from stillhouse_anthropic.streams import answer_of_events

CHAT: Any = [{"role": "user", "content": "hello"}]
FINE = {"type": "message", "content": [{"type": "text", "text": "fine"}], "stop_reason": "end_turn"}


def events(*data: Any, end: bytes = b"") -> bytes:
    return "".join(f"data: {json.dumps(item)}\n\n" for item in data).encode() + end


BEGIN: Any = {"type": "message_start", "message": {"type": "message", "content": []}}
PIECE: Any = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "he"}}


@pytest.mark.parametrize(
    "body",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"type": "error", "message": "Overloaded", "code": 529},
        {"error": {"type": "api_error", "message": "Internal server error"}},
        {"code": 429, "message": "Too Many Requests"},
        {"message": "Too many requests, please wait before trying again."},
        {"detail": "Service Unavailable"},
        {"success": False, "message": "it broke"},
        events({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        events(BEGIN, PIECE, {"type": "error", "error": {"type": "api_error", "message": "no"}}),
        events(BEGIN, PIECE),
        events(BEGIN, PIECE, end=b'data: {"type": "mess'),
    ],
)
def test_answer_that_says_it_failed_is_tried_again(make: Any, script: Any, body: Any) -> None:
    script.reply(body)
    script.reply(FINE)
    (output,) = make(retry_timeout=30).generate_outputs([CHAT])
    assert (output["generations"], len(script.requests)) == (["fine"], 2)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"type": "error", "error": {"type": "authentication_error", "message": "no"}}, "authentication"),
        ({"type": "error", "error": {"type": "billing_error", "message": "no"}}, "rate_limit"),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, "invalid_request"),
        ({"message": "invalid x-api-key"}, "authentication"),
        (events({"choices": [{"delta": {"content": "he"}}]}), "server"),
        (json.dumps(FINE).encode() * 2, "server"),
    ],
)
def test_answer_that_would_come_again_is_paid_for_once(make: Any, script: Any, body: Any, kind: str) -> None:
    script.reply(body)
    with pytest.raises(GenerationError) as caught:
        make(retry_timeout=30).generate_outputs([CHAT])
    assert (caught.value.kind, len(script.requests)) == (kind, 1)


@pytest.mark.parametrize("given", [[{}], [{"choices": []}, "[DONE]"]])
def test_stream_of_another_api_is_none(given: list[Any]) -> None:
    with pytest.raises(ValueError, match="type"):
        answer_of_events(given, ended=True)


@pytest.mark.parametrize(
    ("message", "kind", "again"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, "server", True),
        ({"error": {"type": "rate_limit_error", "message": "no"}}, "rate_limit", True),
        ({"error": {"type": "invalid_request_error", "message": "no"}}, "invalid_request", False),
    ],
)
def test_line_that_succeeded_with_an_error_in_it(message: Any, kind: str, again: bool) -> None:
    found = AnthropicLLM(model="m").batch_result({"result": {"type": "succeeded", "message": message}})
    assert found.answer is None
    assert found.failure is not None
    assert (found.failure.kind, found.failure.retried) == (kind, again)


@pytest.mark.parametrize(
    ("answer", "kind", "unclear"),
    [
        ({"type": "error", "error": {"type": "billing_error", "message": "no"}}, "rate_limit", False),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}},
            "invalid_request",
            False,
        ),
        ({"type": "error", "error": {"type": "api_error", "message": "no"}}, "server", True),
        ({"type": "error"}, "server", True),
        ([], "server", True),
        ({"id": 5, "error": {"type": "billing_error"}}, "server", True),
    ],
)
def test_batch_that_is_refused_with_a_good_status(make: Any, answer: Any, kind: str, unclear: bool) -> None:
    with pytest.raises(GenerationError) as caught:
        make()._job(answer)
    assert (caught.value.kind, isinstance(caught.value, UnclearError)) == (kind, unclear)
