"""Generating with the real model, loaded once."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import agreement
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse_vllm import VLLM

pytestmark = pytest.mark.model

WORDS = ("river", "mountain", "sea", "city", "animal", "colour", "number", "metal", "planet", "language")
CHATS: list[Any] = [
    [{"role": "user", "content": f"Name a {word}{' of Peru' * (number % 4)}."}]
    for number, word in enumerate(WORDS * 2)
]
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 16}


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


def unfinished(llm: VLLM) -> int:
    """How many requests the engine has that have not ended."""
    assert llm._engine is not None
    return int(llm._engine._core.output_processor.get_num_unfinished_requests())


@pytest.mark.soak
def test_twenty_chats_have_the_texts_of_the_engine_by_hand(llm: VLLM) -> None:
    from vllm import SamplingParams, TokensPrompt

    assert llm._engine is not None
    core, tokenizer = llm._engine._core, llm._engine.tokenizer

    async def by_hand(number: int) -> tuple[int, str, int]:
        ids = tokenizer.apply_chat_template(CHATS[number], add_generation_prompt=True, return_dict=False)
        params = SamplingParams(temperature=0, max_tokens=16)
        *_, last = [
            item async for item in core.generate(TokensPrompt(prompt_token_ids=ids), params, f"hand-{number}")
        ]
        return len(ids), last.outputs[0].text, len(last.outputs[0].token_ids)

    async def all_by_hand() -> list[tuple[int, str, int]]:
        return await asyncio.gather(*map(by_hand, range(len(CHATS))))

    expected = llm.run_on_loop(all_by_hand())
    found = [
        (
            output["statistics"]["input_tokens"][0],
            output["generations"][0],
            output["statistics"]["output_tokens"][0],
        )
        for output in llm.generate_outputs(CHATS, **GREEDY)
    ]
    assert found == expected


def test_twenty_greedy_texts_are_those_of_transformers(llm: VLLM) -> None:
    outputs = llm.generate_outputs(agreement.CHATS, **agreement.PARAMETERS)
    # The engine leaves out a character of which it has written a part only.
    assert [found for found in agreement.differences(outputs) if "not '\ufffd'" not in found] == []


def test_a_seed_has_its_text_alone_and_among_twenty(llm: VLLM) -> None:
    asked: dict[str, Any] = {"seed": 5, "temperature": 1.0, "max_new_tokens": 12}
    together = llm.generate_outputs(CHATS, **asked)
    for row in (0, 7, 19):
        assert llm.generate_outputs([CHATS[row]], **asked) == [together[row]]
    assert len({output["generations"][0] for output in together}) > 10


def test_a_chat_has_one_token_of_beginning_and_a_stop_text_is_left_out(llm: VLLM) -> None:
    assert llm._engine is not None
    tokenizer = llm._engine.tokenizer
    ids = tokenizer.apply_chat_template(CHATS[0], add_generation_prompt=True, return_dict=False)
    (whole,) = llm.generate_outputs(CHATS[:1], **GREEDY)
    assert whole["statistics"]["input_tokens"] == [len(ids)]
    text = whole["generations"][0] or ""
    stop = text[5:8]  # from the middle of a token
    (cut,) = llm.generate_outputs(CHATS[:1], stop=stop, **GREEDY)
    assert (cut["generations"][0] or "") == text[: text.index(stop)]
    assert cut["finish_reasons"] == ["stop"]


def test_several_generations_without_chance_are_equal_and_counted(llm: VLLM) -> None:
    (output,) = llm.generate_outputs(CHATS[:1], num_generations=3, **GREEDY)
    assert len(set(output["generations"])) == 1
    assert [len(output["generations"]), len(output["statistics"]["output_tokens"])] == [3, 3]


def test_the_models_own_settings_hold_where_nothing_is_given(llm: VLLM) -> None:
    assert llm._engine is not None
    llm._engine.defaults = {"temperature": 0.0, "max_tokens": 3}
    try:
        outputs = [llm.generate_outputs(CHATS[:1])[0] for _ in range(2)]
        assert outputs[0]["generations"] == outputs[1]["generations"]
        assert outputs[0]["statistics"]["output_tokens"] == [3]
    finally:
        llm._engine.defaults = {}


def test_a_prefix_that_was_read_before_is_counted_as_cached(llm: VLLM) -> None:
    llm.enable_prefix_caching = True
    prompt = "one two three four five six seven eight nine ten " * 20
    first, second = (
        llm.generate_outputs([prompt], max_new_tokens=1)[0]["statistics"]["cached_tokens"] for _ in range(2)
    )
    assert first == [0]
    assert second[0] > 100
    llm.enable_prefix_caching = None  # what depends on the rows before is not in the output
    assert "cached_tokens" not in llm.generate_outputs([prompt], max_new_tokens=1)[0]["statistics"]


def test_who_leaves_ends_the_request_in_the_engine(llm: VLLM) -> None:
    asked: dict[str, Any] = {"max_new_tokens": 400, "extra_body": {"ignore_eos": True}}

    async def leave() -> None:
        calls = asyncio.ensure_future(llm.agenerate_outputs(CHATS, num_generations=2, **asked))
        while not unfinished(llm):  # noqa: ASYNC110  -- the engine has no event for it
            await asyncio.sleep(0.01)
        calls.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls

    asyncio.run(leave())
    assert unfinished(llm) == 0
    assert llm._engine is not None
    # The engine itself says that it has nothing to do: it would wait for what it has.
    core = llm._engine._core
    llm.run_on_loop(core.pause_generation(mode="wait", clear_cache=False))
    llm.run_on_loop(core.resume_generation())
    assert llm.generate_outputs(CHATS[:1], **GREEDY)[0]["generations"][0]


def test_log_probabilities_have_the_generated_token_first(llm: VLLM) -> None:
    (output,) = llm.generate_outputs(CHATS[:1], top_logprobs=3, **GREEDY)
    (positions,) = output["logprobs"]
    text = "".join(position[0]["token"] for position in positions)
    assert text.strip() == (output["generations"][0] or "").strip()
    for position in positions:
        assert len(position) == 3
        values = [candidate["logprob"] for candidate in position]
        assert values == sorted(values, reverse=True)  # without chance, the generated one is the first
    (alone,) = llm.generate_outputs(CHATS[:1], logprobs=True, **GREEDY)
    assert [[candidate["token"] for candidate in position] for position in alone["logprobs"][0]] == [
        [position[0]["token"]] for position in positions
    ]
    with pytest.raises(GenerationError, match="at most 20") as raised:
        llm.generate_outputs(CHATS[:1], top_logprobs=21, **GREEDY)
    assert raised.value.stops_run


def test_odds_of_tokens_are_changed_by_text_and_by_number(llm: VLLM) -> None:
    assert llm._engine is not None
    (number,) = llm._engine.tokenizer.encode(" Lima", add_special_tokens=False)[-1:]
    for key in (number, str(number), " Lima"):
        output = llm.generate_outputs(
            ["The capital is"], temperature=0, max_new_tokens=1, logit_bias={key: 90}
        )
        assert output[0]["generations"] == [llm._engine.tokenizer.decode([number])] or key == " Lima"
    with pytest.raises((ConfigurationError, GenerationError), match="token 999999"):
        llm.generate_outputs(["A"], logit_bias={999999: 1})


@pytest.mark.parametrize(
    ("extra", "words"),
    [({"n": 2}, "num_generations"), ({"temprature": 1}, "temprature"), ({"min_tokens": -1}, "min_tokens")],
)
def test_further_parameters_are_the_engines_and_wrong_ones_stop_the_run(
    llm: VLLM, extra: dict[str, Any], words: str
) -> None:
    with pytest.raises((ConfigurationError, GenerationError), match=words):
        llm.generate_outputs(CHATS[:1], extra_body=extra)


def test_further_parameters_reach_the_engine(llm: VLLM) -> None:
    asked: dict[str, Any] = {"temperature": 0, "max_new_tokens": 12, "logit_bias": {2: 100}}
    (ended,) = llm.generate_outputs(CHATS[:1], **asked)
    (longer,) = llm.generate_outputs(CHATS[:1], extra_body={"min_tokens": 5}, **asked)
    assert ended["statistics"]["output_tokens"] == [1]
    assert longer["statistics"]["output_tokens"] >= [5]


def test_a_prompt_without_tokens_fails_alone(llm: VLLM) -> None:
    outputs = [output for _, output in llm.iter_outputs(["", "Hi"], on_error="yield", **GREEDY)]
    assert isinstance(outputs[0], GenerationError)
    assert outputs[0].kind == "invalid_request"
    assert not isinstance(outputs[1], GenerationError)


def test_what_the_engine_refuses_of_a_row_is_an_error_of_that_row(llm: VLLM) -> None:
    """Also a prompt that is too long for the engine alone, by an exception of its own."""
    assert llm._engine is not None
    engine = llm._engine
    context, engine.context = engine.context, 10**9
    try:
        rows = [*CHATS[:3], said("river " * 800), *CHATS[3:6]]
        outputs = [output for _, output in llm.iter_outputs(rows, on_error="yield", **GREEDY)]
    finally:
        engine.context = context
    error = outputs.pop(3)
    assert isinstance(error, GenerationError)
    assert (error.kind, "room for 511" in error.message) == ("context_length", True)
    assert not any(isinstance(output, GenerationError) for output in outputs)


# Forms.

_KINDS = st.sampled_from(
    [
        {"type": "integer", "minimum": -5, "maximum": 99},
        {"type": "string", "maxLength": 6},
        {"type": "string", "pattern": "^[a-c]{2,3}$"},
        {"type": "boolean"},
        {"enum": ["x", "é", 7, None]},
        {"const": {"a": [1]}},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0, "maximum": 3}]},
    ]
)
_SCHEMAS = st.dictionaries(st.sampled_from("pqr"), _KINDS, min_size=1, max_size=2).map(
    lambda properties: {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }
)


@settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(schema=_SCHEMAS, seed=st.integers(0, 9))
def test_json_has_its_form(llm: VLLM, schema: dict[str, Any], seed: int) -> None:
    import jsonschema

    rows: Any = [(chat, {"format": "json", "schema": schema}) for chat in CHATS[:3]]
    for _, output in llm.iter_outputs(rows, on_error="yield", seed=seed, max_new_tokens=40):
        if isinstance(output, GenerationError):
            assert output.kind == "truncated", output
            continue
        text = output["generations"][0]
        jsonschema.validate(json.loads(text or ""), schema)
        assert text == json.dumps(json.loads(text or ""), separators=(",", ":"), ensure_ascii=False)


def test_patterns_and_choices_hold(llm: VLLM) -> None:
    rows: Any = [
        (CHATS[0], {"format": "regex", "schema": r"\d{2}-[a-c/]{2}"}),
        (CHATS[1], {"format": "choice", "schema": ["yes", 'a "quoted" no']}),
        (CHATS[2], {"format": "regex", "schema": "(Lima|Quito)"}),
    ]
    outputs = llm.generate_outputs(rows, num_generations=2, seed=1, max_new_tokens=20)
    for text in outputs[0]["generations"]:
        assert re.fullmatch(r"[0-9]{2}-[a-c/]{2}", text or "")
    assert set(outputs[1]["generations"]) <= {"yes", 'a "quoted" no'}
    assert set(outputs[2]["generations"]) <= {"Lima", "Quito"}


@pytest.mark.parametrize(
    "form",
    [
        {"format": "json", "schema": {"type": "object", "not": {"required": ["a"]}}},
        {"format": "json", "schema": {"type": "array", "uniqueItems": True}},
        {"format": "json", "schema": {"type": "string", "pattern": "(?=a)b"}},
        {"format": "json", "schema": {"$ref": "#/$defs/missing"}},
        {"format": "regex", "schema": r"(a)\1"},
    ],
)
def test_forms_that_the_engine_cannot_enforce_are_refused_before_anything_is_sent(
    llm: VLLM, form: Any
) -> None:
    assert llm._engine is not None
    before = llm._engine._number
    with pytest.raises((UnsupportedError, ConfigurationError)):
        llm.generate_outputs([(CHATS[0], form)])
    assert llm._engine._number == before


def test_magpie_writes_the_users_message(llm: VLLM) -> None:
    llm.magpie_pre_query_template = "qwen2"
    llm.use_magpie_template = True
    (output,) = llm.generate_outputs([[{"role": "system", "content": "You help."}]], **GREEDY)
    assert output["generations"][0]
    assert output["statistics"]["input_tokens"][0] < 20


def test_the_llm_has_a_name_without_being_loaded(tmp_path: Path) -> None:
    assert VLLM(model="some/Model-1B").model_name == "Model-1B"
    assert VLLM(model=str(tmp_path / "folder")).model_name == "folder"
