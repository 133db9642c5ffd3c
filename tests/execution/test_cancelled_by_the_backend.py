"""A backend that cancels itself, or raises what ends coroutines: its row fails, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output

CHAT: Any = [{"role": "user", "content": "hello"}]


class Odd(AsyncLLM):
    """Every second call ends oddly."""

    way: str
    max_concurrency: int = 2
    _calls: int = 0

    @property
    def model_name(self) -> str:
        return "odd"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        self._calls += 1
        if self._calls % 2:
            await asyncio.sleep(0)
            return prepare_output(["fine"] * num_generations)
        task = asyncio.current_task()
        assert task is not None
        match self.way:
            case "cancels its task":
                task.cancel()
                await asyncio.sleep(60)
            case "cancels its task twice":
                task.cancel()
                task.cancel()
                await asyncio.sleep(60)
            case "cancels its task and goes on":
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
            case "raises CancelledError":
                raise asyncio.CancelledError
            case "raises GeneratorExit":
                raise GeneratorExit
            case "raises SystemExit":
                raise SystemExit(3)
        return prepare_output(["late"] * num_generations)


WAYS = [
    "cancels its task", "cancels its task twice", "cancels its task and goes on", "raises CancelledError",
    "raises GeneratorExit", "raises SystemExit",
]  # fmt: skip


def judged(results: list[Any], way: str) -> None:
    failed = [result for result in results if isinstance(result, GenerationError)]
    assert len(results) == 20
    assert len(failed) == (0 if "goes on" in way else 10)
    assert all(not error.stops_run for error in failed)


@pytest.mark.parametrize("way", WAYS)
def test_every_row_has_a_result_however_a_call_ends(way: str) -> None:
    with Odd(way=way) as llm:
        judged([output for _, output in llm.iter_outputs([CHAT] * 20, on_error="yield")], way)
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]


@pytest.mark.parametrize("way", WAYS)
def test_every_row_has_a_result_in_a_coroutine_too(way: str) -> None:
    async def main() -> list[Any]:
        with Odd(way=way) as llm:
            return [output async for _, output in llm.aiter_outputs([CHAT] * 20, on_error="yield")]

    judged(asyncio.run(main()), way)
