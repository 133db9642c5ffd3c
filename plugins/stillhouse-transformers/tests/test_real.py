"""Generating with SmolLM2."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import smollm2

from stillhouse import GenerationError
from stillhouse_transformers import TransformersLLM

pytestmark = pytest.mark.model

WORDS = ["river", "a lake in Peru", "the highest mountain of each continent, and who climbed it first", "tea"]


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


CHATS = [said(f"Tell me about {WORDS[number % 4]}{' and more' * number}.") for number in range(16)]


def texts(outputs: Any) -> list[Any]:
    return [output["generations"][0] for output in outputs]


def test_greedy_texts_are_those_of_generate_by_hand(real: TransformersLLM) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2())
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2())
    expected = []
    for chat in CHATS[:4]:
        prompt = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)
        expected.append(tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
    assert texts(real.generate_outputs(CHATS[:4], max_new_tokens=12)) == expected


@pytest.mark.parametrize("asked", [{"temperature": 0}, {"temperature": 1, "top_p": 0.9, "seed": 5}], ids=str)
def test_a_text_is_the_same_alone_and_among_16(real: TransformersLLM, asked: dict[str, Any]) -> None:
    among = texts(real.generate_outputs(CHATS, max_new_tokens=10, **asked))
    for number in (0, 2, 15):
        assert texts(real.generate_outputs([CHATS[number]], max_new_tokens=10, **asked)) == [among[number]]


def test_it_ends_by_itself_and_says_so(real: TransformersLLM) -> None:
    (output,) = real.generate_outputs([said("Say only the word yes.")], temperature=0, max_new_tokens=200)
    assert output["finish_reasons"] == ["stop"]
    assert "<|im_end|>" not in (output["generations"][0] or "")


SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just({"type": "string", "maxLength": 4}),
        "age": st.builds(lambda top: {"type": "integer", "minimum": 0, "maximum": top}, st.integers(1, 99)),
        "kind": st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True).map(
            lambda listed: {"enum": listed}
        ),
        "good": st.just({"type": "boolean"}),
    },
).filter(lambda properties: 1 <= len(properties) <= 2)


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(properties=SCHEMAS, seed=st.integers(0, 99))
def test_forms_hold(real: TransformersLLM, properties: dict[str, Any], seed: int) -> None:
    import jsonschema

    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    form = {"format": "json", "schema": schema}
    inputs: list[Any] = [(chat, form) for chat in CHATS[:3]]
    for _, result in real.iter_outputs(
        inputs, on_error="yield", temperature=1.2, seed=seed, max_new_tokens=30
    ):
        if isinstance(result, GenerationError):
            assert result.kind == "truncated"
        else:
            jsonschema.validate(json.loads(result["generations"][0] or ""), schema)


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
