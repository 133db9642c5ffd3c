"""A server that answers from a script in Ollama's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loading import loader

from stillhouse.testing import Reply, ScriptedServer
from stillhouse_ollama import OllamaLLM


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides a test."""
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


ANSWER = {
    "model": "llama3.2",
    "message": {"role": "assistant", "content": "The Ucayali."},
    "response": "The Ucayali.",
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 11,
    "eval_count": 18,
}
"""To a chat and to a raw prompt."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer(lambda path, body: ANSWER)
    yield server
    server.close()


@pytest.fixture
def make(server: ScriptedServer) -> Iterator[Callable[..., OllamaLLM]]:
    """A loaded LLM that asks the scripted server."""
    with loader(OllamaLLM, model="llama3.2", base_url=server.origin, retry_timeout=5) as loaded:
        yield loaded


@pytest.fixture
def says(server: ScriptedServer) -> Callable[..., None]:
    """Let the server answer the next request with this body."""

    def reply(body: Any, status: int = 200, **headers: str) -> None:
        server.script.append(
            Reply(status, body, {name.replace("_", "-"): text for name, text in headers.items()})
        )

    return reply
