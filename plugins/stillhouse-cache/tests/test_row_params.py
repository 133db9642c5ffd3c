"""Rows with parameters of their own: each is found again, and only under its own parameters."""

from __future__ import annotations

from typing import Any

from pydantic import PrivateAttr

import stillhouse
from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, Registry


class CountingLLM(AsyncLLM):
    _requests: int = PrivateAttr(default=0)

    @property
    def model_name(self) -> str:
        return "counting"

    async def agenerate(  # type: ignore[override]
        self, input: FormattedInput, num_generations: int = 1, temperature: float | None = None
    ) -> GenerateOutput:
        self._requests += 1
        return stillhouse.prepare_output([f"at {temperature}"] * num_generations)


def test_an_output_is_found_under_the_parameters_of_its_row(registry: Registry) -> None:
    llm = CountingLLM()
    llm.use_registry(registry)

    def texts(*temperatures: Any, **options: Any) -> list[str]:
        rows = [{"prompt": "the same", "temperature": value} for value in temperatures]
        done = stillhouse.run(rows, llm=llm, row_params=True, show_bar=False, **options)
        return [row["generations"][0] for row in done]

    asked = list(range(600))  # more than are remembered at once
    assert texts(*asked, None) == [f"at {value}.0" for value in asked] + ["at None"]
    assert llm._requests == 601
    assert texts(None, 3, *asked) == ["at None", "at 3.0"] + [f"at {value}.0" for value in asked]
    assert llm._requests == 601
    # What the run says, and what a row says, is the same.
    assert texts(None, temperature=7) == ["at 7.0"]
    assert llm._requests == 601
    assert texts(0.5) == ["at 0.5"]
    assert llm._requests == 602
