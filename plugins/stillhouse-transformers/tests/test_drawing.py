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


@pytest.mark.parametrize("other", FILTERS, ids=str)
def test_of_equal_logits_the_same_are_kept_whatever_is_asked_of_the_neighbours(other: dict[str, Any]) -> None:
    """Numbers of 16 bits have many equals among thousands, also where top_k or top_p ends."""
    logits = logits_of(5, 12).to(torch.bfloat16).float()
    neighbours = logits_of(6, 12)
    numbers = [(row + 0.5) / 12 for row in range(12)]
    for own in ({"top_k": 5}, {"top_k": 50}, {"top_k": 1200}, {"top_p": 0.5}, {"top_p": 0.9}, {"min_p": 0.1}):
        alone = [int(drawer(own).draw(logits[[row]].clone(), [numbers[row]])) for row in range(12)]
        both = torch.stack([logits, neighbours], 1).flatten(0, 1)
        drawn = drawer(*[own, other] * 12).draw(both, [number for number in numbers for _ in range(2)])
        assert drawn[::2, 0].tolist() == alone


def test_of_equal_logits_those_with_the_lowest_numbers_are_the_more_probable_ones() -> None:
    logits = torch.full((1, 4000), -1.0)
    logits[0, [7, 70, 700, 3999]] = 1.0
    for own in ({"top_k": 2}, {"top_k": 1500, "top_p": 1e-9}, {"top_p": 0.0}):
        drawn = {int(drawer(own).draw(logits.clone(), [number])) for number in (0.0, 0.49, 0.51, 1 - 2**-53)}
        assert drawn == ({7, 70} if own == {"top_k": 2} else {7})
    equal = torch.zeros((1, 4000))
    assert int(drawer({"top_k": 3}).draw(equal, [0.99])) == 2
    assert int(drawer({"top_p": 0.5}).draw(equal, [1 - 2**-53])) == pytest.approx(2000, abs=2)


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e39, 1e300])
@pytest.mark.parametrize("own", FILTERS[:7], ids=str)
def test_a_temperature_beyond_32_bits_leaves_numbers(own: dict[str, Any], temperature: float) -> None:
    logits = logits_of(7)
    logits[0, 10:] = -torch.inf
    token = int(drawer({**own, "temperature": temperature}).draw(logits.clone(), [1 - 2**-53]))
    assert token == int(logits.argmax()) if temperature < 1 else 0 <= token < 10


BROKEN = {
    "NaN": [torch.nan] * 4000,
    "one NaN": [0.0] * 7 + [torch.nan] + [1.0] * 3992,
    "minus infinity": [-torch.inf] * 4000,
    "infinity": [0.0] * 3999 + [torch.inf],
    "infinities": [-torch.inf, torch.inf] * 2000,
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("own", FILTERS, ids=str)
def test_a_broken_row_gets_a_token_and_costs_its_neighbour_nothing(own: dict[str, Any], name: str) -> None:
    """A place outside the vocabulary would end the whole batch, and on a GPU the process."""
    good = logits_of(8)
    for number in (0.0, 0.5, 1 - 2**-53):
        alone = int(drawer(own).draw(good.clone(), [number]))
        both = torch.cat([torch.tensor([BROKEN[name]]), good])
        broken, beside = drawer(own, own).draw(both, [number, number])[:, 0].tolist()
        assert 0 <= broken < 4000
        assert beside == alone


def test_the_only_token_that_may_be_is_drawn() -> None:
    logits = torch.full((1, 4000), -torch.inf)
    logits[0, 3998] = -5.0
    for own in FILTERS:
        assert {int(drawer(own).draw(logits.clone(), [number])) for number in (0.0, 0.5, 1 - 2**-53)} == {
            3998
        }
