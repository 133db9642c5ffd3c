"""What the API is sent, and what becomes of its answers."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.http import Request
from stillhouse.outputs import check_output
from stillhouse_cohere import CohereLLM

from .conftest import answer

CHAT: Any = [{"role": "user", "content": "hello"}]
LLM = CohereLLM(model="m", api_key="k")
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FORM: Any = {"format": "json", "schema": SCHEMA}


def body_of(chat: Any = CHAT, **arguments: Any) -> dict[str, Any]:
    body: dict[str, Any] = LLM.request_of(chat, 1, LLM.check_arguments(arguments)).body
    return body


def output_of(given: Any) -> dict[str, Any]:
    return dict(LLM.output_of(given, Request("v2/chat", None)))


def test_only_what_is_set_is_sent() -> None:
    assert body_of() == {"model": "m", "stream": False, "messages": CHAT}
    assert body_of(temperature=None, tools=[], tool_choice="auto") == {
        "model": "m",
        "stream": False,
        "messages": CHAT,
    }
    assert body_of(tools=[TOOL], tool_choice="auto")["tools"] == [TOOL]


def test_parameters_have_the_names_of_the_api() -> None:
    same: dict[str, Any] = {
        "temperature": 0.5, "seed": 3, "frequency_penalty": 0.1, "presence_penalty": 0.2, "logprobs": True,
        "tools": [TOOL], "strict_tools": True, "thinking": {"type": "disabled"}, "documents": ["a", {"data": {}}],
        "citation_options": {"mode": "fast"}, "safety_mode": "STRICT", "priority": 3,
    }  # fmt: skip
    body = body_of(
        **same, max_new_tokens=5, top_p=0.9, top_k=4, stop="x", tool_choice="required", extra_body={"new": 1}
    )
    renamed = {
        "max_tokens": 5,
        "p": 0.9,
        "k": 4,
        "stop_sequences": ["x"],
        "tool_choice": "REQUIRED",
        "new": 1,
    }
    assert body == {"model": "m", "stream": False, "messages": CHAT, **same, **renamed}


@pytest.mark.parametrize(
    ("name", "value"), [("top_logprobs", 2), ("logit_bias", {}), ("min_p", 0.1), ("repetition_penalty", 1.1)]
)
def test_parameter_that_the_api_lacks_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        LLM.check_arguments({name: value})


def test_effort_is_a_budget_of_tokens() -> None:
    assert body_of(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert body_of(reasoning_effort="low")["thinking"] == {"type": "enabled", "token_budget": 1024}
    assert body_of(reasoning_effort="max")["thinking"] == {"type": "enabled"}
    with pytest.raises(ConfigurationError, match="set the same thing"):
        body_of(reasoning_effort="low", thinking={"type": "disabled"})


def test_tool_by_name_is_the_only_one_that_is_offered() -> None:
    wanted = {"type": "function", "function": {"name": "time"}}
    body = body_of(tools=[TOOL, OTHER], tool_choice=wanted)
    assert (body["tools"], body["tool_choice"]) == ([OTHER], "REQUIRED")
    assert body_of(tools=[TOOL], tool_choice="none")["tool_choice"] == "NONE"
    with pytest.raises(ConfigurationError, match="not among the tools"):
        body_of(tools=[TOOL], tool_choice=wanted)
    for odd in ("sometimes", {"type": "tool"}):
        with pytest.raises(ConfigurationError, match="tool_choice"):
            body_of(tools=[TOOL], tool_choice=odd)


def test_strict_is_a_field_of_all_tools() -> None:
    strict = {**TOOL, "function": {**TOOL["function"], "strict": True, "description": None}}  # type: ignore[dict-item]
    body = body_of(tools=[strict])
    assert (body["tools"], body["strict_tools"]) == ([TOOL], True)
    assert body_of(tools=[strict], strict_tools=False)["strict_tools"] is False
    assert "strict_tools" not in body_of(tools=[strict, OTHER])


def test_structured_output_is_a_json_schema() -> None:
    assert body_of((CHAT, FORM))["response_format"] == {"type": "json_object", "json_schema": SCHEMA}


@pytest.mark.parametrize(("name", "value"), [("tools", [TOOL]), ("documents", ["a"])])
def test_structured_output_goes_with_neither_tools_nor_documents(
    make: Any, script: Any, name: str, value: Any
) -> None:
    llm = make(structured_output=FORM)
    with pytest.raises(UnsupportedError, match=f"together with {name}"):
        llm.generate_outputs([CHAT], **{name: value})
    with pytest.raises(GenerationError, match=f"together with {name}"):
        make().generate_outputs([(CHAT, FORM)], **{name: value})
    assert not script.requests


def test_json_is_asked_for_only_where_nothing_asks_for_it() -> None:
    instruction = "Answer with a JSON object."
    asked: Any = [{"role": "user", "content": [{"type": "text", "text": "as json, please"}]}]
    assert body_of((CHAT, FORM))["messages"] == [{"role": "system", "content": instruction}, *CHAT]
    assert body_of((asked, FORM))["messages"] == asked
    begun: Any = [{"role": "system", "content": "Be brief."}, *CHAT]
    assert body_of((begun, FORM))["messages"][0]["content"] == f"Be brief.\n\n{instruction}"
    assert begun[0]["content"] == "Be brief."
    assert body_of(response_format={"type": "json_object"})["messages"] == CHAT


def test_chat_is_written_as_the_api_has_it() -> None:
    thought = {"type": "thinking", "thinking": "hmm"}
    chat: Any = [
        {"role": "developer", "content": "be brief", "name": None},
        *CHAT,
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0}], "refusal": None},
        {"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": None},
        {"role": "assistant", "content": "I look again", "tool_calls": [CALL], "tool_plan": "Hm."},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "So"}], "tool_calls": [
            {"id": 7, "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
        ]},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "So"}]},
    ]  # fmt: skip
    before = copy.deepcopy(chat)
    assert body_of(chat)["messages"] == [
        {"role": "system", "content": "be brief"},
        *CHAT,
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": ""},
        {"role": "assistant", "tool_plan": "Hm.\nI look again", "tool_calls": [CALL]},
        {"role": "assistant", "tool_plan": "So", "content": [thought], "tool_calls": [{**CALL, "id": "7"}]},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "So"}]},
    ]
    assert chat == before


def test_messages_as_the_sdk_of_openai_dumps_them_are_taken() -> None:
    dumped = {"content": "Fine.", "refusal": None, "annotations": [], "audio": None, "tool_calls": None}
    for reasoning in (None, "", "\n", ["odd"]):
        turn = {"role": "assistant", **dumped, "reasoning": reasoning, "reasoning_content": reasoning}
        assert body_of([*CHAT, turn])["messages"][1] == {"role": "assistant", "content": "Fine."}


def test_every_tool_has_parameters() -> None:
    (tool,) = body_of(tools=[{"type": "function", "function": {"name": "now"}}])["tools"]
    assert tool["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/v2", "/v2/", "/v2/chat", "/compatibility/v1", "/v2?team=v1"]
)
def test_every_form_of_the_address_leads_to_the_api(
    make: Any, script: Any, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("CO_API_URL", script.url + path)
    script.reply(answer())
    llm = make(base_url=None)
    llm.generate_outputs([CHAT])
    assert script.requests[0].path == "/v2/chat" + ("?team=v1" if "?" in path else "")
    assert llm.api_url == f"{script.url}/"


@pytest.mark.parametrize("calls", [None, [CALL]])
def test_reasoning_of_an_answer_goes_back_as_a_thought(calls: Any) -> None:
    turn = {"role": "assistant", "content": "Fine.", "reasoning": "hmm", "tool_calls": calls}
    sent = body_of([*CHAT, turn])["messages"][1]
    assert sent["content"][0] == {"type": "thinking", "thinking": "hmm"}
    assert sent.get("tool_plan", "Fine.") == "Fine."
    assert "reasoning" not in sent


def test_arguments_that_are_no_object_are_refused() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": [1]}}
    with pytest.raises(ConfigurationError, match="not a JSON object"):
        body_of([*CHAT, {"role": "assistant", "tool_calls": [call]}])


def test_models_that_chat_are_listed_page_by_page(make: Any, script: Any) -> None:
    models = [
        {"name": "command-a", "endpoints": ["generate", "chat"], "context_length": 256000.0},
        {"name": "embed-v4", "endpoints": ["embed"], "context_length": 512},
    ]
    script.reply({"models": models, "next_page_token": "p2"})
    script.reply({"models": [{"name": "own", "context_length": None}], "next_page_token": ""})
    assert make().list_models() == [{"name": "command-a", "context_length": 256000}, {"name": "own"}]
    assert [asked.path for asked in script.requests] == ["/v1/models", "/v1/models?page_token=p2"]


def test_images_pass_as_they_are() -> None:
    parts = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
    ]
    assert body_of([{"role": "user", "content": parts}])["messages"][0]["content"] == parts


def test_answer_becomes_an_output() -> None:
    given = answer([{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": "fine"}], "MAX_TOKENS")
    given["message"]["citations"] = [{"start": 0, "end": 4, "text": "fine"}]
    given["usage"]["cached_tokens"] = 2.0
    given["logprobs"] = [
        {"text": "fi", "token_ids": [1], "logprobs": [-0.5]},
        {"text": "ne", "token_ids": [2, 3], "logprobs": [-0.25, -0.5]},
        {"text": "", "token_ids": []},
    ]
    assert output_of(given) == {
        "generations": ["fine"],
        "finish_reasons": ["length"],
        "statistics": {
            "input_tokens": [15], "output_tokens": [4], "cached_tokens": [2], "billed_input_tokens": [5],
            "billed_output_tokens": [3],
        },
        "reasoning": ["hmm"],
        "citations": [[{"start": 0, "end": 4, "text": "fine"}]],
        "logprobs": [[[{"token": "fi", "logprob": -0.5}], [{"token": "ne", "logprob": -0.75}], []]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "reason"),
    [("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("TOOL_CALL", "tool_calls"), ("NEW_2027", "new_2027")],
)
def test_finish_reasons(word: str, reason: str) -> None:
    assert output_of(answer("x", word))["finish_reasons"] == [reason]


def test_answer_without_usage_has_unknown_counts() -> None:
    given = answer()
    del given["usage"]
    assert output_of(given)["statistics"] == {}


def test_answer_that_cannot_be_used_keeps_its_tokens() -> None:
    for odd in (answer(5), answer(None, None), {**answer(), "message": None}, answer("x", "ERROR")):
        with pytest.raises(GenerationError) as caught:
            output_of(odd)
        (counted,) = caught.value.outputs
        assert counted is not None
        assert counted["statistics"]["output_tokens"] == [4]


def test_what_the_api_warns_of_is_logged_once(make: Any, script: Any, caplog: Any) -> None:
    script.reply(answer(), headers={"X-API-Warning": "model m is deprecated; key-0001-test"})
    with caplog.at_level(logging.WARNING, "stillhouse.llm"):
        make().generate_outputs([CHAT, CHAT, CHAT])
    (record,) = caplog.records
    assert "model m is deprecated" in record.getMessage()
    assert "key-0001" not in record.getMessage()
    assert record.name == "stillhouse.llm.m"


def test_trial_key_says_what_is_left_of_its_minute(make: Any, script: Any) -> None:
    left = {"x-trial-endpoint-call-limit": "20", "x-trial-endpoint-call-remaining": "0"}
    script.reply(answer(), headers=left)
    llm = make()
    llm.generate_outputs([CHAT])
    assert llm._transport.limits.try_acquire(10) is None


REAL = answer(
    [{"type": "thinking", "thinking": "hmm"}, {"type": "text", "text": "x"}],
    tool_plan="I look",
    tool_calls=[CALL],
    citations=[{"start": 0}],
)
REAL["logprobs"] = [{"text": "x", "token_ids": [1, 2], "logprobs": [-0.1, -0.2]}]
ODD = st.sampled_from([None, True, 0, -1, 1.5, float("nan"), "", "x", [], {}, [None], [[]], {"a": 1}, 10**30])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(found for key in keys for found in places(value[key], (*path, key)))]


@settings(derandomize=True, max_examples=400, deadline=None)
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
    check_output(output, None, "CohereLLM")  # type: ignore[arg-type]
