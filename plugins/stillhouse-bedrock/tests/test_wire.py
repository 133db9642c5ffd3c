"""What is sent for inputs and parameters, and what is read from answers. botocore's model of the service is the
judge of both."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.http import Request
from stillhouse.outputs import check_output
from stillhouse_bedrock import BedrockLLM

from .conftest import CHAT, MODEL, answer

loaders: Any = pytest.importorskip("botocore.loaders")
model: Any = pytest.importorskip("botocore.model")
parsers: Any = pytest.importorskip("botocore.parsers")
serialize: Any = pytest.importorskip("botocore.serialize")
validate: Any = pytest.importorskip("botocore.validate")

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "length_of",
        "description": "The length of a river.",
        "parameters": {"type": "object", "properties": {"river": {"type": "string"}}},
        "strict": True,
    },
}
CALL: Any = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "length_of", "arguments": '{"river": "Ucayali"}'},
}
TURN: Any = [
    *CHAT,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "1771 km"},
]


@pytest.fixture(scope="session")
def converse() -> Any:
    """The operation, as botocore describes it."""
    service = loaders.Loader().load_service_model("bedrock-runtime", "service-2")
    return model.ServiceModel(service, "bedrock-runtime").operation_model("Converse")


@pytest.fixture
def body_of(converse: Any) -> Any:
    """Makes the body for an input, which the service's model must take, and botocore must write likewise."""

    def made(chat: Any, **arguments: Any) -> dict[str, Any]:
        fields = {key: arguments.pop(key) for key in ("prompt_caching",) if key in arguments}
        before = copy.deepcopy((chat, arguments))
        llm = BedrockLLM(model=MODEL, **fields)
        body: dict[str, Any] = llm.request_of(chat, 1, arguments).body
        assert (chat, arguments) == before
        given = with_bytes({**body, "modelId": MODEL})
        report = validate.ParamValidator().validate(given, converse.input_shape)
        assert not report.has_errors(), report.generate_report()
        written = serialize.create_serializer("rest-json").serialize_to_request(given, converse)
        assert json.loads(written["body"]) == json.loads(json.dumps(body))
        return body

    return made


def with_bytes(value: Any) -> Any:
    """A body as botocore takes it: it writes bytes as base64 itself."""
    if isinstance(value, dict):
        if set(value) == {"bytes"}:
            return {"bytes": base64.b64decode(value["bytes"], validate=True)}
        if set(value) == {"redactedContent"}:
            return {"redactedContent": base64.b64decode(value["redactedContent"], validate=True)}
        return {key: with_bytes(item) for key, item in value.items()}
    return [with_bytes(item) for item in value] if isinstance(value, list) else value


def output(given: Any) -> Any:
    return BedrockLLM(model=MODEL).output_of(given, Request("model/m/converse", None))


def text(role: str, *texts: str) -> dict[str, Any]:
    return {"role": role, "content": [{"text": item} for item in texts]}


# Messages


def test_system_messages_leave_the_chat_and_neighbours_of_a_role_are_merged(body_of: Any) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": " "}]},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "\n"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "d"},
    ]
    body = body_of(chat)
    assert body == {
        "system": [{"text": "Be brief."}, {"text": "Be kind."}],
        "messages": [text("user", "a", "b"), text("assistant", "c"), text("user", "d")],
    }


