"""Keys in a query, signatures, and headers: each attempt is authorised, and no error shows how."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson
import pytest
from pydantic import Field, PrivateAttr, SecretStr
from yarl import URL

from stillhouse import ConfigurationError, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse.http import HTTPLLM, Failure, Request

from .conftest import Reply, ScriptedServer
from .raw import raw_server

CHAT: Any = [{"role": "user", "content": "hello"}]
KEY = "secret/key+with=odd&characters"


class PlainLLM(HTTPLLM):
    """A backend that is written on the two functions."""

    api_key_variable: ClassVar[str | None] = "PLAIN_API_KEY"
    path: str = "generate"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        return await self.complete(input, num_generations, {})

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        return Request(self.path, {"input": input})

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return prepare_output([answer["text"]])


class QueryKeyLLM(PlainLLM):
    """Its key is in the query."""

    def auth_headers(self, api_key: str) -> dict[str, str]:
        return {}

    def url_of(self, base_url: URL, path: str) -> URL:
        return super().url_of(base_url, path).update_query(key=self.resolved_key)


class SigningLLM(PlainLLM):
    """It signs everything that is sent."""

    seen: list[tuple[str, str, dict[str, str], bytes]] = Field(default_factory=list)

    def auth_headers(self, api_key: str) -> dict[str, str]:
        return {}

    def sign(self, method: str, url: URL, headers: Mapping[str, str], body: Any) -> Mapping[str, str]:
        self.seen.append((method, str(url), dict(headers), body))
        text = f"{method} {url.raw_path_qs}\n".encode() + hashlib.sha256(body).digest()
        return {"X-Signature": hmac.new(self.resolved_key.encode(), text, "sha256").hexdigest()}


def failure(llm: HTTPLLM) -> GenerationError:
    with pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    return caught.value


def test_key_in_the_query_is_sent_and_masked_in_every_error(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer = lambda request: Reply(400, b"no such path: " + request.path.encode())
    with QueryKeyLLM(model="m", base_url=server.url, api_key=SecretStr(KEY)) as llm:
        error = failure(llm)
    assert URL(f"http://x{server.requests[0].path}").query["key"] == KEY
    for shown in (str(error), repr(error), repr(error.__cause__), caplog.text):
        assert "odd" not in shown
        assert KEY[:10] not in shown
    assert "**********" in error.message


def test_key_of_the_environment_is_resolved(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIN_API_KEY", "key-of-the-environment")
    llm = QueryKeyLLM(model="m", base_url=server.url)
    assert llm.resolved_key == "key-of-the-environment"
    with llm:
        llm.generate_outputs([CHAT])
    assert server.requests[0].path.endswith("?key=key-of-the-environment")
    assert "key-of-the-environment" not in repr(llm)


def test_query_of_the_base_url_is_kept(server: ScriptedServer) -> None:
    with PlainLLM(model="m", base_url=f"{server.url}/?api-version=1&x=a%2Fb", api_key="key-1234") as llm:
        llm.generate_outputs([CHAT])
    assert server.requests[0].path == "/v1/generate?api-version=1&x=a%2Fb"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("model/arn%3Aaws%3Abedrock%3A1%2Fx/converse", "/v1/model/arn%3Aaws%3Abedrock%3A1%2Fx/converse"),
        ("model/arn:aws:bedrock:us-east-1:1:m/x", "/v1/model/arn:aws:bedrock:us-east-1:1:m/x"),
        ("a b/é?x=1#y", "/v1/a%20b/%C3%A9%3Fx=1%23y"),
        ("50%", "/v1/50%25"),
    ],
)
def test_path_is_signed_and_sent_as_it_is(server: ScriptedServer, path: str, sent: str) -> None:
    server.script = [Reply(503), Reply()]
    with SigningLLM(model="m", base_url=server.url, api_key="key-1234", path=path, seen=[]) as llm:
        llm.generate_outputs([CHAT])
        seen = llm.seen
    assert [request.path for request in server.requests] == [sent, sent]
    assert [URL(url, encoded=True).raw_path for _, url, _, _ in seen] == [sent, sent], (
        "once for every attempt"
    )
    for request, (method, url, headers, body) in zip(server.requests, seen, strict=True):
        assert headers["content-type"] == request.headers["content-type"]
        text = f"{method} {URL(url, encoded=True).raw_path_qs}\n".encode() + hashlib.sha256(body).digest()
        assert request.headers["x-signature"] == hmac.new(b"key-1234", text, "sha256").hexdigest()


def test_signature_covers_exactly_what_is_sent() -> None:
    answer = b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"text":"fine"}'
    with (
        raw_server(lambda connection, _: connection.sendall(answer)) as server,
        SigningLLM(model="m", base_url=server.url, api_key="key-1234", seen=[]) as llm,
    ):
        llm.generate_outputs([CHAT])
        assert llm.seen[0][3] == server.bodies[0]


@pytest.mark.parametrize("path", ["../admin", "a/../../b", "a/%2e%2E/b", "./a"])
def test_path_that_leads_out_of_the_api_is_refused(server: ScriptedServer, path: str) -> None:
    with (
        PlainLLM(model="m", base_url=server.url, api_key="key-1234", path=path) as llm,
        pytest.raises((GenerationError, ConfigurationError), match="leads out"),
    ):
        llm.generate_outputs([CHAT])
    assert server.requests == []


class BrokenSignatureLLM(SigningLLM):
    def sign(self, method: str, url: URL, headers: Mapping[str, str], body: Any) -> Mapping[str, str]:
        raise KeyError(f"no credentials for {self.resolved_key}")


class BrokenCheckLLM(PlainLLM):
    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Failure | None:
        raise KeyError("what")


class NoFailureLLM(PlainLLM):
    """Its checks return what is no `Failure`."""

    def failure_in(self, answer: Any, headers: Mapping[str, str]) -> Any:
        return "it failed"

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> Any:
        return None


class NewlineLLM(SigningLLM):
    def sign(self, method: str, url: URL, headers: Mapping[str, str], body: Any) -> Mapping[str, str]:
        return {"x-signature": f"{self.resolved_key}\r\nx-other: 1"}


class CircularLLM(PlainLLM):
    """It asks for its credentials by a request that needs them."""

    async def authorize(self) -> Mapping[str, str]:
        token = await self.request("POST", "token", b"{}")
        return {"authorization": f"Bearer {token['access_token']}"}


def test_authorize_that_waits_for_itself_is_an_error(server: ScriptedServer) -> None:
    with CircularLLM(model="m", base_url=server.url, api_key=SecretStr(KEY), max_concurrency=1) as llm:
        error = failure(llm)
    assert error.stops_run
    assert "a client of its own" in error.hint
    assert not server.requests


class ExpiringLLM(PlainLLM):
    """Its credentials expire; those that are fetched are good for some attempts."""

    fetched: list[str] = Field(default_factory=list)
    _lock: asyncio.Lock = PrivateAttr(default_factory=asyncio.Lock)
    _left: int = PrivateAttr(default=0)

    def has_credential(self, headers: Mapping[str, str]) -> bool:
        return True

    async def authorize(self) -> Mapping[str, str]:
        async with self._lock:
            if not self._left:
                await asyncio.sleep(0)  # here they are asked for
                self.fetched.append(f"token-{len(self.fetched)}")
                self._left = 4
            self._left -= 1
            return {"x-token": self.fetched[-1]}

    def sign(self, method: str, url: URL, headers: Mapping[str, str], body: Any) -> Mapping[str, str]:
        covered = f"{method} {url.raw_path} {headers['X-Token']}".encode() + body
        return {"x-signature": hashlib.sha256(covered).hexdigest()}


def test_expired_credentials_are_fetched_once_for_all_attempts(server: ScriptedServer) -> None:
    server.script = [Reply(503)] * 2
    path = "model/arn:aws:bedrock:eu-central-1:1:profile%2Fx%3A0/invoke"
    with ExpiringLLM(model="m", base_url=server.url, path=path, max_concurrency=8) as llm:
        llm.generate_outputs([CHAT] * 6)
    assert llm.fetched == ["token-0", "token-1"]
    for request in server.requests:
        covered = f"POST {request.path} {request.headers['x-token']}".encode() + orjson.dumps(request.body)
        assert request.headers["x-signature"] == hashlib.sha256(covered).hexdigest()
    assert len({request.headers["x-signature"] for request in server.requests}) == 2


def test_signature_that_cannot_be_made_stops_the_run(server: ScriptedServer) -> None:
    with BrokenSignatureLLM(model="m", base_url=server.url, api_key="key-123456789") as llm:
        error = failure(llm)
    assert (error.kind, error.stops_run) == ("authentication", True)
    assert "sign failed: KeyError" in error.message
    assert "key-123456789" not in f"{error!r}{error.__cause__!r}"
    assert server.requests == []


def test_check_that_raises_fails_its_row_alone(server: ScriptedServer) -> None:
    with BrokenCheckLLM(model="m", base_url=server.url, api_key="key-1234") as llm:
        error = failure(llm)
    assert "failure_in failed: KeyError: 'what'" in error.message
    assert not error.stops_run
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "said"), [(200, "failure_in failed: TypeError: it returned str"), (500, "classify failed")]
)
def test_check_that_returns_no_failure_is_named(server: ScriptedServer, status: int, said: str) -> None:
    server.script = [Reply(status)]
    with NoFailureLLM(model="m", base_url=server.url, api_key="key-1234") as llm:
        error = failure(llm)
    assert said in error.message
    assert "authors" in error.hint


def test_id_of_a_request_that_quotes_the_key_is_masked_in_the_log(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    key = "Zq7wX2mPv9LkT4nB8cRd"
    server.script = [Reply(headers={"x-request-id": f"r-{key[:12]}"})]
    with caplog.at_level("DEBUG", "stillhouse"), PlainLLM(model="m", base_url=server.url, api_key=key) as llm:
        llm.generate_outputs([CHAT])
    assert "answered request r-" in caplog.text
    assert key[:8] not in caplog.text


def test_header_with_the_end_of_a_line_is_never_sent(server: ScriptedServer) -> None:
    with NewlineLLM(model="m", base_url=server.url, api_key="key-123456789") as llm:
        error = failure(llm)
    assert "x-signature" in error.message
    assert "key-123456789" not in str(error)
    assert server.requests == []
    with pytest.raises(ConfigurationError, match="x-team") as caught:
        PlainLLM(
            model="m", base_url=server.url, api_key="key-1234", default_headers={"X-Team": "a\r\nb"}
        ).load()
    assert "a\r\nb" not in str(caught.value)


def test_key_with_the_end_of_a_line_is_refused_before_sending(server: ScriptedServer) -> None:
    with pytest.raises(ConfigurationError, match="characters that no key has") as caught:
        PlainLLM(model="m", base_url=server.url, api_key="key-12\n345678").load()
    assert "345678" not in str(caught.value)


class QuotingLLM(PlainLLM):
    """A backend with a fresh token from time to time, whose answers are read with a quote of them."""

    api_key_required: ClassVar[bool] = False
    tokens: list[str] = Field(
        default_factory=lambda: [f"tok-{number // 3}-9f8e7d6c5b4a" for number in range(6)]
    )

    async def authorize(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self.tokens[0]}"}

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        raise ValueError(f"odd: {answer['text']}, not {self.tokens.pop(0)}")


def test_a_token_that_expires_is_masked_in_the_errors_of_the_backend_too(server: ScriptedServer) -> None:
    """Only what a server refused was masked, not what its answers quoted."""
    with QuotingLLM(model="m", base_url=server.url, max_concurrency=1) as llm:
        results = [result for _, result in llm.iter_outputs([CHAT] * 6, on_error="yield", ordered=True)]
    assert len(results) == 6
    for result in results:
        assert isinstance(result, GenerationError)
        assert "odd: fine, not **********" in result.message
        assert "9f8e7d6c5b4a" not in f"{result!r} {result} {result.__cause__}"
