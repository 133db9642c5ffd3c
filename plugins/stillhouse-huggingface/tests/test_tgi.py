"""Text Generation Inference: what is sent to it, what is refused, and what its answers become."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError, UnsupportedError
from stillhouse.outputs import check_output
from stillhouse.testing import Reply
from stillhouse_huggingface import InferenceEndpointsLLM
from stillhouse_huggingface.tgi import generated, keep_counts

CHAT: list[Any] = [{"role": "user", "content": "Name a river."}]
TOOL = {"type": "function", "function": {"name": "length_of", "parameters": {"type": "object"}}}
SCHEMA = {
    "type": "object",
    "properties": {"river": {"type": "string", "maxLength": 20}},
    "required": ["river"],
}


def test_chat_goes_to_openais_path_with_the_servers_names(make: Any, tgi: Any) -> None:
    make().generate_outputs(
        [CHAT], max_new_tokens=5, temperature=0, top_p=1, stop="###", seed=3, frequency_penalty=0.5, top_logprobs=2,
        tools=[TOOL], tool_choice="required",
    )  # fmt: skip
    assert tgi.paths == ["/v1/chat/completions"]
    assert tgi.body() == {
        "model": "tgi", "messages": CHAT, "max_tokens": 5, "temperature": 0, "stop": ["###"], "seed": 3,
        "frequency_penalty": 0.5, "logprobs": True, "top_logprobs": 2, "tools": [TOOL], "tool_choice": "required",
    }  # fmt: skip


REFUSED_CHAT = {
    "presence_penalty": 0.5, "logit_bias": {"5": 1.0}, "top_k": 3, "min_p": 0.1, "typical_p": 0.5,
    "repetition_penalty": 1.1, "watermark": True, "reasoning_effort": "low",
}  # fmt: skip
REFUSED_RAW = {
    "presence_penalty": 0.5, "logit_bias": {"5": 1.0}, "min_p": 0.1, "tools": [TOOL], "tool_choice": "auto",
    "response_format": {"type": "regex", "value": "a"}, "reasoning_effort": "low",
}  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "name", "value"),
    [(CHAT, *item) for item in REFUSED_CHAT.items()] + [("Once", *item) for item in REFUSED_RAW.items()],
)
def test_parameter_that_the_server_would_ignore_is_refused(
    make: Any, tgi: Any, prompt: Any, name: str, value: Any
) -> None:
    with pytest.raises((UnsupportedError, GenerationError), match=name):
        make().generate_outputs([prompt], **{name: value})
    assert not tgi.paths


def test_raw_prompt_goes_to_generate(make: Any, tgi: Any) -> None:
    (output,) = make().generate_outputs(
        ["The longest river of Peru is"], max_new_tokens=5, temperature=0.5, top_p=0.9, top_k=10, typical_p=0.9,
        stop=["\n", ".\n"], seed=42, repetition_penalty=1.1, frequency_penalty=0.1, watermark=True, top_logprobs=2,
        extra_body={"parameters": {"truncate": 100}},
    )  # fmt: skip
    assert tgi.paths == ["/generate"]
    assert tgi.body() == {
        "inputs": "The longest river of Peru is",
        "parameters": {
            "details": True, "return_full_text": False, "do_sample": True, "temperature": 0.5, "top_n_tokens": 2,
            "max_new_tokens": 5, "top_p": 0.9, "top_k": 10, "typical_p": 0.9, "stop": ["\n", ".\n"], "seed": 42,
            "repetition_penalty": 1.1, "frequency_penalty": 0.1, "watermark": True, "truncate": 100,
        },
    }  # fmt: skip
    assert output == {
        "generations": [" the Ucayali"],  # without the longest text that it stopped at
        "finish_reasons": ["stop"],
        "statistics": {"input_tokens": [7], "output_tokens": [4]},
        "logprobs": [[[{"token": " the", "logprob": -0.5}, {"token": " a", "logprob": -1.5}]]],
    }


def test_temperature_of_zero_takes_the_likeliest(make: Any, tgi: Any) -> None:
    make().generate_outputs(["Once"], temperature=0, top_p=1.0, stop="x")
    parameters = tgi.body()["parameters"]
    assert parameters == {"details": True, "return_full_text": False, "do_sample": False, "stop": ["x"]}


def test_logprobs_come_only_where_they_are_asked_for(make: Any, tgi: Any) -> None:
    llm = make()
    (without,) = llm.generate_outputs(["Once"])
    (with_them,) = llm.generate_outputs(["Once"], logprobs=True)
    assert "logprobs" not in without
    assert with_them["logprobs"][0]


def test_adapter_is_named_in_both_ways(make: Any, tgi: Any) -> None:
    llm = make(model="me/adapter")
    llm.generate_outputs([CHAT])
    assert tgi.body()["model"] == "me/adapter"
    llm.generate_outputs(["Once"])
    assert tgi.body()["parameters"]["adapter_id"] == "me/adapter"


def test_generate_is_beside_the_api_below_a_gateway(tgi: Any) -> None:
    for path in ("/info", "/generate", "/v1/chat/completions"):
        tgi.pages[f"/tgi{path}"] = tgi.pages[path]
    with InferenceEndpointsLLM(base_url=f"{tgi.origin}/tgi/v1?a=b", api_key="k") as llm:
        llm.generate_outputs(["Once"])
        llm.generate_outputs([CHAT])
    assert tgi.paths == ["/tgi/info?a=b", "/tgi/generate?a=b", "/tgi/v1/chat/completions?a=b"]


def test_several_generations_are_as_many_requests_with_other_seeds(make: Any, tgi: Any) -> None:
    llm = make()
    (output,) = llm.generate_outputs([CHAT], num_generations=3, seed=5)
    assert len(output["generations"]) == 3
    assert sorted(request.body["seed"] for request in tgi.server.requests) == [5, 6, 7]
    assert all("n" not in request.body for request in tgi.server.requests)
    assert "num_generations" not in llm.capabilities
    assert not llm.makes_several  # so that the requests are made at once


def test_calls_that_end_with_stop_are_calls(make: Any, tgi: Any) -> None:
    function = {"description": None, "name": "length_of", "arguments": {"river": "Ucayali"}}
    message = {"role": "assistant", "tool_calls": [{"id": 0, "type": "function", "function": function}]}
    tgi.pages["/v1/chat/completions"]["choices"] = [{"index": 0, "finish_reason": "stop", "message": message}]
    (output,) = make().generate_outputs([CHAT], tools=[TOOL])
    assert output["finish_reasons"] == ["tool_calls"]
    assert output["tool_calls"][0][0]["function"]["arguments"] == '{"river":"Ucayali"}'


# Structured output


@pytest.mark.parametrize(
    ("form", "grammar", "text"),
    [
        ({"format": "json", "schema": SCHEMA}, {"type": "json", "value": SCHEMA}, '{"river": "Ucayali"}'),
        ({"format": "regex", "schema": "(yes|no)"}, {"type": "regex", "value": "(yes|no)"}, "yes"),
    ],
)
def test_form_is_a_grammar_in_chats_and_raw_prompts(
    make: Any, tgi: Any, form: Any, grammar: Any, text: str
) -> None:
    tgi.pages["/v1/chat/completions"]["choices"][0]["message"]["content"] = text
    tgi.pages["/generate"] = {"generated_text": text, "details": {"finish_reason": "eos_token"}}
    llm = make(structured_output=form)
    outputs = llm.generate_outputs([CHAT, "Once"])
    assert [output["generations"] for output in outputs] == [[text], [text]]
    bodies = {request.path: request.body for request in tgi.server.requests}
    assert bodies["/v1/chat/completions"]["response_format"] == grammar
    assert bodies["/generate"]["parameters"]["grammar"] == grammar
    (own,) = llm.generate_outputs([(CHAT, form)])
    assert own["generations"] == [text]


def test_form_and_tools_are_refused_together(make: Any, tgi: Any) -> None:
    with pytest.raises((UnsupportedError, GenerationError), match="tools"):
        make(structured_output={"format": "json", "schema": SCHEMA}).generate_outputs([CHAT], tools=[TOOL])
    assert not tgi.paths


@pytest.mark.parametrize("name", ["presence_penalty", "logit_bias", "reasoning_effort", "min_p"])
def test_parameter_that_no_request_can_have_is_refused_before_the_first_row(
    make: Any, tgi: Any, name: str
) -> None:
    value: Any = {"logit_bias": {"1": 1}, "reasoning_effort": "low"}.get(name, 1)
    with pytest.raises(UnsupportedError, match=name):
        list(make().iter_outputs([CHAT, "Once"], on_error="yield", **{name: value}))
    llm = make(structured_output={"format": "json", "schema": SCHEMA})
    with pytest.raises(UnsupportedError, match="tools"):
        list(llm.iter_outputs([CHAT], on_error="yield", tools=[TOOL]))
    assert not tgi.paths


def item(**schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        (item(type="integer", minimum=1), "minimum"),
        (item(oneOf=[{"type": "string"}, {"type": "string", "maxLength": 3}]), "oneOf"),
        (item(anyOf=[{"type": "string"}], pattern="a"), "pattern"),
        ({"$ref": "#/$defs/n", "$defs": {"n": item(**{"$ref": "#/$defs/n"})}}, "\\$ref"),
        (item(type="string", pattern="a", minLength=1), "pattern"),
        (item(type="string", format="email"), "format"),
    ],
)
def test_schema_that_the_grammar_does_not_hold_is_refused(
    make: Any, tgi: Any, schema: Any, keyword: str
) -> None:
    form = {"format": "json", "schema": schema}
    with pytest.raises(UnsupportedError, match=f"'{keyword}'"):
        make(structured_output=form)
    with pytest.raises(UnsupportedError, match=f"'{keyword}'"):
        make().generate_outputs([(CHAT, form)])
    assert tgi.paths == []


def test_schema_is_written_as_one_that_the_grammar_holds(make: Any, tgi: Any) -> None:
    river = {"$defs": {"river": {"type": "string", "minLength": 1}}}
    schema = {**item(oneOf=[{"type": "integer"}, {"type": "null"}]), **river}
    schema["properties"]["b"] = {"allOf": [{"$ref": "#/$defs/river"}], "description": "its name"}
    written = {**item(anyOf=[{"type": "integer"}, {"type": "null"}]), **river}
    written["properties"]["b"] = {"$ref": "#/$defs/river"}
    tgi.pages["/v1/chat/completions"]["choices"][0]["message"]["content"] = '{"a": 5}'
    make(structured_output={"format": "json", "schema": schema}).generate_outputs([CHAT])
    assert tgi.body()["response_format"] == {"type": "json", "value": written}


def test_form_is_held_to_what_the_server_is(make: Any, site: Any) -> None:
    """TGI keeps to lengths and patterns, and OpenAI's strict mode to bounds; neither to a choice."""
    bounds = {"format": "json", "schema": item(type="integer", minimum=1)}
    lengths = {"format": "json", "schema": SCHEMA}
    site.pages["/v1/chat/completions"]["choices"][0]["message"]["content"] = '{"a": 5}'
    llm = make(model="m", structured_output=bounds)
    llm.generate_outputs([CHAT])
    assert site.body()["response_format"]["json_schema"]["strict"] is True
    with pytest.raises(UnsupportedError, match="maxLength"):
        llm.generate_outputs([(CHAT, lengths)])
    with pytest.raises(UnsupportedError, match="raw prompts"):
        llm.generate_outputs(["Once"])
    for refused in (lengths, {"format": "regex", "schema": "a+"}):
        with pytest.raises(UnsupportedError):
            make(model="m", structured_output=refused)
    with pytest.raises(UnsupportedError, match="choice"):
        InferenceEndpointsLLM(model="m", structured_output={"format": "choice", "schema": ["a", "b"]})


