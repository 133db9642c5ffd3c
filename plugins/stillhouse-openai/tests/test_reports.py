"""What people reported of other tools on this wire: each a shape that a server sends, and what is right for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_openai import AzureOpenAILLM, GroqLLM, OpenAILLM
from stillhouse_openai.streams import answer_of_events

CHAT: Any = [{"role": "user", "content": "hello"}]
FAST: dict[str, Any] = {"retry_timeout": 30, "max_concurrency": 1}


def ask(make: Any, **fields: Any) -> Any:
    """The output, or the error, of one chat."""
    with make(**{**FAST, **fields}) as llm:
        try:
            ((_, result),) = llm.iter_outputs([CHAT], on_error="yield")
        except GenerationError as error:  # it stops a run
            return error
    return result


# An answer with a good status that says that it failed


@pytest.mark.parametrize(
    "body",
    [
        {"id": None, "choices": None, "error": {"message": "Provider returned error", "code": 429}},
        {"choices": [], "error": {"message": "Provider returned error", "code": "502"}},
        {"code": 429, "message": "Too Many Requests", "type": "rate_limit"},
        {"code": "rate_limit_exceeded", "message": "slow down"},
        {"status": 503, "message": "no instance is free"},
        {"statusCode": 500, "msg": "it broke"},
        {"error_code": 429, "error_msg": "slow down"},
        {"detail": "Internal Server Error"},
        {"success": False, "errors": [{"code": 500, "message": "it broke"}]},
        {"success": False, "message": "it broke"},
        {"errors": [{"code": 429, "message": "slow down"}]},
        {"errors": ["the model is overloaded"]},
        {"type": "error", "message": "slow down", "code": "rate_limit_exceeded"},
        {"object": "error", "message": "slow down", "code": 429},
        {"status": "error", "message": "it broke"},
        {"choices": [{"index": 0, "message": {"content": ""}, "error": {"code": 502, "message": "no"}}]},
        {"choices": [{"index": 0, "message": {"content": "hal"}, "finish_reason": "error"}]},
        {"choices": [{"index": 0, "finish_reason": "insufficient_system_resource", "message": {}}]},
    ],
)
def test_answer_that_says_it_failed_is_tried_again(make: Any, server: Any, body: Any) -> None:
    server.script = [body, server.chat("fine")]
    result = ask(make)
    assert not isinstance(result, GenerationError), result
    assert (result["generations"], len(server.bodies)) == (["fine"], 2)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": 401, "message": "no"}, "authentication"),
        (
            {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]},
            "authentication",
        ),
        ({"message": "Incorrect API key provided"}, "authentication"),
        ({"code": "insufficient_quota", "message": "no"}, "rate_limit"),
        ({"errors": [{"message": "Insufficient Balance"}]}, "rate_limit"),
        ({"code": 400, "message": "maximum context length is 10 tokens"}, "context_length"),
        ({"error": {"message": "blocked", "code": "content_filter"}}, "content_filter"),
    ],
)
def test_answer_that_says_why_it_failed_is_paid_for_once(
    make: Any, server: Any, body: Any, kind: str
) -> None:
    server.script = [body] * 3
    result = ask(make)
    assert isinstance(result, GenerationError)
    assert (result.kind, len(server.bodies)) == (kind, 1)


@pytest.mark.parametrize("odd", [{}, [], [1], {"a": []}, 1.5, True, None])
def test_finish_reason_of_any_type_is_unknown(make: Any, server: Any, odd: Any) -> None:
    server.script = [server.chat("fine", finish=odd)]
    result = ask(make)
    assert (result["generations"], result["finish_reasons"]) == (["fine"], [None])


# Streams that nobody asked for


def events(*data: Any, end: bytes = b"") -> bytes:
    lines = (item if isinstance(item, str) else json.dumps(item) for item in data)
    return "".join(f"data: {line}\n\n" for line in lines).encode() + end


PIECE = {"choices": [{"index": 0, "delta": {"content": "he"}}]}


def test_stream_that_was_cut_in_an_event_is_tried_again(make: Any, server: Any) -> None:
    server.script = [events(PIECE, end=b'data: {"choi'), server.chat("fine")]
    assert ask(make)["generations"] == ["fine"]
    assert len(server.bodies) == 2


def test_last_event_that_was_cut_after_the_answer_costs_nothing(make: Any, server: Any) -> None:
    done = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    server.script = [events(PIECE, done, end=b'data: {"usage"')]
    assert ask(make)["generations"] == ["he"]
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "body",
    [
        events({"type": "message_start", "message": {}}, {"type": "message_stop"}),
        events({"token": {"text": "he"}}),
        events("he", "llo"),
        json.dumps({"choices": []}).encode() * 2,
        b'{"choices": [{"message": {"content": "x"}}]} trailing words',
        b'{"choices": [{"message": {"content": "x"}}]}\n\x00\x00 \x00',
    ],
)
def test_answer_of_another_form_is_paid_for_once(make: Any, server: Any, body: bytes) -> None:
    server.script = [body] * 3
    result = ask(make)
    assert isinstance(result, GenerationError)
    assert (result.kind, len(server.bodies)) == ("server", 1)
    assert result.hint


@pytest.mark.parametrize("given", [[{}], [{"type": "message_start"}, "[DONE]"], [{"usage": {}}]])
def test_stream_of_another_api_is_none(given: list[Any]) -> None:
    with pytest.raises(ValueError, match="choices"):
        answer_of_events(given, ended=True)


# Offline batches


def line(body: Any, status: Any = 200, error: Any = None) -> Any:
    response = {"status_code": status, "request_id": "r", "body": body}
    return OpenAILLM(model="m").batch_result({"custom_id": "x", "response": response, "error": error})


@pytest.mark.parametrize(
    ("body", "kind", "again"),
    [
        ({"error": {"code": 429, "message": "Provider returned error"}, "choices": None}, "rate_limit", True),
        ({"choices": [{"error": {"code": 502, "message": "no"}, "message": {}}]}, "server", True),
        ({"choices": [{"finish_reason": "error", "message": {"content": "hal"}}]}, "server", True),
        ({"error": {"code": "insufficient_quota", "message": "no"}}, "rate_limit", False),
        ({"code": 400, "message": "bad"}, "invalid_request", False),
        ({"detail": "Internal Server Error"}, "server", True),
    ],
)
def test_line_with_a_good_status_that_says_it_failed(body: Any, kind: str, again: bool) -> None:
    found = line(body)
    assert found.answer is None
    assert (found.failure.kind, found.failure.retried) == (kind, again)


@pytest.mark.parametrize("body", [{}, None, [], ""])
def test_line_of_a_lost_answer_is_sent_again(body: Any) -> None:
    for status in (0, "0", None, 200):
        found = line(body, status)
        assert (found.failure.kind, found.failure.retried) == ("server", True)


@pytest.mark.parametrize("cls", [OpenAILLM, GroqLLM])
def test_good_line_is_an_answer(cls: Any) -> None:
    body = {"choices": [{"finish_reason": "length", "message": {"content": "cut"}}]}
    for status in (200, "200", 200.0, 201, None):
        given = {"custom_id": "x", "response": {"status_code": status, "body": body}, "error": None}
        assert cls(model="m").batch_result(given).answer == body


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"status": "error", "status_details": "line 3\x1b[2J"}, "line 3"),
        ({"status": "failed", "error": {"message": "bad line"}}, "bad line"),
        ({"status": "deleted"}, "deleted"),
        ({"status": "error", "status_details": {"x": ["y"] * 9999}}, "y"),
    ],
)
def test_azure_s_words_about_a_file_are_mistrusted(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, said: Any, shown: str
) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("stillhouse_openai.azure._FILE_SECONDS", 0)
    server.script = [{"id": "../file?x"}, {"status": "pending"}, {"purpose": "batch", **said}]
    llm = AzureOpenAILLM(model="m", base_url=server.origin, api_key="key", api_version="1")
    with llm, pytest.raises(GenerationError) as caught:
        llm.offline_batch_generate([CHAT])
    assert shown in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000
    assert all("/../" not in path and "..%2F" not in path for path in server.paths[1:])
    assert "%2E%2E%2Ffile%3Fx" in server.paths[1]


@pytest.mark.parametrize("odd", [[5], "x", {}, {"status": {}}, {"status": None}, 5])
def test_what_is_no_file_ends_the_wait_for_it(
    server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, odd: Any
) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("stillhouse_openai.azure._FILE_SECONDS", 0)
    server.script = [{"id": "file-1"}, odd]
    llm = AzureOpenAILLM(model="m", base_url=server.origin, api_key="key", api_version="1")
    with llm, pytest.raises(GenerationError, match="something else than a file"):
        llm.offline_batch_generate([CHAT])


@pytest.mark.parametrize("fields", [{"error": "no such model"}, {"error": {"code": 429, "message": "no"}}])
def test_error_of_a_job_is_no_failure_of_the_request_for_it(
    make: Any, server: Any, fields: dict[str, Any]
) -> None:
    answer = {"id": "batch_1", "status": "FAILED", "input_file_id": "file-1", **fields}
    server.script = [answer, {"job": answer}]
    with make() as llm:
        for _ in range(2):
            llm.run_on_loop(llm.request("GET", "batches/batch_1"))
    assert len(server.bodies) == 2
