"""A server that answers from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loading import loader
from scripted import Script

from stillhouse_mistral import MistralLLM

VARIABLES = (
    "MISTRAL_API_KEY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides a test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make(script: Script) -> Iterator[Callable[..., MistralLLM]]:
    """A loaded LLM that asks the scripted server."""
    with loader(MistralLLM, model="m", base_url=script.url, api_key="key-0001-test") as loaded:
        yield loaded


def answer(content: Any = "fine", finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """An answer of the API, with one choice."""
    return {
        "id": "cmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content, "tool_calls": None, **message},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
