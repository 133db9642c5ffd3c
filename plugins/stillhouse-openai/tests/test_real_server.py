"""Against a real server with a real model."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from stillhouse import GenerationError
from stillhouse_openai import ClientvLLM, OpenAILLM

pytestmark = pytest.mark.model

CHAT = [{"role": "user", "content": "Name a colour. Answer with one word."}]


def llm(real_server: dict[str, str], **fields: Any) -> OpenAILLM:
    given = {"temperature": 0.0, "max_new_tokens": 8}
    return OpenAILLM(
        **{"model": "smollm2", "generation_kwargs": given, "retry_timeout": 20, **real_server, **fields}
    )


def test_chats_in_order_with_their_tokens(real_server: dict[str, str]) -> None:
    chats = [[{"role": "user", "content": f"Say the word {word}."}] for word in ("red", "green", "blue")]
    with llm(real_server) as model:
        together = model.generate_outputs(chats)
        alone = [model.generate_outputs([chat])[0] for chat in chats]
    assert [output["generations"] for output in together] == [output["generations"] for output in alone]
    assert len({output["generations"][0] for output in together}) > 1
    for output in together:
        assert output["generations"][0]
        assert output["finish_reasons"][0] in ("stop", "length")
        assert 1 <= output["statistics"]["output_tokens"][0] <= 8
        assert output["statistics"]["input_tokens"][0] > 10, "the chat template counts"


def test_a_raw_prompt_is_sent_as_it_is(real_server: dict[str, str]) -> None:
    with llm(real_server) as model:
        output = model.generate_outputs(["Once upon a"], max_new_tokens=3)[0]
    assert output["generations"][0].startswith(" time")
    assert output["statistics"]["input_tokens"] == [3], "no template"
    assert output["finish_reasons"] == ["length"]


@pytest.mark.parametrize("input", [CHAT, "Once upon a"], ids=["chat", "raw"])
def test_logprobs(real_server: dict[str, str], input: Any) -> None:
    with llm(real_server) as model:
        output = model.generate_outputs([input], logprobs=True, top_logprobs=3, max_new_tokens=4)[0]
    positions = output["logprobs"][0]
    assert len(positions) >= 1
    for candidates in positions:
        assert len(candidates) == 3
        values = [item["logprob"] for item in candidates]
        assert values == sorted(values, reverse=True), "the likeliest was taken, and comes first"
        assert sum(math.exp(value) for value in values) <= 1.001
    text = "".join(candidates[0]["token"] for candidates in positions)
    assert text.startswith(output["generations"][0])


def test_several_generations_in_one_request(real_server: dict[str, str]) -> None:
    with llm(real_server) as model:
        output = model.generate_outputs([CHAT], num_generations=2, temperature=1.5, seed=5)[0]
    assert len(output["generations"]) == 2
    assert output["generations"][0] != output["generations"][1]


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]
    warm: bool


def test_an_answer_has_the_form_of_its_schema(real_server: dict[str, str]) -> None:
    form = {"format": "json", "schema": Colour}
    with llm(real_server, structured_output=form) as model:
        text = model.generate_outputs([CHAT], max_new_tokens=40)[0]["generations"][0]
        assert set(json.loads(text)) == {"name", "warm"}
        Colour.model_validate_json(text)
        with pytest.raises(GenerationError) as caught:
            model.generate_outputs([CHAT], max_new_tokens=3)
    assert caught.value.kind == "truncated"


def test_a_prompt_that_is_too_long(real_server: dict[str, str]) -> None:
    long = [{"role": "user", "content": "red green " * 300}]
    with llm(real_server) as model:
        results = list(model.iter_outputs([CHAT, long, CHAT], on_error="yield"))
    errors = [result for _, result in results if isinstance(result, GenerationError)]
    assert [(error.kind, error.attempts, error.stops_run) for error in errors] == [
        ("context_length", 1, False)
    ]
    assert "256" in errors[0].message


@pytest.mark.parametrize(
    ("fields", "kind", "hint"),
    [
        ({"path": "/v2"}, "invalid_request", "base_url"),
        ({"api_key": "wrong"}, "authentication", "API key"),
    ],
)
def test_wrong_address_or_key_stops_the_run(
    real_server: dict[str, str], fields: dict[str, str], kind: str, hint: str
) -> None:
    fields = dict(fields)
    path = fields.pop("path", "/v1")
    fields["base_url"] = real_server["base_url"].removesuffix("/v1") + path
    with llm(real_server, **fields) as model, pytest.raises(GenerationError) as caught:
        list(model.iter_outputs([CHAT] * 500, on_error="yield"))
    assert (caught.value.kind, caught.value.attempts) == (kind, 1)
    assert hint in caught.value.hint


def test_the_client_of_vllm_speaks_to_it_too(real_server: dict[str, str]) -> None:
    with ClientvLLM(model="smollm2", **real_server) as model:
        output = model.generate_outputs([CHAT], max_new_tokens=12, min_p=0.1, top_k=1, ignore_eos=True)[0]
    assert output["finish_reasons"] == ["length"]
    assert output["statistics"]["output_tokens"] == [12]