@pytest.mark.parametrize("content", ["", " ", "\n\t", [], [{"type": "text", "text": " "}], [{"text": ""}]])
def test_chat_with_nothing_to_be_answered_is_refused(body_of: Any, content: Any) -> None:
    with pytest.raises(ConfigurationError, match="blank"):
        body_of([{"role": "system", "content": "x"}, {"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("media_type", "format"),
    [("png", "png"), ("jpg", "jpeg"), ("JPEG", "jpeg"), ("pjpeg", "jpeg"), ("gif", "gif"), ("webp", "webp")],
)
def test_image_is_base64_once_and_has_the_format_that_the_api_knows(
    body_of: Any, media_type: str, format: str
) -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/{media_type};base64,{PNG}"}}
    body = body_of([{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}])
    (image, _) = body["messages"][0]["content"]
    assert image == {"image": {"format": format, "source": {"bytes": PNG}}}
    assert base64.b64decode(image["image"]["source"]["bytes"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("url", ["https://example.org/a.png", f"data:image/svg+xml;base64,{PNG}", "data:,x"])
def test_image_that_the_api_does_not_take_is_refused(body_of: Any, url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(ConfigurationError) as caught:
        body_of([{"role": "user", "content": [part]}])
    assert "data:image/png;base64" in caught.value.hint


@pytest.mark.parametrize(
    "block",
    [
        {"document": {"format": "pdf", "name": "a", "source": {"bytes": "JVBERg=="}}},
        {"guardContent": {"text": {"text": "x"}}},
        {"cachePoint": {"type": "default", "ttl": "1h"}},
        {"image": {"format": "png", "source": {"bytes": PNG}}},
        {"text": "own"},
    ],
)
def test_block_in_the_own_form_of_the_api_is_left_as_it_is(body_of: Any, block: Any) -> None:
    body = body_of([{"role": "user", "content": ["x", block]}])
    assert body["messages"][0]["content"] == [{"text": "x"}, block]


def test_own_image_block_has_its_format_named_as_the_api_does(body_of: Any) -> None:
    block = {"image": {"format": "jpg", "source": {"bytes": PNG}}}
    body = body_of([{"role": "user", "content": [block]}])
    assert body["messages"][0]["content"][0]["image"]["format"] == "jpeg"
    assert block["image"]["format"] == "jpg"
    with pytest.raises(ConfigurationError, match="svg"):
        body_of([{"role": "user", "content": [{"image": {"format": "svg", "source": {"bytes": PNG}}}]}])


@pytest.mark.parametrize("part", [{"type": "input_audio", "input_audio": {}}, {"a": 1, "b": 2}, 5, None])
def test_part_of_another_kind_is_refused(body_of: Any, part: Any) -> None:
    with pytest.raises(ConfigurationError, match="does not support parts"):
        body_of([{"role": "user", "content": ["x", part]}])


# Tools


def test_tools_calls_and_results(body_of: Any) -> None:
    body = body_of(TURN, tools=[TOOL], tool_choice="required")
    function = TOOL["function"]
    spec = {key: function[key] for key in ("name", "description", "strict")}
    assert body["toolConfig"] == {
        "tools": [{"toolSpec": {**spec, "inputSchema": {"json": function["parameters"]}}}],
        "toolChoice": {"any": {}},
    }
    use = {"toolUseId": "call_1", "name": "length_of", "input": {"river": "Ucayali"}}
    assert body["messages"][1:] == [
        {"role": "assistant", "content": [{"toolUse": use}]},
        {
            "role": "user",
            "content": [{"toolResult": {"toolUseId": "call_1", "content": [{"text": "1771 km"}]}}],
        },
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", None),  # it is what the model does without, and some models take no choice
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "length_of"}}, {"tool": {"name": "length_of"}}),
        ({"tool": {"name": "length_of"}}, {"tool": {"name": "length_of"}}),
    ],
)
def test_tool_choices(body_of: Any, choice: Any, sent: Any) -> None:
    assert body_of(CHAT, tools=[TOOL], tool_choice=choice)["toolConfig"].get("toolChoice") == sent


def test_no_tool_is_no_tools_unless_the_history_has_calls(body_of: Any) -> None:
    assert "toolConfig" not in body_of(CHAT, tools=[TOOL], tool_choice="none")
    assert "toolConfig" not in body_of(CHAT, tools=[])
    sent = body_of(TURN, tools=[TOOL], tool_choice="none")["toolConfig"]
    assert sent.keys() == {"tools"}
    assert sent["tools"][0]["toolSpec"]["description"] == "The length of a river."


def test_history_with_calls_has_the_tools_that_it_names(body_of: Any) -> None:
    for chat in (TURN, TURN[:2]):
        assert body_of(chat)["toolConfig"] == {
            "tools": [{"toolSpec": {"name": "length_of", "inputSchema": {"json": {"type": "object"}}}}]
        }
    assert body_of(TURN[2:])["toolConfig"]["tools"][0]["toolSpec"]["name"] == "tool"


def test_choice_of_a_tool_where_there_is_none_is_refused(body_of: Any) -> None:
    with pytest.raises(ConfigurationError, match="requires tools"):
        body_of(CHAT, tool_choice="required")
    with pytest.raises(UnsupportedError, match="sometimes"):
        body_of(CHAT, tools=[TOOL], tool_choice="sometimes")


@pytest.mark.parametrize("name", ["a b", "a.b", "ü", "", "x" * 65, None])
def test_name_of_a_tool_that_the_api_refuses_is_refused_before(body_of: Any, name: Any) -> None:
    tool = {"type": "function", "function": {**TOOL["function"], "name": name}}
    call = {**CALL, "function": {**CALL["function"], "name": name}}
    chat = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [call]}, TURN[2]]
    for messages, tools in ((CHAT, [tool]), (chat, [TOOL])):
        with pytest.raises(ConfigurationError, match="does not accept the tool name"):
            body_of(messages, tools=tools)


