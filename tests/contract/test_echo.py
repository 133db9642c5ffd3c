"""The built-in LLM `echo`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from stillhouse import EchoLLM, GenerationError, UnsupportedError

from ..support import chat


def test_echo_answers_chats_and_raw_prompts_with_their_text() -> None:
    parts: Any = [
        {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}
    ]
    with EchoLLM() as llm:
        outputs = llm.generate_outputs(
            [[*chat("x"), *chat("one two")], "a raw prompt", parts, (chat("y"), None)]
        )
    assert [output["generations"] for output in outputs] == [["one two"], ["a raw prompt"], ["a b"], ["y"]]


def test_echo_output_has_statistics_and_finish_reasons() -> None:
    with EchoLLM() as llm:
        (output,) = llm.generate_outputs([chat("one two three")], num_generations=2, max_new_tokens=2)
    assert output == {
        "generations": ["one two"] * 2,
        "statistics": {"input_tokens": [3], "output_tokens": [2, 2]},
        "finish_reasons": ["length"] * 2,
    }


def test_echo_failures_are_deterministic_per_input() -> None:
    inputs = [chat(str(i)) for i in range(1000)]
    with EchoLLM(failure_rate=0.3, failure_kind="rate_limit") as llm:
        runs = [dict(llm.iter_outputs(inputs, on_error="yield", ordered=False)) for _ in range(2)]
    failed = [{i for i, result in run.items() if isinstance(result, GenerationError)} for run in runs]
    assert failed[0] == failed[1]
    assert 200 < len(failed[0]) < 400
    for index in failed[0]:
        error = runs[0][index]
        assert isinstance(error, GenerationError)
        assert error.kind == "rate_limit"
        assert error.hint


def test_latency_is_slept_and_not_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    with EchoLLM(latency=3.5) as llm:
        monkeypatch.setattr("stillhouse.echo.asyncio.sleep", sleep)
        llm.generate_outputs([chat("a"), chat("b")])
        monkeypatch.undo()
    assert slept == [3.5, 3.5]


def test_echo_refuses_structured_output_and_invalid_settings() -> None:
    with EchoLLM() as llm, pytest.raises(UnsupportedError):
        llm.generate_outputs([(chat("a"), {"format": "json", "schema": {}})])
    for wrong in ({"latency": -1}, {"failure_rate": 2}, {"failure_kind": "bad luck"}):
        with pytest.raises(ValidationError):
            EchoLLM(**wrong)


def test_echo_model_name_can_be_set() -> None:
    assert EchoLLM().model_name == "echo"
    assert EchoLLM(model="x").model_name == "x"