def test_router_has_no_raw_prompts_and_no_patterns() -> None:
    router, unknown = InferenceEndpointsLLM(model="m"), InferenceEndpointsLLM(base_url="http://h")
    assert {"raw_prompt", "regex"} & router.capabilities == set()
    assert {"raw_prompt", "regex"} <= unknown.capabilities
    assert InferenceEndpointsLLM(base_url="http://h", api="openai").capabilities == unknown.capabilities - {
        "regex"
    }
    router.start_timeout = 5.0  # an assignment changes nothing about it
    assert "regex" not in router.capabilities


@pytest.mark.parametrize("name", ["typical_p", "watermark"])
def test_parameter_of_tgi_alone_is_refused_elsewhere(make: Any, site: Any, name: str) -> None:
    with pytest.raises((UnsupportedError, GenerationError), match=name):
        make(model="m").generate_outputs([CHAT], **{name: 1})
    assert not site.paths


def test_raw_prompt_of_an_openai_endpoint_is_a_completion(make: Any, site: Any) -> None:
    site.pages["/v1/completions"] = {"choices": [{"text": " a river", "finish_reason": "stop"}]}
    (output,) = make(model="m").generate_outputs(["Once"], max_new_tokens=3)
    assert output["generations"] == [" a river"]
    assert site.body() == {"model": "m", "prompt": "Once", "max_tokens": 3}