@pytest.mark.parametrize("arguments", ['["a"]', "text", "[1", [1], "5"])
def test_arguments_that_are_no_object_are_refused(body_of: Any, arguments: Any) -> None:
    call = {**CALL, "function": {"name": "length_of", "arguments": arguments}}
    with pytest.raises(ConfigurationError, match="arguments of the tool call"):
        body_of([*CHAT, {"role": "assistant", "content": None, "tool_calls": [call]}, TURN[2]])


def test_blank_description_and_missing_parameters(body_of: Any) -> None:
    tool = {"type": "function", "function": {"name": "now", "description": " ", "parameters": None}}
    (sent,) = body_of(CHAT, tools=[tool])["toolConfig"]["tools"]
    assert sent == {"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object"}}}}


@pytest.mark.parametrize("id", ["x" * 65, "a b", "übung|1"])
def test_id_of_another_provider_is_rewritten_on_both_sides(body_of: Any, id: str) -> None:
    chat = copy.deepcopy(TURN)
    chat[1]["tool_calls"][0]["id"] = chat[2]["tool_call_id"] = id
    _, call, result = body_of(chat)["messages"]
    sent = call["content"][0]["toolUse"]["toolUseId"]
    assert sent == result["content"][0]["toolResult"]["toolUseId"] != id
    with pytest.raises(ConfigurationError, match="no id"):
        body_of([*TURN[:2], {"role": "tool", "content": "x"}])


@pytest.mark.parametrize("content", ["", " ", None, []])
def test_tool_that_returned_nothing_has_no_blank_text(body_of: Any, content: Any) -> None:
    result = body_of([*TURN[:2], {**TURN[2], "content": content}])["messages"][-1]["content"][0]["toolResult"]
    assert result["content"] == [{"json": {}}]


def test_result_may_be_an_image_and_an_error(body_of: Any) -> None:
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    chat = [*TURN[:2], {**TURN[2], "content": parts, "status": "error"}]
    result = body_of(chat)["messages"][-1]["content"][0]["toolResult"]
    assert (result["status"], list(result["content"][0])) == ("error", ["image"])


def test_results_come_first_in_the_turn_after_their_calls(body_of: Any) -> None:
    calls = [{**CALL, "id": id} for id in ("a", "b")]
    results = [{"role": "tool", "tool_call_id": id, "content": id} for id in ("a", "b")]
    seen = {"role": "user", "content": "See the map."}
    chat = [*CHAT, {"role": "assistant", "tool_calls": calls}, results[0], seen, results[1], seen]
    blocks = body_of(chat)["messages"][-1]["content"]
    assert [block["toolResult"]["toolUseId"] for block in blocks[:2]] == ["a", "b"]
    assert blocks[2:] == [{"text": "See the map."}] * 2


# Parameters


def test_every_parameter_has_its_place(body_of: Any) -> None:
    body = body_of(
        CHAT,
        max_new_tokens=50,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop="###",
        reasoning_effort="high",
        thinking={"type": "adaptive"},
        guardrail_config={"guardrailIdentifier": "g1", "guardrailVersion": "1"},
        service_tier="flex",
        performance_config={"latency": "optimized"},
        request_metadata={"run": "7"},
        extra_body={
            "inferenceConfig": {"maxTokens": 60},
            "additionalModelRequestFields": {"k": 1},
            "additionalModelResponseFieldPaths": ["/stop_sequence"],
        },
    )
    del body["messages"]
    assert body == {
        "inferenceConfig": {"maxTokens": 60, "temperature": 0.5, "topP": 0.9, "stopSequences": ["###"]},
        "additionalModelRequestFields": {"top_k": 40, "thinking": {"type": "adaptive"}, "k": 1},
        "outputConfig": {"effort": "high"},
        "guardrailConfig": {"guardrailIdentifier": "g1", "guardrailVersion": "1"},
        "serviceTier": {"type": "flex"},
        "performanceConfig": {"latency": "optimized"},
        "requestMetadata": {"run": "7"},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
    }


