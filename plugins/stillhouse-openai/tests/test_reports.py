"""What people reported of other tools on this wire: each a shape that a server sends, and what is right for it."""

from __future__ import annotations

import base64
import json
import traceback
from typing import Any
from urllib.parse import quote

import pytest

from stillhouse import GenerationError, OfflineBatchNotFinishedError
from stillhouse_openai import AzureOpenAILLM, GroqLLM, OpenAILLM
from stillhouse_openai.streams import answer_of_events

CHAT: Any = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
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


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("MAX_TOKENS", "length"), ("model_length", "length"), ("eos", "stop"), ("end_turn", "stop"),
        ("function_call", "tool_calls"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
        ("FINISH_REASON_FROM_2027", "finish_reason_from_2027"), ("", None),
    ],
)  # fmt: skip
def test_finish_reasons_of_other_servers_are_the_api_s(make: Any, server: Any, said: str, meant: Any) -> None:
    server.script = [server.chat("fine", finish=said)]
    assert ask(make)["finish_reasons"] == [meant]


def test_answer_that_another_word_says_was_cut_off_is_truncated(make: Any, server: Any) -> None:
    server.script = [server.chat('{"a": 1', finish="MAX_TOKENS")] * 3
    result = ask(make, structured_output={"format": "json", "schema": SCHEMA})
    assert (result.kind, len(server.bodies)) == ("truncated", 1)


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
    with llm, pytest.raises(GenerationError, match="did not answer with a file"):
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


# Secrets that a server quotes

TOKEN = "Ux8kJ2hG5fD7sA1lZ9mN"


@pytest.mark.parametrize("where", ["call", "field", "nested", "headers"])
def test_secret_of_a_parameter_is_masked_where_a_server_quotes_it(make: Any, server: Any, where: str) -> None:
    given: dict[str, Any] = {"user_token": TOKEN}
    if where == "nested":
        given = {"options": [{"deep": {"api_key": TOKEN}}]}
    elif where == "headers":
        given = {"extra_headers": {"x-tenant": TOKEN}}
    server.script = [(400, {"error": {"message": f"no {TOKEN[2:14]} and {quote(TOKEN)}", "code": TOKEN}})]
    fields = {"generation_kwargs": {"extra_body": given}} if where == "field" else {}
    arguments = {} if where == "field" else {"extra_body": given}
    with make(**FAST, **fields) as llm:
        ((_, error),) = llm.iter_outputs([CHAT], on_error="yield", **arguments)
    assert isinstance(error, GenerationError)
    assert server.bodies[0].items() >= given.items()
    told = "".join(traceback.format_exception(error))
    assert not any(TOKEN[start : start + 8] in told for start in range(len(TOKEN) - 7)), told


def test_login_of_a_proxy_is_masked_where_the_proxy_quotes_it(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = server.origin.removeprefix("http://")
    monkeypatch.setenv("http_proxy", f"http://user:{TOKEN}@{place}")
    encoded = base64.b64encode(f"user:{TOKEN}".encode()).decode()
    server.script = [(400, {"error": {"message": f"no Basic {encoded}, and {TOKEN}"}})]
    llm = OpenAILLM(model="m", base_url="http://api.example.com/v1", api_key="key", **FAST)
    with llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert server.headers[0]["proxy-authorization"] == f"Basic {encoded}"
    assert TOKEN not in caught.value.message
    assert not any(encoded[start : start + 8] in caught.value.message for start in range(8, len(encoded) - 8))


def test_login_of_the_address_authorises_without_a_key(server: Any) -> None:
    address = server.origin.replace("://", f"://user:{TOKEN}@")
    with OpenAILLM(model="m", base_url=f"{address}/v1") as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["generations"] == ["fine"]
    expected = base64.b64encode(f"user:{TOKEN}".encode()).decode()
    assert server.headers[0]["authorization"] == f"Basic {expected}"


def test_secrets_in_the_results_of_a_batch_are_masked(
    make: Any, server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
    job = {"id": "batch_1", "input_file_id": "file-1", "status": f"odd {TOKEN}"}
    done = {**job, "status": "completed", "output_file_id": "out-1"}
    arguments = {"extra_body": {"user_token": TOKEN[::-1]}}
    server.script = [{"id": "file-1"}, job, job]
    with make(api_key=TOKEN) as llm:
        with pytest.raises(OfflineBatchNotFinishedError):
            llm.offline_batch_generate([CHAT], **arguments)
        name = next(
            json.loads(text)["custom_id"]
            for text in server.bodies[0].splitlines()
            if text.startswith('{"custom_id"')
        )
        said = {"error": {"message": f"no {TOKEN} and {TOKEN[::-1]}"}}
        results = json.dumps({"custom_id": name, "response": {"status_code": 400, "body": said}})
        server.script = [done, done, results.encode()]
        with pytest.raises(GenerationError) as caught:
            llm.offline_batch_generate([CHAT], **arguments)
    assert "no **********" in caught.value.message
    told = "".join(traceback.format_exception(caught.value))
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (TOKEN, TOKEN[::-1]):
        assert secret not in told
        assert secret.encode() not in kept


@pytest.mark.parametrize("path", ["", "/openai/v1", "/openai/deployments/m", "/gateway"])
@pytest.mark.parametrize("version", [None, "2024-10-21"])
def test_query_of_azure_s_address_is_kept(path: str, version: str | None) -> None:
    if version is None and path != "/openai/v1":
        pytest.skip("the version is needed")
    address = f"https://h.test{path}?code=a%2Fb%26c&x=1"
    llm = AzureOpenAILLM(model="m", base_url=address, api_key="key", api_version=version)
    with llm:
        for below in ("chat/completions", "batches", "files/f/content"):
            url = llm.url_of(llm._base, below)
            assert (url.query["code"], url.query["x"]) == ("a/b&c", "1")
            assert url.query.get("api-version") == version


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": f"Insufficient Balance of {TOKEN}", "code": 402}}, "rate_limit"),
        ({"code": 400, "message": f"the file of {TOKEN} is too large"}, "invalid_request"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_job_that_is_refused_with_a_good_status_is_not_looked_for(
    make: Any, server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, body: Any, kind: str, place: int
) -> None:
    monkeypatch.setenv("STILLHOUSE_STATE_DIR", str(tmp_path))
    server.script = [*[{"id": "file-1"}][:place], body]
    with make(api_key=TOKEN) as llm, pytest.raises(GenerationError) as caught:
        llm.offline_batch_generate([CHAT])
    assert (caught.value.kind, len(server.bodies)) == (kind, place + 1)
    assert TOKEN not in str(caught.value)
