"""A backend that answers as a test says, whatever that is."""

from __future__ import annotations

from typing import Any

import pytest

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput

__all__ = ["ANSWERS", "OddLLM", "registered"]

ANSWERS: list[Any] = []
"""What the LLM answers row by row; an exception is raised."""


class OddLLM(AsyncLLM):
    """Answers row N with the Nth of the answers."""

    @property
    def model_name(self) -> str:
        return "odd"

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        answer = ANSWERS[int(input[-1]["content"])]  # type: ignore[index, arg-type]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a module that has this name, the LLM is the only one that is installed."""
    registry = stillhouse.Registry(entry_points=())
    registry.register("odd", OddLLM)
    monkeypatch.setattr("stillhouse.registry.registry._default", registry)