# Answers


def choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": "stop", **fields}], "usage": {"prompt_tokens": 5}}


def test_arguments_of_a_call_that_are_an_object_come_out_as_text(make: Any, tgi: Any) -> None:
    call = {
        "id": 0,
        "type": "function",
        "function": {"name": "f", "description": None, "arguments": {"city": "Oslo"}},
    }
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    tgi.pages["/v1/chat/completions"] = choice(message=message, finish_reason="tool_calls")
    (output,) = make().generate_outputs([CHAT], tools=[TOOL])
    (calls,) = output["tool_calls"]
    assert calls is not None
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("0", "f")
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Oslo"}


@pytest.mark.parametrize(
    ("reason", "text", "reason_after"),
    [("stop_sequence", "Yes", "stop"), ("stop", "Yes #", "stop"), ("length", "Yes #", "length"),
     ("eos_token", "Yes #", "stop")],
)  # fmt: skip
def test_text_that_a_chat_stopped_at_is_no_part_of_it(
    make: Any, tgi: Any, reason: str, text: str, reason_after: str
) -> None:
    tgi.pages["/v1/chat/completions"] = choice(
        message={"role": "assistant", "content": "Yes #"}, finish_reason=reason
    )
    (output,) = make().generate_outputs([CHAT], stop=["#", " #"])
    assert (output["generations"], output["finish_reasons"]) == ([text], [reason_after])


