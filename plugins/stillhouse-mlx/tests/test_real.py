"""Generating with SmolLM2, of which a CPU makes some tokens in a second: so few, and short prompts."""

from __future__ import annotations

from typing import Any

import agreement
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_forms import PROPERTIES, assert_forms_hold
from small_models import smollm2

from stillhouse_mlx import MlxLLM

from .conftest import chat

pytestmark = pytest.mark.model

CHATS = [
    chat("Name a river in Peru."),
    chat("Say only the word yes."),
    chat("Is tea hot?", system="Answer in one word."),
]


def texts(outputs: Any) -> list[Any]:
    return [output["generations"][0] for output in outputs]


@pytest.fixture(scope="module")
def greedy(real: MlxLLM) -> list[Any]:
    """What it answers to the chats, together."""
    return real.generate_outputs(CHATS, max_new_tokens=6, stop="\0")


def test_greedy_texts_are_those_of_the_library_by_hand(real: MlxLLM, greedy: list[Any]) -> None:
    import mlx_lm

    model, tokenizer = mlx_lm.load(str(smollm2()))
    for conversation, text in list(zip(CHATS, texts(greedy), strict=True))[::2]:
        prompt = tokenizer.apply_chat_template(conversation, add_generation_prompt=True)
        assert real.prompt_ids(conversation) == prompt
        assert mlx_lm.generate(model, tokenizer, prompt=prompt, max_tokens=6) == text


@pytest.mark.soak
def test_greedy_texts_are_those_of_the_other_engines(real: MlxLLM) -> None:
    assert agreement.differences(real.generate_outputs(agreement.CHATS, **agreement.PARAMETERS)) == []


def test_a_chat_begins_with_one_token_that_begins_a_text(real: MlxLLM) -> None:
    prompt = real.prompt_ids(CHATS[2])
    assert prompt.count(real._engine.tokenizer.bos_token_id) == 3  # of the system, the user and the answer
    assert prompt[1] != prompt[0]


def test_a_seeded_text_is_the_same_alone_as_among_others(real: MlxLLM) -> None:
    asked: dict[str, Any] = {"max_new_tokens": 4, "temperature": 1.0, "top_p": 0.9, "seed": 5}
    among = texts(real.generate_outputs(CHATS[1:], **asked))
    assert texts(real.generate_outputs(CHATS[2:], **asked)) == among[1:]


def test_a_stop_text_across_tokens_ends_an_answer_and_is_left_out(real: MlxLLM, greedy: list[Any]) -> None:
    whole = texts(greedy)[0]
    tokens = real._engine.tokenizer.encode(whole, add_special_tokens=False)
    first, second = (real._engine.tokenizer.decode([token]) for token in tokens[1:3])
    stop = first[-2:] + second[:2]
    assert stop in whole
    (output,) = real.generate_outputs(CHATS[:1], max_new_tokens=6, stop=["never", stop])
    assert output["generations"] == [whole[: whole.find(stop)]]
    assert output["finish_reasons"] == ["stop"]
    assert output["statistics"]["output_tokens"] == [3]


def test_it_ends_by_itself_and_says_so(real: MlxLLM) -> None:
    (output,) = real.generate_outputs([chat("Say only the word yes.")], max_new_tokens=60)
    assert output["finish_reasons"] == ["stop"]
    assert "<|im_end|>" not in (output["generations"][0] or "")


@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(properties=PROPERTIES, seed=st.integers(0, 99))
def test_forms_hold(real: MlxLLM, properties: dict[str, Any], seed: int) -> None:
    assert_forms_hold(real, CHATS[:1], properties, seed=seed, max_new_tokens=20)
