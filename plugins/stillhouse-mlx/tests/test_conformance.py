"""`MlxLLM` keeps every rule of the conformance kit, with a tiny model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stillhouse import LLM, FormattedInput
from stillhouse.testing import LLMConformance
from stillhouse_mlx import MlxLLM

from .conftest import SMALL


class TestMlx(LLMConformance):
    arguments: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 4, "seed": 7}
    folder: ClassVar[Path]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _folder(cls, tiny: Path) -> None:
        cls.folder = tiny

    def make(self) -> LLM:
        return MlxLLM(model=str(self.folder), **SMALL)

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        return self.make(), [{"role": "user", "content": "river " * 300}]  # more than the context