def test_answer_in_a_list_is_read(make: Any, tgi: Any) -> None:
    whole = tgi.pages["/generate"].body
    tgi.pages["/generate"] = Reply(200, [whole], {"x-prompt-tokens": "9"})
    (output,) = make().generate_outputs(["Once"])
    assert output["generations"] == [" the Ucayali.\n"]
    assert output["statistics"] == {"input_tokens": [9], "output_tokens": [4]}


@pytest.mark.parametrize("count", ["many", "-1", "", "1e99"])
def test_count_in_a_header_that_is_none_is_unknown(make: Any, tgi: Any, count: str) -> None:
    tgi.pages["/generate"] = Reply(200, {"generated_text": "x"}, {"x-prompt-tokens": count})
    (output,) = make(tokens_per_minute=1e6).generate_outputs(["Once"])
    assert output == {"generations": ["x"], "finish_reasons": [None], "statistics": {}}


WHOLE = {
    "generated_text": "a b",
    "details": {
        "finish_reason": "length", "generated_tokens": 2, "seed": None, "prefill": [],
        "tokens": [{"id": 1, "text": "a", "logprob": -0.5, "special": False}],
        "top_tokens": [[{"id": 1, "text": "a", "logprob": -0.5, "special": False}]],
    },
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=2)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.integers()), max_size=3),
)  # fmt: skip


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.sampled_from(places(WHOLE)), ODD, st.booleans(), ODD)
def test_no_part_of_an_answer_is_trusted(path: tuple[Any, ...], odd: Any, is_listed: bool, body: Any) -> None:
    whole: Any = copy.deepcopy(WHOLE)
    if path:
        holder = whole
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = odd
    else:
        whole = odd
    whole = [whole] if is_listed else whole
    keep_counts(whole, {"x-prompt-tokens": "7", "x-generated-tokens": "?"})
    try:
        output = generated(whole, body, logprobs=True)
    except GenerationError:
        return  # of this row alone
    assert all(
        text is None or isinstance(text, str) for text in check_output(output, 1, "TGI")["generations"]
    )
