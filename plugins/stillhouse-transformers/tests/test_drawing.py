"""Drawing: which tokens are kept, and that every number finds its own."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse.local import Sampling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FILTERS = [
    {},
    {"top_k": 5},
    {"top_k": 3000},
    {"top_p": 0.6},
    {"top_p": 0.0},
    {"top_p": 0.999},
    {"min_p": 0.1},
    {"top_k": 40, "top_p": 0.5, "min_p": 0.05, "temperature": 0.7},
    {"temperature": 2.0, "top_p": 0.9},
]


def drawer(*settings: Any) -> Any:
    from stillhouse_transformers.drawing import Drawer

    return Drawer([Sampling(**own) for own in settings], "cpu")


def logits_of(seed: int, rows: int = 1, size: int = 4000) -> Any:
    return torch.randn((rows, size), generator=torch.Generator().manual_seed(seed)) * 3


def kept_by_library(logits: Any, own: dict[str, Any]) -> Any:
    scores = transformers.TemperatureLogitsWarper(own.get("temperature", 1.0))(None, logits)
    if own.get("top_k"):
        scores = transformers.TopKLogitsWarper(own["top_k"])(None, scores)
    if "top_p" in own:
        scores = transformers.TopPLogitsWarper(own["top_p"])(None, scores)
    if "min_p" in own:
        scores = transformers.MinPLogitsWarper(own["min_p"])(None, scores)
    return torch.softmax(scores, -1)[0]


@pytest.mark.parametrize("own", FILTERS, ids=str)
def test_tokens_are_drawn_as_the_library_filters_them(own: dict[str, Any]) -> None:
    logits = logits_of(1)
    expected = kept_by_library(logits, own)
    many = 4000
    drawn = drawer(*[own] * many).draw(
        logits.expand(many, -1), [(number + 0.5) / many for number in range(many)]
    )
    counts = torch.bincount(drawn[:, 0], minlength=logits.shape[-1]) / many
    assert (counts - expected).abs().max() <= 1.5 / many
    assert not bool((counts > 0).logical_and(expected == 0).any())


def test_the_ends_of_the_numbers_find_tokens_that_are_kept() -> None:
    logits = logits_of(2)
    for own in FILTERS:
        expected = kept_by_library(logits, own)
        for number in (0.0, 1 - 2**-53):
            token = int(drawer(own).draw(logits.clone(), [number]))
            assert expected[token] > 0


def test_a_temperature_near_0_takes_the_most_probable_token() -> None:
    logits = logits_of(3)
    assert int(drawer({"temperature": 1e-30}).draw(logits.clone(), [0.99])) == int(logits.argmax())


def test_rows_of_every_kind_are_drawn_as_they_are_alone() -> None:
    logits = logits_of(4, len(FILTERS))
    numbers = [0.1 + 0.09 * row for row in range(len(FILTERS))]
    together = drawer(*FILTERS).draw(logits.clone(), numbers)[:, 0].tolist()
    alone = [int(drawer(own).draw(logits[[row]].clone(), [numbers[row]])) for row, own in enumerate(FILTERS)]
    assert together == alone
