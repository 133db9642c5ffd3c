"""`ask_until_done` around requests that a backend makes itself."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import (
    ConfigurationError,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    StillhouseError,
    prepare_output,
)
from stillhouse.http import HTTPLLM, ask_until_done

from .conftest import Reply, ScriptedServer

CHAT: Any = [{"role": "user", "content": "hello"}]


class PollingLLM(HTTPLLM):
    """Hands in a job, and asks for it until it is done."""

    api_key_required = False
    mistake: Exception | None = None

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        async def ask(missing: int, made: int, messages: Any) -> GenerateOutput:
            if self.mistake is not None:
                raise self.mistake
            job = await self.request("POST", "jobs", b"{}", check=True)
            while job["state"] == "running":
                job = await self.request("GET", f"jobs/{job['id']}", check=True)
            return prepare_output([job["text"] or None], finish_reasons=["stop"])

        return await ask_until_done(ask, num_generations)


def failure(url: str, **fields: Any) -> StillhouseError:
    with PollingLLM(model="m", base_url=url, retry_timeout=5.0, **fields) as llm:
        with pytest.raises(StillhouseError) as caught:
            llm.generate_outputs([CHAT])
        return caught.value


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"state": "done"}', b'{"state": "running"}'])
def test_job_of_another_shape_is_an_error_of_the_server(server: ScriptedServer, body: bytes) -> None:
    server.answer = lambda _: Reply(body=body, headers={"x-request-id": "r-1"})
    error = failure(server.url)
    assert isinstance(error, GenerationError)
    assert (error.kind, error.request_id) == ("server", "r-1")


def test_error_in_the_answer_about_a_job_is_tried_again(server: ScriptedServer) -> None:
    server.script = [
        Reply(body=b'{"state": "running", "id": 1}'),
        Reply(body=b'{"error": {"code": 503, "message": "overloaded"}}'),
        Reply(body=b'{"state": "done", "text": "fine"}'),
    ]
    with PollingLLM(model="m", base_url=server.url) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
    assert [request.path for request in server.requests] == ["/v1/jobs", "/v1/jobs/1", "/v1/jobs/1"]


@pytest.mark.parametrize("mistake", [KeyError("text"), ConfigurationError("no")])
def test_mistake_before_anything_was_answered_is_not_the_servers(
    server: ScriptedServer, mistake: Exception
) -> None:
    error = failure(server.url, mistake=mistake)
    assert getattr(error, "kind", "") != "server"
    assert not server.requests
