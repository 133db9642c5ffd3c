"""A server that answers from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loading import loader
from scripted import Script

from stillhouse_cohere import CohereLLM

VARIABLES = (
    "CO_API_KEY", "CO_API_URL", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine decides a test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make(script: Script) -> Iterator[Callable[..., CohereLLM]]:
    """A loaded LLM that asks the scripted server."""
    with loader(CohereLLM, model="m", base_url=script.url, api_key="key-0001-test") as loaded:
        yield loaded


def answer(text: Any = "fine", finish: Any = "COMPLETE", **message: Any) -> dict[str, Any]:
    """An answer of the API."""
    content = [{"type": "text", "text": text}] if isinstance(text, str) else text
    return {
        "id": "c14c80c3",
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
        "usage": {
            "billed_units": {"input_tokens": 5, "output_tokens": 3},
            "tokens": {"input_tokens": 15.0, "output_tokens": 4.0},
        },
    }
