"""`TransformersLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stillhouse import LLM, FormattedInput
from stillhouse.testing import LLMConformance
from stillhouse_transformers import TransformersLLM


class TestTransformers(LLMConformance):
    arguments: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 4, "seed": 7}

    @pytest.fixture(autouse=True)
    def _model(self, tiny: Path) -> None:
        self.__dict__["folder"] = tiny

    def make(self) -> LLM:
        return TransformersLLM(model=str(self.__dict__["folder"]), device="cpu")

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        return self.make(), [{"role": "user", "content": "river " * 600}]  # more than the context