def test_nothing_is_sent_that_nobody_asked_for(body_of: Any) -> None:
    assert body_of(CHAT).keys() == body_of(CHAT, max_new_tokens=None, tools=None).keys() == {"messages"}


def test_effort_beyond_the_shared_levels_is_for_extra_body(body_of: Any, converse: Any) -> None:
    assert body_of(CHAT, reasoning_effort="max")["outputConfig"] == {"effort": "max"}
    assert body_of(CHAT, extra_body={"outputConfig": {"effort": "xhigh"}})["outputConfig"] == {
        "effort": "xhigh"
    }
    for level in ("none", "minimal"):
        with pytest.raises(UnsupportedError, match=level) as caught:
            body_of(CHAT, reasoning_effort=level)
        assert "low, medium, high, max" in caught.value.hint


def test_schema_is_a_text_and_closed_as_claude_takes_it(body_of: Any) -> None:
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "object"}}}
    sent = body_of((CHAT, {"format": "json", "schema": schema}), reasoning_effort="low")["outputConfig"]
    assert sent["effort"] == "low"
    assert sent["textFormat"]["type"] == "json_schema"
    text = sent["textFormat"]["structure"]["jsonSchema"]["schema"]
    assert json.loads(text) == {
        "type": "object",
        "properties": {"b": {"type": "string"}, "a": {"type": "object", "additionalProperties": False}},
        "additionalProperties": False,
    }
    assert text.index('"b"') < text.index('"a"')


