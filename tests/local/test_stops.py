"""The text of an answer as it grows, and where a stop text ends it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.local import Detokenizer, StopTexts

from .small_tokenizer import SmallTokenizer


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "text", ["the river", " two  spaces ", "Größe 🙂 中文", "a\n\nb", "the<|im_end|>the"]
)
def test_the_pieces_of_a_text_make_the_whole(text: str, fast: bool) -> None:
    tokenizer = SmallTokenizer(fast=fast)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    stream = Detokenizer(tokenizer)
    assert "".join(map(stream.add, tokens)) == tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize("fast", [True, False])
def test_a_character_comes_with_its_last_token(fast: bool) -> None:
    tokenizer = SmallTokenizer(fast=fast)
    tokens = tokenizer.encode("🙂", add_special_tokens=False)
    stream = Detokenizer(tokenizer)
    assert len(tokens) > 1
    assert [stream.add(token) for token in tokens] == [*[""] * (len(tokens) - 1), "🙂"]


def test_the_first_stop_text_cuts_also_across_pieces() -> None:
    stops = StopTexts(["ab"])
    assert stops.cut("xa") is None
    assert stops.cut("xab", 2) == 1
    assert StopTexts("song").cut("a song idea", 0) == 2
    # One is the beginning of another, and one stands before another.
    assert StopTexts(["ab", "abc"]).cut("xabc", 0) == 1
    assert StopTexts(["c", "ab"]).cut("xabc", 0) == 1
    assert not StopTexts(None)
    assert not StopTexts(["", ""])
    assert StopTexts(["", "b"]).stops == ("b",)


def test_the_beginning_of_a_stop_text_is_held_back() -> None:
    stops = StopTexts(["abc", "b#"])
    assert [stops.held(text) for text in ("x", "xa", "xab", "xabb", "xb", "", "ab#a")] == [
        0,
        1,
        2,
        1,
        1,
        0,
        1,
    ]
    assert StopTexts(None).held("x") == 0


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    text=st.text("ab#", max_size=30),
    stops=st.lists(st.text("ab#", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_what_is_not_held_back_is_never_cut_off_again(text: str, stops: list[str]) -> None:
    cutting, given = StopTexts(stops), 0
    for end in range(1, len(text) + 1):
        cut = cutting.cut(text[:end], end - 1)
        if cut is not None:
            assert given <= cut
            return
        now = end - cutting.held(text[:end])
        assert now >= given
        given = now


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    text=st.text("ab#", max_size=30),
    stops=st.lists(st.text("ab#", min_size=1, max_size=4), min_size=1, max_size=3),
    data=st.data(),
)
def test_however_a_text_comes_it_is_cut_at_the_first_stop_text_to_be_complete(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    found, seen = None, 0
    while seen < len(text) and found is None:
        before, seen = seen, data.draw(st.integers(seen + 1, len(text)))
        found = StopTexts(stops).cut(text[:seen], before)
    if found is None:
        assert not any(stop in text for stop in stops)
    else:
        # As far as it was seen, no stop text stands in what is left, and one begins where it was cut.
        assert not any(stop in text[:found] for stop in stops)
        assert any(text[:seen].startswith(stop, found) for stop in stops)
