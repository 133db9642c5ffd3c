"""`VLLM` keeps every rule of the conformance kit, with a model of random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stillhouse import LLM, FormattedInput
from stillhouse.testing import LLMConformance
from stillhouse_vllm import VLLM

from .conftest import SMALL


class TestVLLM(LLMConformance):
    # With random weights, a text in JSON would hardly ever end.
    arguments: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 4, "seed": 7, "logit_bias": {'"': 6}}
    folder: ClassVar[Path]

    @pytest.fixture(autouse=True)
    def use_tiny(self, fast_start: None, tiny: Path) -> None:
        type(self).folder = tiny

    def make(self) -> LLM:
        return VLLM(model=str(self.folder), **SMALL)

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        return self.make(), [{"role": "user", "content": "river " * 2000}]  # more than the context
