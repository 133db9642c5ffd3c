"""Vertex AI: addresses, publishers, and every way to be authorised, without Google."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_google import VertexAILLM
from stillhouse_google.google_auth import GoogleToken

CHAT: Any = [{"role": "user", "content": "hello"}]
PARENT = "/v1beta1/projects/p-1/locations/europe-west4"


def vertex(server: Any = None, **fields: Any) -> VertexAILLM:
    given = {"model": "gemini-3-flash", "project": "p-1", "location": "europe-west4", "access_token": "t-1"}
    given |= fields
    if server is not None:
        given.setdefault("base_url", server.origin)
    return VertexAILLM(**{name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west4", "europe-west4-aiplatform.googleapis.com"),
        (None, "aiplatform.googleapis.com"),
    ],
)
def test_location_is_a_host_and_stands_in_the_path(location: str | None, host: str) -> None:
    llm = vertex(location=location)
    assert llm.api_url == f"https://{host}/"
    model = "publishers/google/models/gemini-3-flash"
    assert llm.request_of(CHAT, 1, {}).path == (
        f"projects/p-1/locations/{location or 'global'}/{model}:generateContent"
    )


@pytest.mark.parametrize("location", ["Europe", "a/b", "x.evil.org", "a@b"])
def test_location_that_is_none_is_refused(location: str) -> None:
    with pytest.raises(ConfigurationError, match="location"):
        vertex(location=location).load()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3-flash@001", f"{PARENT}/publishers/google/models/gemini-3-flash@001"),
        ("anthropic/claude-x@2025", f"{PARENT}/publishers/anthropic/models/claude-x@2025"),
        ("publishers/meta/models/llama", f"{PARENT}/publishers/meta/models/llama"),
        ("models/77", f"{PARENT}/models/77"),
        ("endpoints/42", f"{PARENT}/endpoints/42"),
        ("projects/q/locations/us/endpoints/42", "/v1beta1/projects/q/locations/us/endpoints/42"),
        ("a?b#c%41", f"{PARENT}/publishers/google/models/a%3Fb%23c%2541"),
    ],
)
def test_model_may_name_its_publisher(server: Any, model: str, path: str) -> None:
    with vertex(server, model=model) as llm:
        llm.generate_outputs([CHAT])
    (request,) = server.requests
    assert request.path == f"{path}:generateContent"
    assert request.headers["authorization"] == "Bearer t-1"
    assert "x-goog-api-key" not in request.headers


def test_environment_is_read_as_the_sdk_reads_it(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "example.org:p2")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "us-east1")
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", server.origin)
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    with VertexAILLM(model="m", access_token="t", api_version="v1") as llm:
        llm.generate_outputs([CHAT], cached_content="c1")
    (request,) = server.requests
    assert request.path == (
        "/v1/projects/example.org:p2/locations/us-east1/publishers/google/models/m:generateContent"
    )
    assert request.body["cachedContent"] == "projects/example.org:p2/locations/us-east1/cachedContents/c1"
    assert "x-goog-api-key" not in request.headers


@pytest.mark.parametrize("given", ["field", "environment"])
def test_express_mode_has_a_key_and_no_project(
    server: Any, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    fields = {"api_key": "k-1"} if given == "field" else {}
    monkeypatch.setenv("GOOGLE_API_KEY", "k-1" if given == "environment" else "k-2")
    if given == "field":  # which wins over these
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "us-east1")
    assert VertexAILLM(model="m", **fields).api_url == "https://aiplatform.googleapis.com/"
    with VertexAILLM(model="m", base_url=server.origin, **fields) as llm:
        llm.generate_outputs([CHAT])
    (request,) = server.requests
    assert request.path == "/v1beta1/publishers/google/models/m:generateContent"
    assert request.headers["x-goog-api-key"] == "k-1"
    assert "authorization" not in request.headers


def test_token_of_a_provider_is_asked_for_once_for_many_and_renewed(server: Any) -> None:
    threads: list[str] = []

    def provider() -> str:
        threads.append(threading.current_thread().name)
        return f"t-{len(threads)}"

    llm = vertex(server, access_token=None, access_token_provider=provider)
    with llm:
        llm.generate_outputs([CHAT] * 5)
        llm._token_until = 0.0  # as after a minute
        llm.generate_outputs([CHAT])
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer t-1"] * 5 + [
        "Bearer t-2"
    ]
    assert len(threads) == 2
    assert not any(name.startswith("stillhouse") for name in threads)
    assert "access_token_provider" not in llm.dump()


def test_provider_may_be_a_coroutine_and_its_failure_stops_the_run(server: Any) -> None:
    async def provider() -> str:
        return "t-9"

    with vertex(server, access_token=None, access_token_provider=provider) as llm:
        llm.generate_outputs([CHAT])
    assert server.requests[0].headers["authorization"] == "Bearer t-9"
    for broken in (lambda: "", lambda: 5, lambda: 1 / 0):
        llm = vertex(server, access_token=None, access_token_provider=broken)
        with llm, pytest.raises(GenerationError, match="access_token_provider failed") as caught:
            llm.generate_outputs([CHAT])
        assert (caught.value.kind, caught.value.stops_run) == ("authentication", True)


def test_token_is_not_saved_and_not_shown(server: Any) -> None:
    llm = vertex(server, access_token="ya29.secret-token")
    assert "ya29" not in repr(llm) + json.dumps(llm.dump())
    server.always = Reply(401, [{"error": {"code": 401, "message": "bad ya29.secret-token"}}])
    with llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert "ya29" not in str(caught.value)
    assert caught.value.stops_run


def test_nothing_to_be_authorised_by_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("google.auth")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(ConfigurationError, match="no Google Cloud credentials") as caught:
        vertex(access_token=None).load()
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.hint
    with pytest.raises(ConfigurationError, match="requires a project"):
        vertex(project=None).load()


def test_missing_google_auth_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(ConfigurationError, match="not installed") as caught:
        vertex(access_token=None).load()
    assert "stillhouse-google[auth]" in caught.value.hint


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A service account whose tokens come from a server on this machine."""
    pytest.importorskip("google.auth", reason="google-auth is not installed")
    rsa: Any = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    serialization: Any = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    made: list[int] = []

    def respond(path: str, body: Any) -> Any:
        made.append(1)
        return {"access_token": f"ya29.{len(made)}", "expires_in": 3600, "token_type": "Bearer"}

    tokens = ScriptedServer(respond)
    info = {
        "type": "service_account",
        "project_id": "p-of-the-file",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "a@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": f"{tokens.origin}/token",
        "quota_project_id": "p-that-pays",
    }
    (tmp_path / "key.json").write_text(json.dumps(info))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("GOOGLE_CLOUD_QUOTA_PROJECT", "p-that-pays")
    yield tokens
    tokens.close()


