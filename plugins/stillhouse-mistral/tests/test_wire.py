"""What the API is sent, and what becomes of its answers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.http import Request
from stillhouse.outputs import check_output
from stillhouse_mistral import MistralLLM
from stillhouse_mistral.messages import short_ids

from .conftest import answer

CHAT: Any = [{"role": "user", "content": "hello"}]
LLM = MistralLLM(model="m", api_key="k")
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def body_of(chat: Any = CHAT, number: int = 1, **arguments: Any) -> dict[str, Any]:
    body: dict[str, Any] = LLM.request_of(chat, number, LLM.check_arguments(arguments)).body
    return body


def output_of(given: Any) -> dict[str, Any]:
    return dict(LLM.output_of(given, Request("chat/completions", None)))


def call(id: Any, name: str = "weather") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}}


def test_only_what_is_set_is_sent() -> None:
    assert body_of() == {"model": "m", "messages": CHAT}
    assert body_of(temperature=None, tools=[], tool_choice="auto") == {"model": "m", "messages": CHAT}


def test_parameters_have_the_names_of_the_api() -> None:
    given: dict[str, Any] = {
        "max_new_tokens": 5, "min_tokens": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "stop": ["x"], "seed": 3,
        "frequency_penalty": 0.1, "presence_penalty": 0.2, "repetition_penalty": 1.1, "logprobs": True,
        "top_logprobs": 2, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False,
        "reasoning_effort": "high", "prompt_mode": "reasoning", "prediction": "fine", "safe_prompt": True,
        "guardrails": [{"block_on_error": True}], "prompt_cache_key": "c", "service_tier": "auto",
        "extra_body": {"metadata": {"a": 1}},
    }  # fmt: skip
    body = body_of(number=2, **given)
    renamed = {"max_tokens": 5, "random_seed": 3, "n": 2, "metadata": {"a": 1}}
    kept = {key: given[key] for key in given if key not in ("max_new_tokens", "seed", "extra_body")}
    expected = {"model": "m", "messages": CHAT, **kept, **renamed}
    expected["prediction"] = {"type": "content", "content": "fine"}
    assert body == expected


def test_parameter_that_the_api_lacks_is_refused_by_name() -> None:
    for name, value in (("logit_bias", {"1": 2}), ("min_p", 0.1)):
        with pytest.raises(ConfigurationError, match=name):
            LLM.check_arguments({name: value})
    with pytest.raises(ConfigurationError):
        LLM.check_arguments({"reasoning_effort": "xhigh"})


def test_raw_prompt_is_refused(make: Any, script: Any) -> None:
    with pytest.raises(UnsupportedError):
        make().generate_outputs(["raw"])
    assert not script.requests


def test_structured_output_is_a_strict_json_schema() -> None:
    schema = {"title": "River", "type": "object", "properties": {"name": {"type": "string"}}}
    asked = body_of((CHAT, {"format": "json", "schema": schema}))["response_format"]
    strict = {**schema, "additionalProperties": False, "required": ["name"]}
    assert asked == {
        "type": "json_schema",
        "json_schema": {"name": "River", "schema": strict, "strict": True},
    }
    with pytest.raises(UnsupportedError, match="minLength"):
        LLM.structured_output = {"format": "json", "schema": {"type": "string", "minLength": 2}}


def test_fields_of_messages_that_are_null_are_left_out() -> None:
    chat: Any = [
        {"role": "developer", "content": "be brief", "name": None},
        {"role": "user", "content": "hello", "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call("abcdefghi")], "refusal": None},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "21"},
    ]
    before = copy.deepcopy(chat)
    assert body_of(chat)["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [call("abcdefghi")]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "21"},
    ]
    assert chat == before


@pytest.mark.parametrize(
    ("ids", "results"),
    [
        (["call_1", "call_2"], ["call_2", "call_1"]),
        (["toolu_01ABCDEF", "abcdefghi"], ["abcdefghi", "toolu_01ABCDEF"]),
        ([0, 1], [1, "0"]),
        (["", "ä" * 9], ["ä" * 9, ""]),
        (["\ud800", "12345678_"], ["12345678_", "\ud800"]),
    ],
)
def test_tool_call_ids_are_nine_letters_or_digits_on_both_sides(ids: Any, results: Any) -> None:
    results_of = [{"role": "tool", "tool_call_id": id, "content": "21"} for id in results]
    chat = [*CHAT, {"role": "assistant", "content": "", "tool_calls": [*map(call, ids)]}, *results_of]
    _, asked, *answered = body_of(chat)["messages"]
    sent = [item["id"] for item in asked["tool_calls"]]
    assert all(len(id) == 9 and id.isascii() and id.isalnum() for id in sent)
    assert len({*sent}) == 2
    assert [item["tool_call_id"] for item in answered] == sent[::-1]
    assert all(id not in ids or sent[place] == id for place, id in enumerate(sent))


def test_ids_that_would_meet_stay_distinct() -> None:
    made = short_ids(["call_1"])["call_1"]
    assert len({*short_ids(["call_1", made, "call_2"]).values()}) == 3
    assert short_ids([made]) == {made: made}


def test_call_without_an_id_and_odd_messages_pass() -> None:
    bare = {"function": {"name": "weather", "arguments": {}}}
    chat: Any = [
        *CHAT,
        {"role": "assistant", "tool_calls": [bare, {**bare, "id": None}]},
        {"role": "tool", "content": "x"},
    ]
    assert body_of(chat)["messages"][1]["tool_calls"] == [bare, bare]


def test_messages_as_the_sdk_of_openai_dumps_them_are_taken() -> None:
    dumped = {"content": "Fine.", "refusal": None, "annotations": [], "audio": None, "tool_calls": None}
    for reasoning in (None, "", "\n", ["odd"]):
        turn = {"role": "assistant", **dumped, "reasoning": reasoning, "reasoning_content": reasoning}
        assert body_of([*CHAT, turn, *CHAT])["messages"][1] == {"role": "assistant", "content": "Fine."}


def test_what_another_provider_added_to_a_call_is_left_out() -> None:
    signed = {**call("abcdefghi"), "index": 0, "extra_content": {"google": {"thought_signature": "c2ln"}}}
    chat = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [signed]}]
    assert body_of(chat)["messages"][1]["tool_calls"] == [{**call("abcdefghi"), "index": 0}]


def test_tools_have_parameters_and_no_field_that_is_null() -> None:
    tools: Any = [
        {"type": "function", "function": {"name": "now", "description": None, "strict": None}},
        {"type": "web_search"},
    ]
    now = {"name": "now", "parameters": {"type": "object", "properties": {}}}
    assert body_of(tools=tools)["tools"] == [{"type": "function", "function": now}, tools[1]]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_of_an_answer_goes_back_as_thoughts(name: str) -> None:
    turn = {"role": "assistant", "content": "Fine.", name: "hmm"}
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}
    content = [thought, {"type": "text", "text": "Fine."}]
    assert body_of([*CHAT, turn, *CHAT])["messages"][1] == {"role": "assistant", "content": content}


def test_cache_is_asked_for_by_a_key() -> None:
    llm = MistralLLM(model="m", api_key="k", prompt_caching=True)
    assert llm.request_of(CHAT, 1, {}).body["prompt_cache_key"] == "stillhouse"
    assert llm.request_of(CHAT, 1, {"prompt_cache_key": "c"}).body["prompt_cache_key"] == "c"


@pytest.mark.parametrize(
    ("usage", "count"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}, "num_cached_tokens": 5}, 4),
        ({"prompt_token_details": {"cached_tokens": 4}}, 4),
        ({"num_cached_tokens": 0}, 0),
        ({"num_cached_tokens": None, "prompt_token_details": None}, None),
    ],
)
def test_cached_tokens_have_several_names(usage: Any, count: int | None) -> None:
    given = answer()
    given["usage"] |= usage
    assert output_of(given)["statistics"].get("cached_tokens") == (None if count is None else [count])


def test_last_message_of_the_assistant_is_a_prefix() -> None:
    begun: Any = [*CHAT, {"role": "assistant", "content": "The "}]
    assert body_of(begun)["messages"][-1] == {"role": "assistant", "content": "The ", "prefix": True}
    assert body_of([*CHAT, {**begun[-1], "prefix": False}])["messages"][-1]["prefix"] is False
    assert "prefix" not in body_of([*begun, *CHAT])["messages"][1]


def test_models_that_chat_are_listed(make: Any, script: Any) -> None:
    cards = [
        {"id": "mistral-small", "max_context_length": 32768, "capabilities": {"completion_chat": True}},
        {"id": "mistral-embed", "max_context_length": 8192, "capabilities": {"completion_chat": False}},
        {"id": "own", "capabilities": None, "created": 0},
        "odd",
    ]
    script.reply({"object": "list", "data": cards})
    found = make().list_models()
    assert found[0] == {"name": "mistral-small", "context_length": 32768}
    assert [model["name"] for model in found] == ["mistral-small", "own", "odd"]
    assert script.requests[0].path == "/v1/models"


def test_images_pass_as_they_are() -> None:
    parts = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": "https://example.org/a.png"},
    ]
    assert body_of([{"role": "user", "content": parts}])["messages"][0]["content"] == parts


def test_answer_becomes_an_output() -> None:
    given = answer("fine", "model_length")
    given["choices"][0]["logprobs"] = {
        "content": [{"token": "fine", "logprob": -0.5, "token_id": 7, "bytes": [], "top_logprobs": []}]
    }
    given["usage"] |= {"prompt_tokens_details": {"cached_tokens": 4}}
    assert output_of(given) == {
        "generations": ["fine"],
        "finish_reasons": ["length"],
        "statistics": {"input_tokens": [7], "output_tokens": [3], "cached_tokens": [4]},
        "logprobs": [[[{"token": "fine", "logprob": -0.5}]]],
    }


def test_tool_calls_have_text_as_arguments() -> None:
    calls = [{"id": 0, "function": {"name": "f", "arguments": {"city": "Oslo"}}}]
    output = output_of(answer("", "tool_calls", tool_calls=calls))
    assert output["generations"] == [None]
    assert output["tool_calls"] == [[{"id": "0", "function": {"name": "f", "arguments": '{"city":"Oslo"}'}}]]


def test_unknown_finish_reason_is_kept() -> None:
    assert output_of(answer("x", "Paused_For_2027"))["finish_reasons"] == ["paused_for_2027"]


REAL = answer(
    [{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}, {"type": "text", "text": "x"}],
    tool_calls=[{"id": "abcdefghi", "function": {"name": "f", "arguments": {"a": 1}}, "index": 0}],
)
REAL["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": -0.1, "top_logprobs": []}]}
ODD = st.sampled_from([None, True, 0, -1, 1.5, float("nan"), "", "x", [], {}, [None], [[]], {"a": 1}, 10**30])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(found for key in keys for found in places(value[key], (*path, key)))]


@settings(derandomize=True, max_examples=300, deadline=None)
@given(place=st.sampled_from(places(REAL)[1:]), odd=ODD, is_left_out=st.booleans())
def test_answer_with_anything_anywhere_ends_no_more_than_its_row(
    place: Any, odd: Any, is_left_out: bool
) -> None:
    changed = copy.deepcopy(REAL)
    holder: Any = changed
    for key in place[:-1]:
        holder = holder[key]
    if is_left_out:
        del holder[place[-1]]
    else:
        holder[place[-1]] = odd
    if LLM.failure_in(changed, {}) is not None:
        return
    try:
        output = output_of(changed)
    except GenerationError:
        return
    check_output(output, None, "MistralLLM")
