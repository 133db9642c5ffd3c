"""Inputs that are refused before anything is sent, by every backend."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import ConfigurationError
from stillhouse.inputs import check_input
from stillhouse.typing import CAPABILITIES


def parts(url: Any) -> list[dict[str, Any]]:
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "input_image", "image_url": url},
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "image", "source": {"type": "url", "url": url}},
    ]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "FILE:///x/y.png",
            " file:///x",
            "file:x.png",
            "/home/x.png",
            "~/x.png",
            "x.png",
        ),
        *("C:\\x.png", "c:/x.png", "\\\\host\\x.png", "//host/x.png", "../x.png", "ftp://host/x.png"),
        *("blob:https://host/1", "sftp://host/x", "javascript:x", "iVBORw0KGgo=", "\ud800"),
    ],
)
def test_a_file_of_this_machine_is_neither_sent_by_its_name_nor_read(url: str) -> None:
    for part in parts(url):
        chat = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}]
        with pytest.raises(ConfigurationError, match="not sent by their name") as caught:
            check_input(chat, CAPABILITIES, "AnLLM")
        assert "data:image/png;base64" in caught.value.hint
        assert len(caught.value.message) < 250
        with pytest.raises(ConfigurationError):
            check_input((chat, None), CAPABILITIES, "AnLLM")


@pytest.mark.parametrize(
    "url",
    [
        "https://host/x.png",
        "HTTP://host/x.png",
        "data:image/png;base64,QUJD",
        "data:,",
        "gs://b/x.png",
        "s3://b/x",
        "",
        None,
        5,
    ],
)
def test_what_a_provider_may_read_is_left_to_the_backend(url: Any) -> None:
    for part in parts(url):
        check_input([{"role": "user", "content": [part]}], CAPABILITIES, "AnLLM")
    text = {"type": "text", "text": "see file:///etc/passwd", "image_url": None}
    check_input([{"role": "user", "content": [text, "file:///etc/passwd"]}], CAPABILITIES, "AnLLM")


@pytest.mark.parametrize("content", [5, True, 1.5, {}, {"type": "text", "text": "a"}, b"a"])
def test_a_content_that_is_none_is_refused(content: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"content of a message is of type {type(content).__name__}"):
        check_input([{"role": "user", "content": content}], CAPABILITIES, "AnLLM")
    check_input([{"role": "user", "content": "a"}, {"role": "assistant", "content": None}], CAPABILITIES, "A")


@pytest.mark.parametrize("calls", ["x", [None], ["x"], {"id": "1"}, 3])
def test_tool_calls_that_are_none_are_refused(calls: Any) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    with pytest.raises(ConfigurationError, match="tool_calls") as caught:
        check_input(chat, {"chat"}, "MyLLM")
    assert "function" in caught.value.hint
    for fine in (None, [], [{"id": "1"}]):
        check_input([chat[0], {**chat[1], "tool_calls": fine}], {"chat"}, "MyLLM")
