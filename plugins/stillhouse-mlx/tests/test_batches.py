"""A generation does not depend on what is generated beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse import GenerateOutput, GenerationError
from stillhouse_mlx import MlxLLM

from .conftest import SMALL, chat

TEXTS = [
    "Hi",
    "What is the river like?",
    "A sentence that goes on. " * 6,
    "def main() -> int:",
    "Why?",
    "one two three four five",
    "x",
    "A sentence that goes on. " * 3,
]

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "all": {"temperature": 1.0, "seed": 3},
    "top_p": {"temperature": 0.8, "top_p": 0.9, "seed": 3},
    "top_k": {"temperature": 1.2, "top_k": 8, "min_p": 0.01, "seed": 3},
    "penalties": {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "presence_penalty": 0.1},
    "drawn penalties": {"temperature": 1.0, "repetition_penalty": 1.2, "logit_bias": {7: 2.0}, "seed": 3},
}
FORM = {"format": "regex", "schema": "[a-z]{3} [0-9]{2}"}


@pytest.fixture(scope="module")
def wide(tiny: Path) -> Iterator[MlxLLM]:
    with MlxLLM(model=str(tiny), batch_size=16, context_length=256) as llm:
        yield llm


@pytest.fixture(scope="module")
def half(tiny: Path) -> Iterator[MlxLLM]:
    with MlxLLM(model=str(tiny), batch_size=16, context_length=256, dtype="bfloat16") as llm:
        yield llm


def texts_of(outputs: list[GenerateOutput]) -> list[list[str | None]]:
    return [output["generations"] for output in outputs]


def one_by_one(llm: MlxLLM, inputs: list[Any], **arguments: Any) -> list[list[str | None]]:
    return [texts_of(llm.generate_outputs([input], **arguments))[0] for input in inputs]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_generation_is_the_same_alone_and_in_batches_of_4_and_16(
    llm: MlxLLM, wide: MlxLLM, name: str
) -> None:
    inputs = [chat(text) for text in TEXTS] * 2
    arguments = {"max_new_tokens": 12, **SETTINGS[name]}
    alone = one_by_one(llm, inputs[:8], **arguments) * 2
    assert texts_of(llm.generate_outputs(inputs, **arguments)) == alone
    assert texts_of(wide.generate_outputs(inputs, **arguments)) == alone
    assert texts_of(wide.generate_outputs(inputs[::-1], **arguments)) == alone[::-1]


CALLS: list[tuple[Any, dict[str, Any]]] = [
    *((chat("Hi"), {"max_new_tokens": 8, **settings}) for settings in SETTINGS.values()),
    *((chat("Why?"), {"max_new_tokens": limit, "top_logprobs": limit}) for limit in (1, 2, 5)),
    (chat("Hi"), {"max_new_tokens": 3, "logprobs": True, "temperature": 1.0, "seed": 2}),
    ((chat("Hi"), FORM), {"max_new_tokens": 20, "temperature": 1.0, "seed": 1}),
    ((chat("Hi"), FORM), {"max_new_tokens": 20}),
    ((chat("x"), FORM), {"max_new_tokens": 20, "repetition_penalty": 1.3, "top_logprobs": 3}),
]


def test_settings_of_all_kinds_in_one_batch(llm: MlxLLM, wide: MlxLLM) -> None:
    async def together() -> list[GenerateOutput]:
        return await asyncio.gather(*(wide.agenerate(input, **arguments) for input, arguments in CALLS))

    alone = [llm.generate_outputs([input], **arguments)[0] for input, arguments in CALLS]
    for one, other in zip(asyncio.run(together()), alone, strict=True):
        assert one["generations"] == other["generations"]
        assert one["statistics"]["output_tokens"] == other["statistics"]["output_tokens"]
        positions = [logprobs for each in one.get("logprobs") or [] for logprobs in each or []]
        others = [logprobs for each in other.get("logprobs") or [] for logprobs in each or []]
        for position, expected in zip(positions, others, strict=True):
            assert [each["token"] for each in position] == [each["token"] for each in expected]
            assert [each["logprob"] for each in position] == pytest.approx(
                [each["logprob"] for each in expected], abs=1e-4
            )


def test_with_weights_of_16_bits_a_neighbour_with_other_settings_changes_nothing(half: MlxLLM) -> None:
    """A neighbour of another kind must not change in how many bits the logits of all are compared."""
    inputs = [chat(text) for text in TEXTS]

    async def beside(settings: dict[str, Any]) -> list[GenerateOutput]:
        calls = [half.agenerate(input, max_new_tokens=16) for input in inputs]
        more = [half.agenerate(input, max_new_tokens=16, **settings) for input in inputs]
        return (await asyncio.gather(*calls, *more))[: len(inputs)]

    expected = texts_of(asyncio.run(beside({})))
    for settings in (SETTINGS["penalties"], SETTINGS["top_k"], {"top_logprobs": 3}):
        assert texts_of(asyncio.run(beside(settings))) == expected


def test_one_prompt_that_leaves_room_for_one_token(llm: MlxLLM) -> None:
    (longest,) = llm.generate_outputs(["x" * 255])
    assert longest["statistics"]["input_tokens"] == [255]
    assert (longest["statistics"]["output_tokens"], longest["finish_reasons"]) == ([1], ["length"])


def test_a_cancelled_generation_leaves_its_neighbours_alone(wide: MlxLLM) -> None:
    inputs = [chat(text) for text in TEXTS[:4]]
    expected = one_by_one(wide, inputs, max_new_tokens=40)
    # Some are cancelled while they grow, some while their long prompts are read, some before they begin.
    victims = [chat("Hi there"), chat("z" * 180), chat("long " * 40)] * 8

    async def main() -> list[GenerateOutput]:
        tasks = [asyncio.create_task(wide.agenerate(input, max_new_tokens=40)) for input in inputs]
        others = [asyncio.create_task(wide.agenerate(input)) for input in victims]
        for victim in others:  # at moments that differ, in the middle of whatever is done then
            await wide.agenerate("x", max_new_tokens=1)
            victim.cancel()
        results = await asyncio.gather(*others, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)  # the last ones may have been too quick
        return await asyncio.gather(*tasks)

    assert texts_of(asyncio.run(main())) == expected
    assert texts_of(wide.generate_outputs(inputs, max_new_tokens=40)) == expected


def test_a_sequence_that_the_engine_fails_at_fails_alone(
    llm: MlxLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse_mlx.engine import Sequences

    inputs = [chat(text) for text in TEXTS]
    expected = texts_of(llm.generate_outputs(inputs, max_new_tokens=8))
    bad = len(llm.prompt_ids(inputs[2])) + 3  # it is the longest
    following = Sequences.next

    def failing(self: Sequences) -> list[Any]:
        if bad in self._lengths.values():
            raise RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory")
        return following(self)

    monkeypatch.setattr(Sequences, "next", failing)
    results = dict(llm.iter_outputs(inputs, on_error="yield", max_new_tokens=8))
    error = results.pop(2)
    assert isinstance(error, GenerationError)
    assert (error.kind, error.stops_run) == ("server", False)
    assert "Insufficient Memory" in error.message
    for index, output in results.items():
        assert output["generations"] == expected[index]
    monkeypatch.undo()
    assert texts_of(llm.generate_outputs(inputs, max_new_tokens=8)) == expected


def test_a_model_that_reads_padding_is_asked_one_by_one(
    tiny: Path, llm: MlxLLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlx_lm.models import cache

    inputs = [chat(text) for text in TEXTS]
    calls = [
        (input, {"max_new_tokens": 6, "temperature": 1.0, "seed": 2, "top_logprobs": 1}) for input in inputs
    ]
    calls += CALLS
    expected = [llm.generate_outputs([input], **arguments)[0] for input, arguments in calls]
    monkeypatch.setattr(
        cache.BatchKVCache,
        "make_mask",
        lambda self, n, **arguments: cache.create_causal_mask(n, offset=self._idx),
    )
    with caplog.at_level(logging.WARNING), MlxLLM(model=str(tiny), prefill_step=8, **SMALL) as careful:
        assert not careful._engine.batches
        found = [careful.generate_outputs([input], **arguments)[0] for input, arguments in calls]
        assert texts_of(found) == texts_of(expected)
    assert caplog.text.count("one sequence at a time") == 1


def test_a_model_that_cannot_be_batched_is_asked_one_by_one(
    tiny: Path, llm: MlxLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlx_lm.models import cache

    inputs = [chat(text, system="You know rivers, and say little.") for text in TEXTS[:4]]
    expected = llm.generate_outputs(inputs, max_new_tokens=6)
    monkeypatch.delattr(cache.KVCache, "merge")
    with MlxLLM(model=str(tiny), **SMALL) as careful:
        for _ in range(2):
            assert texts_of(careful.generate_outputs(inputs, max_new_tokens=6)) == texts_of(expected)
        assert careful._engine.prefixes.saved > 100
