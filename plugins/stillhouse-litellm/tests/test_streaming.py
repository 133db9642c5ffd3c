"""Answers that LiteLLM streams."""

from __future__ import annotations

from typing import Any

import pytest
from streamed_chats import chunks_of, event_of

from stillhouse import GenerationError
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_litellm import LiteLLM
from stillhouse_litellm.streams import _add_block

from .conftest import KEY, chat_answer

CHAT: Any = [{"role": "user", "content": "hello"}]
EVENTS = chunks_of(chat_answer("Zoë says that it is fine"))
BROKEN = event_of({"error": {"message": "overloaded", "code": 503}})


def loaded(server: ScriptedServer, **fields: Any) -> LiteLLM:
    given = {"base_url": f"{server.origin}/v1", "api_key": KEY, "retry_timeout": 5.0, **fields}
    return LiteLLM(model="openai/m", **given)


def test_an_answer_comes_in_pieces_of_its_text(server: ScriptedServer) -> None:
    server.respond = lambda path, body: chat_answer("Zoë says that it is fine")
    server.script = [Reply(parts=EVENTS)]
    with loaded(server) as llm:
        *pieces, output = llm.stream(CHAT)
        (whole,) = llm.generate_outputs([CHAT])
    assert len(pieces) == 3
    assert output == whole
    streamed, plain = (request.body for request in server.requests)
    assert streamed == {**plain, "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("reply", "kind", "fields"),
    [
        (Reply(parts=EVENTS[:2]), "connection", {}),
        (Reply(parts=[*EVENTS[:2], EVENTS[2][:20]], fault="truncate"), "connection", {}),
        (Reply(parts=[*EVENTS[:2], BROKEN]), "server", {}),
        (Reply(parts=EVENTS[:2], fault="stall"), "timeout", {"timeout": 0.5}),
    ],
    ids=["end", "cut", "error", "silence"],
)
def test_what_breaks_a_stream_is_an_error(
    server: ScriptedServer, reply: Reply, kind: str, fields: dict[str, Any]
) -> None:
    server.always = reply
    pieces: list[Any] = []
    with loaded(server, **fields) as llm, pytest.raises(GenerationError) as caught:
        pieces.extend(llm.stream(CHAT))
    assert caught.value.kind == kind
    assert len(pieces) == len(server.requests) == 1


def test_blocks_of_thoughts_are_joined_up_to_their_signature() -> None:
    blocks: list[Any] = []
    for text, signature in (("Hm, ", None), ("well.", None), ("", "s"), ("Or", None)):
        _add_block(blocks, {"type": "thinking", "thinking": text, "signature": signature})
    assert [(block["thinking"], block["signature"]) for block in blocks] == [("Hm, well.", "s"), ("Or", None)]
