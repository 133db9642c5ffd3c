"""What the authors of those backends would write: a class with `make` for each."""

from __future__ import annotations

import os
from typing import Any

import broken_heavy
import broken_slow
from broken_backends import BREAKS
from good_backends import Good, GoodSync

from stillhouse import LLM
from stillhouse.testing import LLMConformance

EVERY = int(os.environ["BROKEN_EVERY"])
CLASSES: list[type[LLM]] = [Good, GoodSync, *[*BREAKS][::EVERY], broken_heavy.Heavy, broken_slow.Slow]


class Suite(LLMConformance):
    backend: type[LLM]

    def make(self) -> LLM:
        return self.backend() if "model" not in self.backend.model_fields else self.backend(model="another")

    def make_failing(self) -> tuple[LLM, Any] | None:
        if "KindOfItsOwn" in self.backend.__name__ or "LetsErrorsOut" in self.backend.__name__:
            return self.make(), "fail"
        return None


for _backend in CLASSES:
    globals()[f"Test{_backend.__name__}"] = type(f"Test{_backend.__name__}", (Suite,), {"backend": _backend})
