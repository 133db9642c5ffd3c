"""What the authors of those backends would write: a class with `make` for each."""

from __future__ import annotations

from typing import Any

import broken_heavy
import broken_slow
from broken_backends import BREAKS
from good_backends import Good, GoodSync

from stillhouse import LLM
from stillhouse.testing import LLMConformance

CLASSES: list[type[LLM]] = [Good, GoodSync, *BREAKS, broken_heavy.Heavy, broken_slow.Slow]


class Suite(LLMConformance):
    cls_: type[LLM]

    def make(self) -> LLM:
        return self.cls_() if "model" not in self.cls_.model_fields else self.cls_(model="another")

    def make_failing(self) -> tuple[LLM, Any] | None:
        if "KindOfItsOwn" in self.cls_.__name__ or "LetsErrorsOut" in self.cls_.__name__:
            return self.make(), "fail"
        return None


for _cls in CLASSES:
    globals()[f"Test{_cls.__name__}"] = type(f"Test{_cls.__name__}", (Suite,), {"cls_": _cls})
