"""Ollama's own client as the judge: it takes our addresses and our bodies."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse_ollama import OllamaLLM
from stillhouse_ollama.address import address_of

pytest.importorskip("ollama", reason="pip install ollama")
_types: Any = pytest.importorskip("ollama._types")

HOSTS = [
    "", "1.2.3.4", ":56789", "1.2.3.4:56789", "http://1.2.3.4", "https://1.2.3.4", "https://1.2.3.4:56789",
    "example.com", "example.com:56789", "http://example.com", "https://example.com",
    "https://example.com:56789", "example.com/", "example.com:56789/", "example.com/path",
    "example.com:56789/path", "https://example.com:56789/path", "example.com:56789/path/",
    "[0001:002:003:0004::1]", "[0001:002:003:0004::1]:56789", "http://[0001:002:003:0004::1]",
    "https://[0001:002:003:0004::1]", "[0001:002:003:0004::1]/path", "[0001:002:003:0004::1]:56789/path/",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_addresses_are_those_of_the_client(host: str) -> None:
    from ollama._client import _parse_host

    assert address_of(host) == _parse_host(host)


def bodies() -> list[Any]:
    tool = {
        "type": "function",
        "function": {
            "name": "length_of",
            "description": "The length of a river.",
            "parameters": {
                "type": "object",
                "properties": {"river": {"type": "string"}},
                "required": ["river"],
            },
        },
    }
    call = {"id": "1", "type": "function", "function": {"name": "length_of", "arguments": '{"river": "U"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    chat: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How long?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "1771"},
    ]
    form = {"format": "json", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    given = {"max_new_tokens": 5, "num_ctx": 8192, "stop": ["#"], "think": "high", "keep_alive": "5m"}
    llm = OllamaLLM(model="m", structured_output=form)
    return [
        llm.request_of(chat, 1, {**given, "tools": [tool], "top_logprobs": 3}),
        llm.request_of("Once", 1, {"seed": 1, "keep_alive": -1}),
    ]


def test_bodies_are_those_of_the_client() -> None:
    for request in bodies():
        made = _types.ChatRequest if request.path == "api/chat" else _types.GenerateRequest
        read = made(**request.body).model_dump(exclude_none=True)
        kept = {name: value for name, value in request.body.items() if name not in ("truncate", "shift")}
        read_messages, kept_messages = read.pop("messages", []), kept.pop("messages", [])
        assert read == kept
        for theirs, ours in zip(read_messages, kept_messages, strict=True):
            assert {name: ours[name] for name in theirs if name != "tool_calls"} == {
                name: value for name, value in theirs.items() if name != "tool_calls"
            }
            for their_call, our_call in zip(
                theirs.get("tool_calls", ()), ours.get("tool_calls", ()), strict=True
            ):
                assert their_call["function"] == our_call["function"]
