"""What backends read from chats and tools, whatever API they write them for."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import ConfigurationError, UnsupportedError
from stillhouse.http import (
    InlineImage,
    NamedTool,
    arguments_of,
    choice_of,
    complete_tool,
    effort_of,
    function_of,
    image_of,
    lean_message,
    split_system,
    text_of,
    tool_call,
    tool_names,
)

TYPES = ("image/jpeg", "image/png")
PIXEL = base64.b64encode(b"\x89PNG pixel").decode()


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_system_messages_leave_the_chat_wherever_they_stand() -> None:
    chat: Any = [{"role": role, "content": role} for role in ("user", "system", "assistant", "developer")]
    system, others = split_system(chat)
    assert [item["role"] for item in system] == ["system", "developer"]
    assert [item["role"] for item in others] == ["user", "assistant"]
    assert split_system(others) == ([], others)


def test_text_of_joins_parts_and_refuses_what_is_no_text() -> None:
    assert text_of(None) == ""
    assert text_of("as it is") == "as it is"
    assert text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"]) == "abc"
    for odd in (image("https://a.test/b.png"), 1, {"type": "text", "text": None}):
        with pytest.raises(ConfigurationError, match="takes text only"):
            text_of([odd])


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (f"data:image/png;base64,{PIXEL}", InlineImage("image/png", PIXEL)),
        (f"DATA:image/JPG;charset=x;BASE64,{PIXEL}", InlineImage("image/jpeg", PIXEL)),
        (f" data:image/x-png;base64,{PIXEL[:4]}\n{PIXEL[4:]} ", InlineImage("image/png", PIXEL)),
        (f"data:image/png;base64,{PIXEL.replace('=', '%3D')}", InlineImage("image/png", PIXEL)),
        (" https://a.test/b.png", "https://a.test/b.png"),
    ],
)
def test_image_is_found_in_every_form_of_its_url(url: str, found: Any) -> None:
    assert image_of(image(url), TYPES) == found
    assert image_of({"type": "image_url", "image_url": url}, TYPES) == found


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (None, "no url"),
        ("", "no url"),
        (3, "no url"),
        ("data:image/png,plain", "neither"),
        ("data:image/png;base64", "neither"),
        ("data:image/png;base64,@@", "not base64"),
        ("data:image/png;base64,aaaaa", "not base64"),
        ("data:image/png;base64,", "not base64"),
        (f"data:image/svg+xml;base64,{PIXEL}", "image/jpeg, image/png"),
        (f"data:;base64,{PIXEL}", "image/jpeg, image/png"),
    ],
)
def test_image_that_cannot_be_sent_is_refused(url: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        image_of(image(url), TYPES)
    assert caught.value.hint


def test_address_of_an_image_is_refused_where_the_api_fetches_none() -> None:
    with pytest.raises(ConfigurationError, match="fetches no images") as caught:
        image_of(image("https://a.test/b.png"), TYPES, urls=False)
    assert "address on the web" not in caught.value.hint


@given(st.binary(min_size=1, max_size=64), st.sampled_from(["", "\n", " \t", "%0A"]))
@settings(derandomize=True, max_examples=100)
def test_bytes_of_an_image_arrive_as_they_are(data: bytes, between: str) -> None:
    text = base64.b64encode(data).decode()
    url = f"data:image/png;base64,{between.join(text[i : i + 5] for i in range(0, len(text), 5))}"
    found = image_of(image(url), TYPES)
    assert isinstance(found, InlineImage)
    assert base64.b64decode(found.data, validate=True) == data


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3), st.booleans())
@settings(derandomize=True, max_examples=50)
def test_call_of_an_answer_goes_back_as_it_came(arguments: dict[str, Any], as_text: bool) -> None:
    # Integers beyond 64 bits are no JSON of ours.
    arguments = {
        key: value for key, value in arguments.items() if not isinstance(value, int) or abs(value) < 2**53
    }
    given: Any = json.dumps(arguments) if as_text else arguments
    call = tool_call("id", "f", given)
    assert isinstance(call["function"]["arguments"], str)
    before = copy.deepcopy(call)
    assert arguments_of(call) == arguments
    assert call == before


def test_call_without_arguments_has_none() -> None:
    assert json.loads(tool_call(None, "f", None)["function"]["arguments"]) == {}
    assert tool_call(7, "f", "")["id"] == "7"
    for call in ({}, {"function": None}, {"function": {"arguments": ""}}, {"function": {"arguments": None}}):
        assert arguments_of(call) == {}
    for nothing in ("null", " ", "\n{}"):
        assert arguments_of({"function": {"arguments": nothing}}) == {}


@pytest.mark.parametrize("given", ["{", "[1]", "3", '"text"', [1], 3])
def test_arguments_that_are_no_object_are_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="'f' are not") as caught:
        arguments_of({"function": {"name": "f", "arguments": given}})
    assert caught.value.hint == "write them as a JSON object"


def test_names_of_called_functions_are_found_by_id() -> None:
    chat: Any = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": None},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [tool_call("a", "f", {}), tool_call("b", "g", {})],
        },
        {"role": "assistant", "content": None, "tool_calls": [{"id": 1}, "x", {"id": "c", "function": "f"}]},
    ]
    assert tool_names(chat) == {"a": "f", "b": "g"}


def test_tools_and_choices_in_the_providers_own_form_are_told_apart() -> None:
    assert function_of({"type": "function", "function": {"name": "f"}}) == {"name": "f"}
    assert choice_of({"type": "function", "function": {"name": "f"}}) == NamedTool("f")
    assert choice_of("required") == "required"
    for own in ({"name": "f", "input_schema": {}}, {"type": "any"}, {"function": "f"}, None, 3):
        assert function_of(own) is None
        assert choice_of(own) is None


def test_effort_is_the_providers_or_refused_with_those_it_has() -> None:
    levels = {"none": 0, "high": 8192}
    assert effort_of("high", levels, "MyLLM") == 8192
    assert effort_of("none", levels, "MyLLM") == 0
    for odd in ("medium", "", None, ["high"]):
        with pytest.raises(UnsupportedError, match="MyLLM has no reasoning_effort") as caught:
            effort_of(odd, levels, "MyLLM")  # type: ignore[arg-type]
        assert caught.value.hint == "choose one of none, high"
        assert caught.value.stops_run


def test_messages_lose_what_is_null_and_their_reasoning() -> None:
    given_message: Any = {
        "role": "assistant", "content": None, "refusal": None, "annotations": [],
        "reasoning": "", "reasoning_content": "hmm", "tool_calls": [{"id": "1"}],
    }  # fmt: skip
    before = copy.deepcopy(given_message)
    made = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert lean_message(given_message) == (made, "hmm")
    assert given_message == before
    assert lean_message({"role": "developer", "content": []}) == ({"role": "system", "content": []}, None)
    user: Any = {"role": "user", "content": "x", "reasoning": "mine"}
    assert lean_message(user) == (user, None)


def test_a_tool_gets_the_parameters_that_it_lacks() -> None:
    own = {"type": "web_search"}
    assert complete_tool(own) is own
    tool: Any = {"type": "function", "function": {"name": "f", "description": None}}
    complete = complete_tool(tool)
    assert complete["function"] == {"name": "f", "parameters": {"type": "object", "properties": {}}}
    assert complete_tool(complete) == complete
    assert tool["function"] == {"name": "f", "description": None}
