"""HTTP requests to a server that fails, stalls or answers wrongly."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError

from .conftest import Reply, ScriptedServer, ScriptLLM

CHAT = [{"role": "user", "content": "hello"}]


def error(status: int, message: str = "no", code: str = "", **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def failure(make: Any, *, retry_timeout: float = 60, **fields: Any) -> GenerationError:
    with make(retry_timeout=retry_timeout, **fields) as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    return caught.value


def test_request_is_sent_to_its_path_with_the_api_key(make: Any, server: ScriptedServer) -> None:
    with make(default_headers={"X-Team": "blue"}) as llm:
        outputs = llm.generate_outputs([CHAT])
    assert outputs[0]["generations"] == ["fine"]
    request = server.requests[0]
    assert request.path == "/v1/generate"
    assert request.body == {"input": CHAT}
    assert request.headers["authorization"] == "Bearer key-1234"
    assert request.headers["x-team"] == "blue"


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_transient_status_is_retried(make: Any, server: ScriptedServer, status: int) -> None:
    server.script = [error(status), error(status)]
    with make() as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("reply", "kind", "hint"),
    [
        (error(400, "bad field"), "invalid_request", ""),
        (error(401, "wrong key"), "authentication", "API key"),
        (error(403, "not allowed"), "authentication", "API key"),
        (error(404, "The model `m` does not exist", "model_not_found"), "invalid_request", "model's name"),
        (error(422, "bad"), "invalid_request", ""),
        (error(400, "This model's maximum context length is 8192 tokens"), "context_length", "shorten"),
        (error(413, "prompt is too long"), "context_length", "shorten"),
        (error(400, "flagged", "content_filter"), "content_filter", "change the prompt"),
        (error(403, "Your prompt was flagged by our safety system"), "content_filter", "change the prompt"),
        (error(400, "Unknown parameter: 'safety_identifier'"), "invalid_request", ""),
        (error(429, "You exceeded your current quota", "insufficient_quota"), "rate_limit", "billing"),
        (
            error(429, "Request too large for m: Limit 10000, Requested 20000"),
            "context_length",
            "quota of a minute",
        ),
        (error(413, "Request too large for model m, reduce it"), "context_length", "quota of a minute"),
        (Reply(302, b"", {"location": "https://elsewhere.example/"}), "invalid_request", "base_url"),
        (Reply(200, b"<html><body>Welcome</body></html>"), "invalid_request", "website"),
    ],
)
def test_permanent_error_is_not_retried(
    make: Any, server: ScriptedServer, reply: Reply, kind: str, hint: str
) -> None:
    server.script = [reply]
    caught = failure(make)
    assert (caught.kind, caught.attempts, len(server.requests)) == (kind, 1, 1)
    assert hint in caught.hint


@pytest.mark.parametrize(
    "reply",
    [
        Reply(cut=4),
        Reply(cut=0),
        Reply(body=b""),
        Reply(body=b'{"text": "cut o'),
    ],
    ids=["dropped in the body", "dropped before it", "empty", "cut off"],
)
def test_broken_response_is_retried(make: Any, server: ScriptedServer, reply: Reply) -> None:
    server.script = [reply, reply]
    with make() as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
    assert len(server.requests) == 3


def test_error_includes_the_message_of_the_provider(make: Any, server: ScriptedServer) -> None:
    server.script = [error(503, "overloaded, come back", x_request_id="req-7")] * 3
    caught = failure(make, retry_timeout=0)
    assert caught.message == "status 503: overloaded, come back"
    assert (caught.kind, caught.attempts, caught.request_id) == ("server", 1, "req-7")


def test_html_error_page_is_reported_without_tags(make: Any, server: ScriptedServer) -> None:
    page = b"<html><head><style>b {}</style></head><body><h1>502</h1> Bad&nbsp;Gateway</body></html>"
    server.script = [Reply(502, page)]
    caught = failure(make, retry_timeout=0)
    assert "<" not in caught.message
    assert "502" in caught.message


def test_a_stalled_answer_is_a_timeout(make: Any, server: ScriptedServer) -> None:
    server.script = [Reply(stall=True)]
    with make(timeout=0.2) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
    server.script = [Reply(stall=True)]
    caught = failure(make, timeout=0.2, retry_timeout=0)
    assert caught.kind == "timeout"


def test_unreachable_server_is_a_connection_error(make: Any, server: ScriptedServer) -> None:
    server.close()
    caught = failure(make, retry_timeout=0)
    assert (caught.kind, caught.stops_run) == ("connection", True)
    assert "cannot be reached" in caught.message
    assert "base_url" in caught.hint


def test_an_answer_that_is_too_large_is_refused(make: Any, server: ScriptedServer) -> None:
    server.script = [Reply(body=json.dumps({"text": "x" * 2000}).encode())]
    caught = failure(make, max_answer_bytes=1000)
    assert caught.kind == "server"
    assert "more than" in caught.message
    assert len(server.requests) == 1


def test_request_fails_when_retry_timeout_would_be_exceeded(make: Any, server: ScriptedServer) -> None:
    server.answer = lambda request: error(429, retry_after="3600")
    caught = failure(make, retry_timeout=60)
    assert (caught.kind, caught.attempts) == ("rate_limit", 1)


def test_retry_after_holds_back_every_request(make: Any, server: ScriptedServer) -> None:
    server.script = [error(429, retry_after_ms="300")]
    with make(max_concurrency=2) as llm:
        times = []
        loop = llm.event_loop
        server.answer = lambda request: times.append(loop.time())  # type: ignore[func-returns-value]
        llm.generate_outputs([CHAT] * 4)
    assert len(times) == 5
    assert times[2] - times[0] >= 0.29, "the third was none of those in flight, and waited all the same"


def test_a_refused_key_stops_a_long_run(make: Any, server: ScriptedServer) -> None:
    server.answer = lambda request: error(401, "wrong key")
    with make(max_concurrency=4) as llm, pytest.raises(GenerationError) as caught:
        list(llm.iter_outputs([CHAT] * 10_000, on_error="yield"))
    assert caught.value.kind == "authentication"
    assert len(server.requests) <= 64


def test_requests_in_flight_are_bounded_and_concurrent(make: Any, server: ScriptedServer) -> None:
    with make(max_concurrency=16) as llm:
        llm.generate_outputs([CHAT] * 400)
    assert 2 <= server.most_open <= 16
    assert len(server.requests) == 400


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ({"api_key": None}, "needs an API key", "SCRIPT_API_KEY"),
        ({"api_key": " "}, "needs an API key", "SCRIPT_API_KEY"),
        ({"api_key": "a\nb"}, "characters that no key has", "copy"),
        ({"base_url": "localhost:8000"}, "is not an address", "https://"),
        ({"base_url": None}, "where the API is", "SCRIPT_BASE_URL"),
        ({"base_url": "http://user:word@127.0.0.1:1/v1"}, "only one of them can be sent", "leave out"),
    ],
)
def test_load_error_names_the_missing_setting(
    make: Any, fields: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(**fields).load()
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_header_of_the_callers_does_as_well_as_a_key(make: Any, server: ScriptedServer) -> None:
    with make(api_key=None, default_headers={"Authorization": "Basic c2VzYW1l"}) as llm:
        llm.generate_outputs([CHAT])
    assert server.requests[0].headers["authorization"] == "Basic c2VzYW1l"


def test_the_environment_names_key_and_address(
    make: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPT_API_KEY", "from-the-environment")
    monkeypatch.setenv("SCRIPT_BASE_URL", server.url + "/")
    with make(api_key=None, base_url=None) as llm:
        llm.generate_outputs([CHAT])
    assert server.requests[0].headers["authorization"] == "Bearer from-the-environment"
    assert server.requests[0].path == "/v1/generate"


def test_secrets_are_nowhere(make: Any, server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    llm = make(api_key="key-secret", default_headers={"X-Api-Key": "header-secret", "X-Team": "blue"})
    server.script = [error(401, "wrong key")]
    with llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    shown = repr(llm) + str(llm) + str(caught.value) + repr(caught.value.__dict__) + caplog.text
    assert "secret" not in shown
    assert server.requests[0].headers["x-api-key"] == "header-secret"


@pytest.mark.parametrize("name", ["x a", "x-a:", "x-a\n", "", "x-\u00e4", "a" * 9 + "(b)"])
def test_a_name_that_no_header_has_is_refused(make: Any, server: ScriptedServer, name: str) -> None:
    with pytest.raises(ConfigurationError, match="name of a header"):
        make(default_headers={name: "v"}).load()
    assert not server.requests


def test_load_and_unload_again(make: Any) -> None:
    llm = make()
    for _ in range(2):
        with llm:
            assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]


def test_wait_beyond_retry_timeout_stops_the_run_without_blocking_others(
    make: Any, server: ScriptedServer
) -> None:
    with make(retry_timeout=60, max_concurrency=1) as llm:
        server.script = [error(429, "daily quota", retry_after="3600")]
        with pytest.raises(GenerationError) as caught:
            list(llm.iter_outputs([CHAT] * 100, on_error="yield"))
        assert caught.value.stops_run
        assert "3600 s" in caught.value.message
        assert "retry_timeout" in caught.value.hint
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"], "at once, not in an hour"


def test_text_with_a_lone_surrogate_is_refused_before_sending(make: Any, server: ScriptedServer) -> None:
    with make() as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([[{"role": "user", "content": "half a character: \ud83d"}]])
    assert (caught.value.kind, caught.value.attempts) == ("invalid_request", 0)
    assert server.requests == []


def test_authorize_is_called_for_every_attempt(server: ScriptedServer) -> None:
    class Renewing(ScriptLLM):
        base_path = "v9"

        async def authorize(self) -> dict[str, str]:
            return {"authorization": f"Bearer {len(server.requests)}"}

    server.script = [error(503)]
    with Renewing(model="m", base_url=server.url.removesuffix("/v1"), api_key="fixed") as llm:
        llm.generate_outputs([CHAT])
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer 0", "Bearer 1"]
    assert {request.path for request in server.requests} == {"/v9/generate"}


def test_remaining_quota_is_read_from_the_headers(
    make: Any, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(
        "stillhouse.http.transport.limits.Limits.update_quota",
        lambda self, name, *quota, is_tokens: reported.append((quota, is_tokens)),
    )
    kinds = {"limit": "500", "remaining": "12", "reset": "1m2s"}
    server.script = [
        Reply(headers={f"X-RateLimit-{kind.title()}-Requests": text for kind, text in kinds.items()}),
        Reply(headers={f"x-ratelimit-{kind}-tokens": text for kind, text in kinds.items()}),
        Reply(headers={**{f"x-ratelimit-{kind}-tokens": text for kind, text in kinds.items()}, "x-ratelimit-reset-tokens": "soon"}),
        Reply(),
    ]  # fmt: skip
    with make(max_concurrency=1) as llm:
        llm.generate_outputs([CHAT] * 4)
    assert reported == [((12.0, 500.0, 62.0), False), ((12.0, 500.0, 62.0), True)]


def test_the_id_of_an_answered_request_is_in_the_log(
    make: Any, server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = [Reply(headers={"x-request-id": "req_7"}), Reply(headers={"x-request-id": "req_8"})]
    with make() as llm:
        llm.generate_outputs([CHAT])
        caplog.set_level("DEBUG", logger="stillhouse.http")
        llm.generate_outputs([CHAT])
    assert [record.getMessage() for record in caplog.records if "req_" in record.getMessage()] == [
        "127.0.0.1 answered request req_8"
    ]


def test_response_without_usage_is_passed_to_the_backend(make: Any, server: ScriptedServer) -> None:
    server.script = [Reply(200, b'{"text": "fine", "usage": {}}')]
    with make() as llm:
        post = llm.post("generate", {}, used_tokens=lambda answer: answer["usage"]["total"])
        assert llm.run_on_loop(post)["text"] == "fine"


def test_a_credential_in_a_header_of_any_name_is_shown_nowhere(server: ScriptedServer) -> None:
    class RiverLLM(ScriptLLM):
        credential_headers = ("x-river",)

        def auth_headers(self, api_key: str) -> dict[str, str]:
            return {"x-river": api_key}

    server.script = [error(401, "the key ucayali-1234 may not do this")]
    llm = RiverLLM(
        model="m", base_url=server.url, api_key="ucayali-1234", default_headers={"X-River": "maranon-5678"}
    )
    assert "maranon" not in repr(llm)
    llm.default_headers = {}
    with llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert server.requests[0].headers["x-river"] == "ucayali-1234"
    assert "ucayali" not in str(caught.value)
