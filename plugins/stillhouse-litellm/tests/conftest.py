"""What the tests share: LiteLLM without its network, and a server that answers by a script."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# LiteLLM fetches its price map when it is imported, unless this is set.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("litellm")

from stillhouse.testing import ScriptedServer
from stillhouse_litellm import LiteLLM

KEY = "sk-0123456789abcdef0123"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # LiteLLM's own warnings
        item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides a test, and retries come at once."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("stillhouse.http.transport.calls.backoff_seconds", lambda attempt: 0.0)


def chat_answer(text: str | None = "fine", finish: str = "stop", **message: Any) -> dict[str, Any]:
    """What OpenAI's API answers."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer(lambda path, body: chat_answer())
    yield scripted
    scripted.close()


@pytest.fixture
def make(server: ScriptedServer) -> Callable[..., LiteLLM]:
    """An LLM that asks the scripted server; not loaded."""

    def llm(**fields: Any) -> LiteLLM:
        return LiteLLM(**{"model": "openai/m", "base_url": f"{server.origin}/v1", "api_key": KEY, **fields})

    return llm
