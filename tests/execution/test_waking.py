"""How often the caller's thread is woken, and how many inputs are pulled for that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, prepare_output
from stillhouse._execution import window
from stillhouse._execution.pump import Signal

CHAT: Any = [{"role": "user", "content": "hello"}]


class WaitingLLM(AsyncLLM):
    """Answers after a turn of the loop, or after some seconds."""

    seconds: float = 0.0

    @property
    def model_name(self) -> str:
        return "waiting"

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        await asyncio.sleep(self.seconds)
        return prepare_output(["fine"] * num_generations)


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each time that the caller is woken."""
    found: list[None] = []
    wake = Signal.set

    def spy(self: Signal) -> None:
        found.append(None)
        wake(self)

    monkeypatch.setattr(Signal, "set", spy)
    return found


def test_fast_calls_wake_the_caller_once_for_several(
    woken: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "SIGNAL_SECONDS", 60.0)  # whatever this machine does, the calls are fast
    with WaitingLLM(max_concurrency=1) as llm:
        assert len(list(llm.iter_outputs([CHAT] * 400))) == 400
    assert len(woken) <= 400 / 4


def test_slow_calls_are_not_pulled_for_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "SIGNAL_SECONDS", 0.0)  # whatever this machine does, the calls are slow
    pulled, taken, most = 0, 0, 0

    def inputs() -> Iterator[Any]:
        nonlocal pulled, most
        for _ in range(40):
            pulled += 1
            most = max(most, pulled - taken)
            yield CHAT

    with WaitingLLM(max_concurrency=1) as llm:
        for _ in llm.iter_outputs(inputs()):
            taken += 1
    assert taken == 40
    assert most <= 4
