"""What prompts share is read once, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse_mlx import MlxLLM
from stillhouse_mlx.prefixes import Prefixes, common_length

from .conftest import SMALL, chat

SYSTEM = "You are asked about rivers. Say where they rise, and where they end. Be brief."


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_common_length_is_that_of_the_longest_common_beginning(a: list[int], b: list[int]) -> None:
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_length(a, b) == expected


class Part:
    """A part of a cache, which knows the tokens that were read.

    Args:
        kind: whether tokens can be taken off: `whole` for yes, `never`, or `half` for fewer than are asked.
    """

    def __init__(self, kind: str) -> None:
        self.tokens: list[int] = []
        self.kind = kind

    def is_trimmable(self) -> bool:
        return self.kind != "never"

    def trim(self, count: int) -> int:
        assert self.kind != "never"
        count = count if self.kind == "whole" else count // 2
        self.tokens = self.tokens[: len(self.tokens) - count]
        return count


class Group:
    """A part that is made of parts, as models that attend in two ways have."""

    def __init__(self, kind: str) -> None:
        self.parts = (Part(kind), Part(kind))

    def is_trimmable(self) -> bool:
        return all(part.is_trimmable() for part in self.parts)

    def trim(self, count: int) -> int:
        trimmed = [part.trim(count) for part in self.parts]
        return trimmed[0]


def leaves(cache: list[Any]) -> list[Part]:
    return [part for each in cache for part in getattr(each, "parts", (each,))]


@pytest.mark.parametrize("kind", ["whole", "never", "half"])
@settings(derandomize=True, deadline=None)
@given(data=st.data())
def test_a_cache_holds_the_beginning_of_its_prompt_and_nothing_else(kind: str, data: st.DataObject) -> None:
    def read(tokens: Sequence[int], cache: list[Any] | None) -> list[Any]:
        cache = cache or [Part(kind), Group(kind)]
        for part in leaves(cache):
            part.tokens = [*part.tokens, *tokens]
        return cache

    heads = [list(range(40)), list(range(20)) + [99] * 30, [7] * 60]
    size, most = data.draw(st.integers(1, 3)), data.draw(st.integers(30, 120))
    prefixes = Prefixes(read, size, most)
    for _ in range(12):
        head = data.draw(st.sampled_from(heads))
        prompt = head[: data.draw(st.integers(1, 60))] + data.draw(st.lists(st.integers(0, 5), max_size=25))
        length, cache = prefixes.take(prompt)
        assert length < len(prompt)
        assert (cache is None) == (length == 0)
        assert len(prefixes._kept) <= size
        assert sum(len(kept.tokens) for kept in prefixes._kept) <= most
        for part in leaves(cache or []):
            assert part.tokens == prompt[:length]
            part.tokens = [*part.tokens, -1]  # as the sequence goes on
    for beginning in prefixes._kept:
        for part in leaves(beginning.cache):
            assert part.tokens == beginning.tokens


def test_a_beginning_that_is_used_is_kept_and_one_that_is_not_makes_room() -> None:
    reads: list[int] = []

    def read(tokens: Sequence[int], cache: list[Any] | None) -> list[Any]:
        reads.append(len(tokens))
        (part,) = cache or [Part("never")]
        part.tokens = [*part.tokens, *tokens]
        return [part]

    prefixes = Prefixes(read, 2, 1000)
    common, rare = [1] * 30, [[number] * 30 for number in range(2, 9)]
    prefixes.take([*common, 10])
    for number, other in enumerate(rare):
        assert prefixes.take([*common, 11 + number])[0] == 30
        prefixes.take([*other, 50])
        assert prefixes.take([*other, 51])[0] == 30
    assert reads == [30] * (1 + len(rare))


@pytest.mark.parametrize("arguments", [{}, {"temperature": 1.0, "seed": 4}], ids=["greedy", "seeded"])
def test_texts_are_the_same_with_and_without_kept_beginnings(tiny: Path, arguments: dict[str, Any]) -> None:
    chats = [chat(f"{word} river?", SYSTEM) for word in ("Which", "What", "Your", "No", "A", "Any", "Some")]
    inputs = [*chats, *chats, chat("Hi"), chat("Which one?", SYSTEM + " In verse."), "A raw prompt"]
    with MlxLLM(model=str(tiny), prompt_cache=0, **SMALL) as without:
        expected = without.generate_outputs(inputs, max_new_tokens=10, num_generations=2, **arguments)
    with MlxLLM(model=str(tiny), **SMALL) as llm:
        outputs = llm.generate_outputs(inputs, max_new_tokens=10, num_generations=2, **arguments)
        assert llm._engine.prefixes.saved > 100
    assert outputs == expected


def test_the_system_message_of_a_run_is_read_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [chat(f"{number}?", SYSTEM) for number in range(20)]
    with MlxLLM(model=str(tiny), **SMALL) as llm:
        kept = llm._engine.prefixes
        assert kept is not None
        lengths: list[int] = []
        read = kept._read
        monkeypatch.setattr(
            kept, "_read", lambda tokens, cache: (lengths.append(len(tokens)), read(tokens, cache))[1]
        )
        llm.generate_outputs(inputs, max_new_tokens=2)
        # With the first prompt there was nothing to compare; the second is the one that reads it.
        assert kept.saved == 18 * lengths[0]
    assert len(lengths) == 1
    assert lengths[0] > 16
