"""A server that answers from a script, and no variable of the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loading import loader

from stillhouse.testing import Reply, ScriptedServer
from stillhouse_google import GeminiLLM

KEY = "AIzaSy-4f1c8e5d2b7a9360"

CHAT: Any = [{"role": "user", "content": "Name a river in Peru."}]

VARIABLES = (
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_LOCATION",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_GEMINI_BASE_URL",
    "GOOGLE_GENAI_API_VERSION",
    "GOOGLE_VERTEX_BASE_URL",
)


def answer(*parts: Any, reason: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    """An answer with these parts; a string is a text."""
    made = [{"text": part} if isinstance(part, str) else part for part in parts]
    return {
        "candidates": [{"content": {"parts": made, "role": "model"}, "finishReason": reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8},
        "responseId": "r1",
        **fields,
    }


@pytest.fixture(autouse=True)
def no_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "llmock" not in request.fixturenames:  # which sets some
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """They grow, as they do in earnest, where chance decides how much."""
    monkeypatch.setattr(
        "stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.02 * 2**attempt
    )


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    found = ScriptedServer(lambda path, body: answer("fine"))
    yield found
    found.close()


@pytest.fixture
def make(server: ScriptedServer) -> Iterator[Callable[..., GeminiLLM]]:
    """Makes a loaded LLM that asks the server."""
    with loader(GeminiLLM, model="gemini-3-flash", base_url=server.origin, api_key=KEY) as loaded:
        yield loaded


@pytest.fixture
def sent(server: ScriptedServer, make: Callable[..., GeminiLLM]) -> Callable[..., Any]:
    """Returns the body that is sent for an input and arguments."""

    def body(input: Any = CHAT, model: str = "gemini-3-flash", **arguments: Any) -> Any:
        make(model=model).generate_outputs([input], **arguments)
        return server.requests[-1].body

    return body


@pytest.fixture
def read(server: ScriptedServer, make: Callable[..., GeminiLLM]) -> Callable[[Any], Any]:
    """Returns the output that the LLM makes of an answer."""

    def output(given: Any) -> Any:
        server.script = [Reply(body=given)]
        (made,) = make().generate_outputs([CHAT])
        return made

    return output