@pytest.mark.parametrize(
    "keyword", [{"minimum": 1}, {"maxLength": 3}, {"multipleOf": 2}, {"pattern": "(?=a)"}, {"maxItems": 2}]
)
def test_schema_that_bedrock_refuses_is_refused_before(keyword: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", **keyword}}}
    with pytest.raises(UnsupportedError, match=next(iter(keyword))):
        BedrockLLM(model=MODEL, structured_output={"format": "json", "schema": schema})
    for form in ("regex", "choice"):
        with pytest.raises(UnsupportedError, match=form):
            BedrockLLM.form_fields({"format": form, "schema": "a"})  # type: ignore[typeddict-item]


# Caching

POINT = {"cachePoint": {"type": "default"}}


def test_prompt_caching_marks_system_tools_and_the_last_user_message(body_of: Any) -> None:
    chat = [{"role": "system", "content": "Be brief."}, *TURN]
    body = body_of(chat, tools=[TOOL], prompt_caching=True)
    assert body["system"][1:] == body["toolConfig"]["tools"][1:] == [POINT]
    assert [message["content"][-1] == POINT for message in body["messages"]] == [False, False, True]
    assert json.dumps(body).count("cachePoint") == 3
    assert "cachePoint" not in json.dumps(body_of(chat, tools=[TOOL]))
    assert json.dumps(body_of(CHAT, prompt_caching=True)).count("cachePoint") == 1


def test_prompt_caching_leaves_a_mark_of_the_users_alone(body_of: Any) -> None:
    own = {"cachePoint": {"type": "default", "ttl": "1h"}}
    body = body_of([{"role": "user", "content": ["a", own]}], prompt_caching=True)
    assert body["messages"][0]["content"] == [{"text": "a"}, own]


def test_prompt_caching_adds_no_more_marks_than_the_api_takes(body_of: Any) -> None:
    system = {"role": "system", "content": "Be brief."}
    marked = {"role": "user", "content": [item for text in "abc" for item in (text, POINT)]}
    body = body_of([system, marked, TURN[1], TURN[2]], tools=[TOOL], prompt_caching=True)
    assert json.dumps(body).count("cachePoint") == 4
    assert body["messages"][-1]["content"][-1] == POINT


def test_prompt_caching_marks_no_conversation_with_thoughts(body_of: Any) -> None:
    thoughts = [{"type": "thinking", "thinking": "hmm", "signature": "c2ln"}]
    chat = [{"role": "system", "content": "x"}, CHAT[0], {**TURN[1], "thinking_blocks": thoughts}, TURN[2]]
    body = body_of(chat, prompt_caching=True)
    assert body["system"][-1] == POINT
    assert "cachePoint" not in json.dumps(body["messages"])


def test_mark_in_the_form_of_anthropic_is_one(body_of: Any) -> None:
    part = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    assert body_of([{"role": "user", "content": [part, "x"]}])["messages"][0]["content"] == [
        {"text": "long"},
        POINT,
        {"text": "x"},
    ]


def test_mark_of_a_whole_message_is_one_behind_it(body_of: Any) -> None:
    marked = {"cache_control": {"type": "ephemeral"}}
    part = {"type": "text", "text": "1771 km", **marked}
    chat = [{"role": "system", "content": "x", **marked}, *TURN[:2], {**TURN[2], "content": [part]}]
    body = body_of(chat)
    assert body["system"] == [{"text": "x"}, POINT]
    result, mark = body["messages"][-1]["content"]
    assert (result["toolResult"]["content"], mark) == ([{"text": "1771 km"}], POINT)
    body = body_of([{"role": "user", "content": "x", **marked}, *TURN[1:2], {**TURN[2], **marked}])
    assert [message["content"][-1] == POINT for message in body["messages"]] == [True, False, True]
    assert len(body["messages"][-1]["content"]) == 2


# Reasoning

THOUGHT = {"reasoningContent": {"reasoningText": {"text": "hmm", "signature": "c2ln+/=="}}}
HIDDEN = {"reasoningContent": {"redactedContent": "ZW5jcnlwdGVk"}}
USE = {"toolUse": {"toolUseId": "tooluse_1", "name": "length_of", "input": {"river": "Ucayali"}}}


def test_reasoning_comes_apart_and_goes_back_unchanged(body_of: Any) -> None:
    made = output(answer(THOUGHT, HIDDEN, {"text": "Let me look."}, USE, stop="tool_use"))
    assert (made["generations"], made["reasoning"]) == (["Let me look."], ["hmm"])
    turn = {
        "role": "assistant",
        "content": made["generations"][0],
        "thinking_blocks": made["thinking_blocks"][0],
        "tool_calls": made["tool_calls"][0],
    }
    result = {"role": "tool", "tool_call_id": "tooluse_1", "content": "1771 km"}
    sent = body_of([*CHAT, turn, result], tools=[TOOL])["messages"][1]
    assert sent["content"] == [THOUGHT, HIDDEN, {"text": "Let me look."}, USE]
    own = [*CHAT, {"role": "assistant", "content": [THOUGHT, {"text": "x"}]}, *CHAT]
    assert body_of(own)["messages"][1]["content"] == [THOUGHT, {"text": "x"}]


def test_reasoning_without_a_signature_is_not_for_the_history() -> None:
    """Models whose thoughts are not signed refuse them in a history."""
    thought = {"reasoningContent": {"reasoningText": {"text": "hmm"}}}
    made = output(answer(thought, {"text": "Hi"}, USE, stop="tool_use"))
    assert (made["generations"], made["reasoning"]) == (["Hi"], ["hmm"])
    assert "thinking_blocks" not in made


# Answers


@pytest.mark.parametrize(
    ("word", "reason", "kept"),
    [
        ("end_turn", "stop", True),
        ("stop_sequence", "stop", True),
        ("max_tokens", "length", True),
        ("model_context_window_exceeded", "length", True),
        ("tool_use", "tool_calls", True),
        ("guardrail_intervened", "content_filter", False),
        ("content_filtered", "content_filter", False),
        ("malformed_model_output", "malformed_model_output", True),
        ("malformed_tool_use", "malformed_tool_use", True),
        ("A_Reason_Of_2027", "a_reason_of_2027", True),
        (None, None, True),
        (5, None, True),
    ],
)
def test_finish_reasons(word: Any, reason: Any, kept: bool) -> None:
    made = output(answer({"text": "a"}, {"text": "b"}, stop=word))
    assert made["finish_reasons"] == [reason]
    assert made["generations"] == (["ab"] if kept else [None])
    assert made.get("guardrail_outputs") == (None if kept else ["ab"])


def test_every_stop_reason_of_the_service_has_a_meaning(converse: Any) -> None:
    for word in converse.output_shape.members["stopReason"].enum:
        assert output(answer(stop=word))["finish_reasons"][0]


def test_usage_counts_the_cache_as_input() -> None:
    usage = {"inputTokens": 10, "outputTokens": 7, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    assert output(answer(**usage))["statistics"] == {
        "input_tokens": [130],
        "output_tokens": [7],
        "cached_tokens": [100],
        "cache_creation_tokens": [20],
    }
    assert output({**answer(), "usage": {"outputTokens": 3}})["statistics"] == {"output_tokens": [3]}
    assert output({**answer(), "usage": None})["statistics"] == {}
    llm = BedrockLLM(model=MODEL)
    assert llm.used_tokens(output(answer(**usage))) == 37


def test_calls_of_the_tools_of_aws_are_not_the_users() -> None:
    own = {"toolUse": {**USE["toolUse"], "type": "server_tool_use"}}
    assert "tool_calls" not in output(answer(own, {"text": "found"}))


@pytest.mark.parametrize(
    ("word", "reason"), [("end_turn", "tool_calls"), (None, "tool_calls"), ("max_tokens", "length")]
)
def test_turn_that_ends_with_a_call_has_it(word: Any, reason: str) -> None:
    made = output(answer(USE, stop=word))
    assert (made["finish_reasons"], made.get("stop_reasons")) == ([reason], [word])


def test_answer_with_calls_alone_has_no_text() -> None:
    made = output(answer(USE, stop="tool_use"))
    assert made["generations"] == [None]
    (call,) = made["tool_calls"][0]
    assert call["function"] == {"name": "length_of", "arguments": '{"river":"Ucayali"}'}


def test_text_with_citations_and_what_else_came() -> None:
    cited = {"citationsContent": {"content": [{"text": "It is "}, {"text": "so."}], "citations": []}}
    given = answer(cited, {"text": "."})
    given["trace"] = {"guardrail": {"actionReason": "none"}}
    given["additionalModelResponseFields"] = {"stop_sequence": "###"}
    made = output(given)
    assert made["generations"] == ["It is so.."]
    assert made["trace"] == [given["trace"]]
    assert made["additional_model_response_fields"] == [{"stop_sequence": "###"}]


def test_answer_is_read_as_botocore_reads_it(converse: Any) -> None:
    given = answer(
        THOUGHT, {"text": "Hi"}, USE, stop="tool_use", cacheReadInputTokens=5, cacheWriteInputTokens=0
    )
    response = {"status_code": 200, "headers": {}, "body": json.dumps(given).encode()}
    parsed = parsers.create_parser("rest-json").parse(response, converse.output_shape)
    made = output(given)
    content = parsed["output"]["message"]["content"]
    assert made["generations"] == [content[1]["text"]]
    assert made["reasoning"] == [content[0]["reasoningContent"]["reasoningText"]["text"]]
    assert json.loads(made["tool_calls"][0][0]["function"]["arguments"]) == content[2]["toolUse"]["input"]
    usage = parsed["usage"]
    assert made["statistics"]["input_tokens"] == [usage["inputTokens"] + usage["cacheReadInputTokens"]]
    assert made["stop_reasons"] == [parsed["stopReason"]]


@pytest.mark.parametrize(
    "given", [None, [], "x", {}, {"output": None}, {"output": {"message": {"content": "x"}}}]
)
def test_answer_without_a_message_keeps_what_was_counted(given: Any) -> None:
    with pytest.raises(GenerationError, match="no message") as caught:
        output(given)
    assert (caught.value.kind, caught.value.outputs) == ("server", [])
    if isinstance(given, dict):
        with pytest.raises(GenerationError) as caught:
            output({**given, "usage": {"inputTokens": 5, "outputTokens": 1}})
        assert caught.value.outputs[0]["statistics"] == {"input_tokens": [5], "output_tokens": [1]}


WHOLE = answer(THOUGHT, HIDDEN, {"text": "Hi"}, USE, stop="tool_use", cacheReadInputTokens=3)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**60),
    st.floats(allow_nan=True),
    st.sampled_from(["", "text", [], {}, [None], {"a": 1}, [[]], {"text": 5}]),
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


@settings(max_examples=400, derandomize=True, deadline=None)
@given(data=st.data())
def test_answer_that_is_odd_anywhere_costs_its_own_row_at_most(data: st.DataObject) -> None:
    given = copy.deepcopy(WHOLE)
    found = list(places(given))
    place, key = found[data.draw(st.integers(0, len(found) - 1))]
    if data.draw(st.booleans()) and isinstance(place, dict):
        del place[key]
    else:
        place[key] = data.draw(ODD)
    with suppress(GenerationError):
        check_output(output(given), 1, "BedrockLLM")
