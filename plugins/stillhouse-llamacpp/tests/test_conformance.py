"""`LlamaCppLLM` keeps every rule of the conformance kit, with the real model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from stillhouse import LLM, FormattedInput
from stillhouse.testing import LLMConformance
from stillhouse_llamacpp import LlamaCppLLM

from .conftest import SMALL


@pytest.mark.model
class TestLlamaCpp(LLMConformance):
    arguments: ClassVar[Mapping[str, Any]] = {"max_new_tokens": 4, "seed": 7}

    def make(self) -> LLM:
        return LlamaCppLLM(**SMALL)

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        return self.make(), [{"role": "user", "content": "river " * 2000}]  # more than the context
