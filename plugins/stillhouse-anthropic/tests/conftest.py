"""A server that answers from a script, and the real model behind the Messages API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loading import loader, model_server
from scripted import Script

from stillhouse_anthropic import AnthropicLLM

KEY = "sk-ant-test-0001"


@pytest.fixture
def make(script: Script) -> Iterator[Callable[..., AnthropicLLM]]:
    """A loaded LLM that asks the scripted server."""
    with loader(AnthropicLLM, model="claude-test", base_url=script.url, api_key=KEY) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def real_server() -> Any:
    """SmolLM2 behind a real server that speaks the Messages API."""
    return model_server(KEY)
