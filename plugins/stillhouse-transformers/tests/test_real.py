"""Generating with SmolLM2."""

from __future__ import annotations

from typing import Any

import agreement
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_forms import PROPERTIES, assert_forms_hold
from small_models import smollm2

from stillhouse_transformers import TransformersLLM

pytestmark = pytest.mark.model

WORDS = ["river", "a lake in Peru", "the highest mountain of each continent, and who climbed it first", "tea"]


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


CHATS = [said(f"Tell me about {WORDS[number % 4]}{' and more' * number}.") for number in range(16)]


def texts(outputs: Any) -> list[Any]:
    return [output["generations"][0] for output in outputs]


def test_greedy_texts_are_those_of_generate_by_hand(real: TransformersLLM) -> None:
    by_hand = agreement.of_the_library(smollm2())
    outputs = real.generate_outputs(agreement.CHATS, **agreement.PARAMETERS)
    assert texts(outputs) == ["".join(answer["pieces"]) for answer in by_hand]
    # What the other engines are compared with is what the library says.
    assert [answer["pieces"] for answer in by_hand] == [answer["pieces"] for answer in agreement.expected()]
    assert agreement.differences(outputs) == []


@pytest.mark.parametrize("asked", [{"temperature": 0}, {"temperature": 1, "top_p": 0.9, "seed": 5}], ids=str)
def test_a_text_is_the_same_alone_and_among_16(real: TransformersLLM, asked: dict[str, Any]) -> None:
    among = texts(real.generate_outputs(CHATS, max_new_tokens=10, **asked))
    for number in (0, 2, 15):
        assert texts(real.generate_outputs([CHATS[number]], max_new_tokens=10, **asked)) == [among[number]]


def test_it_ends_by_itself_and_says_so(real: TransformersLLM) -> None:
    (output,) = real.generate_outputs([said("Say only the word yes.")], temperature=0, max_new_tokens=200)
    assert output["finish_reasons"] == ["stop"]
    assert "<|im_end|>" not in (output["generations"][0] or "")


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(properties=PROPERTIES, seed=st.integers(0, 99))
def test_forms_hold(real: TransformersLLM, properties: dict[str, Any], seed: int) -> None:
    assert_forms_hold(real, CHATS[:3], properties, seed=seed, max_new_tokens=30)


def test_the_default_model_is_read_from_its_gguf_file(real: TransformersLLM) -> None:
    expected = texts(real.generate_outputs(CHATS[:1], temperature=0, max_new_tokens=8))
    with TransformersLLM(device="cpu") as llm:
        assert llm.model_name == "SmolLM2-135M-Instruct.Q4_1"
        system = {"role": "system", "content": "Answer in one word."}
        chat = [system, *CHATS[0]]
        assert texts(llm.generate_outputs([chat], temperature=0, max_new_tokens=4)) == texts(
            real.generate_outputs([chat], temperature=0, max_new_tokens=4)
        )
    assert expected[0]
