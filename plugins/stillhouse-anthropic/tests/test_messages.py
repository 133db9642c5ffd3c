"""Chats, tools and images in the API's form."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from stillhouse import ConfigurationError
from stillhouse_anthropic.messages import request_messages
from stillhouse_anthropic.tools import request_tool_choice, request_tools

USER = {"role": "user", "content": "Hi"}


def test_one_system_message() -> None:
    assert request_messages([{"role": "system", "content": "Be brief."}, USER]) == ("Be brief.", [USER])  # type: ignore[list-item]


def test_no_system_message() -> None:
    assert request_messages([USER]) == (None, [USER])  # type: ignore[list-item]


def test_system_messages_in_their_order_with_their_keys() -> None:
    cached = {"role": "system", "content": "A", "cache_control": {"type": "ephemeral"}}
    later = {"role": "developer", "content": [{"type": "text", "text": "B"}]}
    chat: Any = [cached, USER, later]
    before = copy.deepcopy(chat)
    system, messages = request_messages(chat)
    assert system == [
        {"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "B"},
    ]
    assert messages == [USER]
    assert chat == before


def test_system_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="add a user message"):
        request_messages([{"role": "system", "content": "Be brief."}])


def test_tool_calls_and_results_become_content_blocks() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1]}'}}
    other = {"id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    chat: Any = [
        USER,
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [call, other],
            "thinking_blocks": [thinking],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "f", "content": "one"},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": [{"type": "text", "text": "two"}],
            "is_error": True,
        },
        {"role": "user", "content": "So?"},
    ]
    before = copy.deepcopy(chat)
    _, messages = request_messages(chat)
    assert messages[1:] == [
        {
            "role": "assistant",
            "content": [
                thinking,
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": [1]}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                {
                    "type": "tool_result",
                    "tool_use_id": "c2",
                    "content": [{"type": "text", "text": "two"}],
                    "is_error": True,
                },
            ],
        },
        {"role": "user", "content": "So?"},
    ]
    assert chat == before


def test_tool_results_of_two_turns_are_separate_messages() -> None:
    result: Any = {"role": "tool", "tool_call_id": "c", "content": "x"}
    _, messages = request_messages([USER, result, {"role": "assistant", "content": "Again."}, result])  # type: ignore[list-item]
    assert [message["role"] for message in messages] == ["user", "user", "assistant", "user"]
    assert [len(message["content"]) for message in messages[1::2]] == [1, 1]


def test_arguments_that_are_no_json() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{x"}}
    with pytest.raises(ConfigurationError, match="'f' are not valid JSON"):
        request_messages([USER, {"role": "assistant", "content": None, "tool_calls": [call]}])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({"url": "https://host/a.png", "detail": "high"}, {"type": "url", "url": "https://host/a.png"}),
        ("http://host/a.png", {"type": "url", "url": "http://host/a.png"}),
        (
            {"url": "data:image/jpeg;base64,QUJD"},
            {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"},
        ),
    ],
)
def test_image_parts_become_image_blocks(given: Any, source: dict[str, str]) -> None:
    part = {"type": "image_url", "image_url": given, "cache_control": {"type": "ephemeral"}}
    document = {"type": "document", "source": {"type": "url", "url": "https://host/a.pdf"}}
    chat: Any = [{"role": "user", "content": [part, document, {"type": "text", "text": ""}]}]
    _, messages = request_messages(chat)
    image = {"type": "image", "source": source, "cache_control": {"type": "ephemeral"}}
    assert messages == [{"role": "user", "content": [image, document]}]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *(("image/jpg", "image/jpeg"), ("IMAGE/JPEG", "image/jpeg"), ("image/pjpeg", "image/jpeg")),
        *(("image/x-png", "image/png"), ("image/Png", "image/png"), (" image/webp ", "image/webp")),
    ],
)
def test_the_media_type_of_an_image_is_named_as_the_api_names_it(given: str, name: str) -> None:
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": f"data:{given};base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": f"DATA:{given};BASE64,iVBO%52w0K\nGgo%3D"},
        {"type": "image", "source": {"type": "base64", "media_type": given, "data": "iVBORw0KGgo="}},
    ]
    _, messages = request_messages([{"role": "user", "content": parts}])
    source = {"type": "base64", "media_type": name, "data": "iVBORw0KGgo="}
    assert messages[0]["content"] == [{"type": "image", "source": source}] * 3
    assert parts[2]["source"]["media_type"] == given


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            None,
            "ftp://host/a",
            "data:image/png,abc",
            "data:;base64,QQ",
            "photo.png",
            "data:image/png;base64,",
        ),
        *("data:image/png;base64,QUJ*", "data:image/png;base64,QUJDR", "data:image/svg+xml;base64,QUJD"),
        *("data:application/pdf;base64,QUJD", "data:image/heic;base64,QUJD", "data:text/html;base64,QUJD"),
    ],
)
def test_images_that_nobody_can_fetch(url: Any) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(ConfigurationError, match="data:image/png;base64"):
        request_messages([{"role": "user", "content": [part]}])


def test_tools_in_either_form() -> None:
    schema = {"type": "object", "properties": {}}
    function = {"name": "f", "description": "d", "parameters": schema, "strict": True}
    search = {"type": "web_search_20250305", "name": "web_search"}
    own = {"name": "g", "input_schema": schema}
    assert request_tools([{"type": "function", "function": function}, search, own]) == [
        {"name": "f", "description": "d", "strict": True, "input_schema": schema},
        search,
        own,
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tool_choice(given: Any, expected: dict[str, Any]) -> None:
    assert request_tool_choice(given) == expected