def test_service_account_gets_a_token_and_renews_it_before_it_ends(account: Any, server: Any) -> None:
    llm = vertex(server, access_token=None, project=None)
    with llm:
        llm.generate_outputs([CHAT] * 4)
        assert llm._google is not None
        credentials: Any = llm._google._credentials
        credentials.expiry = (datetime.now(UTC) + timedelta(seconds=200)).replace(tzinfo=None)
        llm._token_until = 0.0  # as when the time has come
        llm.generate_outputs([CHAT])
    asked = [request.body for request in account.requests]
    assert len(asked) == 2
    assert b"jwt-bearer" in asked[0]
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer ya29.1"] * 4 + ["Bearer ya29.2"]
    assert {request.headers["x-goog-user-project"] for request in server.requests} == {"p-that-pays"}
    assert server.requests[0].path.startswith("/v1beta1/projects/p-of-the-file/locations/europe-west4/")


def test_project_in_the_environment_wins_over_a_key_there(
    account: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    for fields in ({"project": None, "location": "us"}, {"project": "p", "location": None}):
        with vertex(server, access_token=None, **fields) as llm:
            llm.generate_outputs([CHAT])
        headers = server.requests[-1].headers
        assert headers["authorization"].startswith("Bearer ya29.")
        assert "x-goog-api-key" not in headers


def test_refused_account_stops_the_run(account: Any, server: Any) -> None:
    account.always = Reply(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    with vertex(server, access_token=None) as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert "Invalid JWT Signature" in caught.value.message
    assert (caught.value.kind, caught.value.stops_run) == ("authentication", True)
    assert server.requests == []


class Credentials:
    """Credentials of google-auth whose next token cannot be had."""

    def __init__(self, seconds: float, error: Exception) -> None:
        self.token: str | None = "old" if seconds > 0 else None
        self.expiry = (datetime.now(UTC) + timedelta(seconds=seconds)).replace(tzinfo=None)
        self._error = error

    def refresh(self, request: Any) -> None:
        raise self._error

    def apply(self, headers: dict[str, str]) -> None:
        headers["authorization"] = f"Bearer {self.token}"


def test_failure_of_the_network_costs_no_token_that_is_good_and_does_not_stop_the_run() -> None:
    import asyncio

    exceptions: Any = pytest.importorskip("google.auth.exceptions")
    transport = SimpleNamespace(Request=lambda: None)
    unreachable = exceptions.TransportError("unreachable")
    headers, seconds = asyncio.run(GoogleToken(Credentials(100, unreachable), transport).renew())
    assert headers == {"authorization": "Bearer old"}
    assert 0 < seconds < 60
    for error, kind in ((unreachable, "connection"), (exceptions.RefreshError("no"), "authentication")):
        with pytest.raises(GenerationError) as caught:
            asyncio.run(GoogleToken(Credentials(0, error), transport).renew())
        assert caught.value.kind == kind


def test_page_of_models(server: Any) -> None:
    page = {
        "publisherModels": [
            {"name": "publishers/google/models/gemini-3-flash", "versionId": "001"},
            {"name": "publishers/google/models/text-embedding-5"},
        ],
        "nextPageToken": "n",
    }
    llm = vertex(server)
    assert [model["name"] for model in llm.models_in(page)] == ["gemini-3-flash", "text-embedding-5"]
    assert llm.models_page_after(page) == {"pageToken": "n"}
