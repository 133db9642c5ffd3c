"""Drawing: which tokens are kept, and that every number finds its own."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest

from stillhouse.local import Sampling, uniforms
from stillhouse_mlx import MlxLLM

from .conftest import SMALL, chat, missing

if reason := missing(""):
    pytest.skip(reason, allow_module_level=True)

SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"top_k": 5},
    {"top_k": 3000},
    {"top_p": 0.6},
    {"top_p": 0.0},
    {"top_p": 0.999},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"top_k": 40, "top_p": 0.5, "min_p": 0.05, "temperature": 0.7},
    {"top_k": 3000, "top_p": 0.9},
    {"temperature": 2.0, "top_p": 0.9},
]


def probabilities(logits: Any, own: dict[str, Any]) -> tuple[Any, float]:
    """The probabilities with which tokens are drawn, in numbers of 64 bits and one step after the other.

    And how near it was that `top_p` keeps another number of them.
    """
    settings = Sampling(**own)
    scaled = logits.astype(numpy.float64) / settings.temperature
    weights = numpy.exp(scaled - scaled.max())
    order = numpy.lexsort((numpy.arange(len(weights)), -weights))
    ranked = weights[order]
    if settings.top_k:
        ranked[settings.top_k :] = 0
    ranked /= ranked.sum()
    kept = ranked >= settings.min_p * ranked[0]
    border = 1.0
    if 0 < settings.top_p < 1:
        before = numpy.cumsum(ranked) - ranked
        kept &= before < settings.top_p
        border = float(numpy.abs(before - settings.top_p).min())
    elif settings.top_p == 0:
        kept[:] = False
    kept[0] = True
    left = numpy.zeros_like(weights)
    left[order] = numpy.where(kept, ranked, 0)
    return left / left.sum(), border


def expected(logits: Any, own: dict[str, Any], number: float) -> tuple[int, bool]:
    """The token that a number finds, and whether it is so near to another that 32 bits do not tell."""
    left, border = probabilities(logits, own)
    sums = numpy.cumsum(left)
    token = int((sums <= number * sums[-1]).sum())
    return token, min(border, float(numpy.abs(sums - number).min())) < 1e-6


def drawn(kind: str, settings: list[dict[str, Any]], logits: Any, numbers: list[float]) -> list[int]:
    import mlx.core as mx

    from stillhouse_mlx.sampling import Drawing

    with mx.stream(mx.cpu):
        sampling = [Sampling(**own) for own in settings]
        drawing = Drawing(mx, kind, sampling, logits.shape[1], mx.float64)
        tokens: list[int] = drawing.draw(mx.array(logits), numbers).tolist()
    return tokens


def kind_of(own: dict[str, Any]) -> str:
    from stillhouse_mlx.sampling import _kind

    return _kind(Sampling(**own))


def logits_of(seed: int, rows: int = 1, size: int = 4000) -> Any:
    return (numpy.random.default_rng(seed).normal(0, 3, (rows, size))).astype(numpy.float32)


@pytest.mark.parametrize("own", SETTINGS, ids=str)
def test_a_number_finds_the_first_token_of_the_vocabulary_whose_cumulative_probability_exceeds_it(
    own: dict[str, Any],
) -> None:
    chance = random.Random(1)
    logits = logits_of(1, 60)
    numbers = [chance.random() for _ in logits]
    for row, number, token in zip(
        logits, numbers, drawn(kind_of(own), [own] * 60, logits, numbers), strict=True
    ):
        wanted, is_near = expected(row, own, number)
        assert token == wanted or is_near


@pytest.mark.parametrize("own", SETTINGS, ids=str)
def test_the_ends_of_the_numbers_find_tokens_that_are_kept(own: dict[str, Any]) -> None:
    logits = logits_of(2)
    kept = probabilities(logits[0], own)[0] > 0
    ends = drawn(kind_of(own), [own] * 2, numpy.repeat(logits, 2, axis=0), [0.0, 1 - 2**-53])
    if own.get("top_p", 1) < 1 or own.get("top_k") or own.get("min_p"):
        assert ends == [int(kept.argmax()), len(kept) - 1 - int(kept[::-1].argmax())]


@pytest.mark.parametrize("own", [{"top_k": 7}, {"top_p": 0.3}, {"top_k": 2000}, {"min_p": 0.5}], ids=str)
def test_of_equally_probable_tokens_the_first_ones_are_kept(own: dict[str, Any]) -> None:
    logits = numpy.repeat(numpy.array([[1.0, 0.0, 1.0, 0.5] * 800], dtype=numpy.float32), 50, axis=0)
    numbers = [(row + 0.5) / 50 for row in range(50)]
    for number, token in zip(numbers, drawn(kind_of(own), [own] * 50, logits, numbers), strict=True):
        wanted, is_near = expected(logits[0], own, number)
        assert token == wanted or is_near


def test_a_temperature_near_0_takes_the_most_probable_token_and_a_great_one_leaves_what_a_form_allows() -> (
    None
):
    logits = logits_of(3)
    assert drawn("all", [{"temperature": 1e-300}], logits, [0.99]) == [int(logits.argmax())]
    logits[:, 100:] = -numpy.inf
    assert drawn("all", [{"temperature": 1e300}], logits, [0.505]) == [50]


def test_settings_of_one_kind_are_drawn_as_they_are_alone() -> None:
    chance = random.Random(2)
    for kind in ("few", "some", "all"):
        settings = [own for own in SETTINGS if kind_of(own) == kind] * 4
        logits = logits_of(4, len(settings))
        numbers = [chance.random() for _ in settings]
        alone = [drawn(kind, [own], logits[[row]], [numbers[row]])[0] for row, own in enumerate(settings)]
        assert drawn(kind, settings, logits, numbers) == alone


@pytest.mark.parametrize(
    "own",
    [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"top_k": 20, "min_p": 0.02, "temperature": 1.5},
        {"temperature": 1.0, "repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": -0.2},
        {"temperature": 0.0, "frequency_penalty": 0.7, "logit_bias": {5: 3.0, 300: -2.5}},
    ],
    ids=str,
)
def test_a_text_is_what_the_logits_the_settings_and_the_seed_make_of_it(
    llm: MlxLLM, own: dict[str, Any]
) -> None:
    """Each token is computed anew with the model, from all that is before it."""
    import mlx.core as mx

    engine = llm._engine
    prompt = llm.prompt_ids(chat("What is the river like?"))
    chance = uniforms(9, 1)
    settings = Sampling(**{key: value for key, value in own.items() if key != "logit_bias"})
    tokens: list[int] = []
    with mx.stream(mx.cpu):
        for _ in range(12):
            logits = numpy.array(engine._model(mx.array([[*prompt, *tokens]]))[0, -1]).astype(numpy.float64)
            for token, bias in own.get("logit_bias", {}).items():
                logits[token] += bias
            for token in {*prompt, *tokens}:
                factor = settings.repetition_penalty
                logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
            for token in set(tokens):
                logits[token] -= settings.presence_penalty
                logits[token] -= settings.frequency_penalty * tokens.count(token)
            filters = {key: own[key] for key in ("temperature", "top_p", "top_k", "min_p") if key in own}
            if settings.temperature == 0:
                tokens.append(int(logits.argmax()))
            else:
                token, is_near = expected(logits, filters, chance.random())
                assert not is_near  # else another seed has to be taken
                tokens.append(token)
            if tokens[-1] in engine.eos:
                break
    asked = {"max_new_tokens": 12, "seed": 9, "num_generations": 2, **own}
    (output,) = llm.generate_outputs([chat("What is the river like?")], **asked)
    ended = tokens[-1] in engine.eos
    assert output["generations"][1] == (engine.prompts.text_of(tokens[:-1] if ended else tokens) or None)


def test_defaults_that_make_no_sense_say_nothing(tiny: Path, llm: MlxLLM, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "odd")
    odd = {
        "do_sample": "yes", "temperature": None, "top_k": 1.5, "top_p": "0.9", "min_p": -1,
        "repetition_penalty": 0, "max_new_tokens": 0, "eos_token_id": [2, 2, None],
    }  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(odd), encoding="utf-8")
    usual = llm.generate_outputs([chat("Hi")], max_new_tokens=8)
    with MlxLLM(model=str(folder), **SMALL) as other:
        assert other.generate_outputs([chat("Hi")], max_new_tokens=8) == usual
