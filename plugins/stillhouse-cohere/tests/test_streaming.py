"""Answers of `v2/chat` that are streamed: by a script, and by a server that nobody here wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_cohere import CohereLLM

CHAT: Any = [{"role": "user", "content": "How is the weather in Paris?"}]
USAGE = {"tokens": {"input_tokens": 7, "output_tokens": 4}}
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
WHOLE = {
    "id": "m",
    "finish_reason": "COMPLETE",
    "usage": USAGE,
    "logprobs": [{"text": "It ", "logprobs": [-0.5]}],
    "message": {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "It is fine."}],
        "tool_calls": [CALL],
        "tool_plan": "I will look.",
        "citations": [{"start": 0, "end": 2, "text": "It"}],
    },
}


def events(*values: Any, done: bool = True) -> bytes:
    lines = [f"event: {value['type']}\ndata: {json.dumps(value)}\n\n" for value in values]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def event(kind: str, index: int | None = None, **message: Any) -> dict[str, Any]:
    made = {"type": kind, "delta": {"message": message}}
    return made if index is None else {**made, "index": index}


BEGUN = [
    {"type": "message-start", "id": "m", "delta": {"message": {"role": "assistant", "content": []}}},
    event("tool-plan-delta", tool_plan="I will "),
    event("tool-plan-delta", tool_plan="look."),
    event("content-start", 0, content={"type": "thinking", "thinking": ""}),
    event("content-delta", 0, content={"thinking": "Hm."}),
    event("content-end", 0),
    event("content-start", 1, content={"type": "text", "text": ""}),
    {**event("content-delta", 1, content={"text": "It "}), "logprobs": WHOLE["logprobs"][0]},  # type: ignore[index]
    event("content-delta", 1, content={"text": "is fine."}),
    event("content-end", 1),
]
REST = [
    event("citation-start", 0, citations={"start": 0, "end": 2, "text": "It"}),
    event("citation-end", 0),
    event("tool-call-start", 0, tool_calls={**CALL, "function": {"name": "look", "arguments": ""}}),
    event("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"at": '}}),
    event("tool-call-delta", 0, tool_calls={"function": {"arguments": '"sky"}'}}),
    event("tool-call-end", 0),
]


def end(reason: str, **more: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": USAGE, **more}}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer(lambda path, body: WHOLE)
    yield server
    server.close()


def loaded(server: ScriptedServer) -> CohereLLM:
    return CohereLLM(model="command-test", base_url=server.origin, api_key="key", retry_timeout=5)


def test_an_answer_comes_in_pieces_of_its_text(server: ScriptedServer) -> None:
    server.script = [Reply(body=events(*BEGUN, *REST, end("COMPLETE")))]
    with loaded(server) as llm:
        *pieces, output = llm.stream(CHAT)
        (whole,) = llm.generate_outputs([CHAT])
    assert pieces == ["It ", "is fine."]
    assert output == whole
    streamed, plain = (request.body for request in server.requests)
    assert streamed == {**plain, "stream": True}


def test_an_end_that_is_an_error_and_says_nothing_fails(server: ScriptedServer) -> None:
    server.script = [Reply(body=events(*BEGUN, end("ERROR")))]
    with loaded(server) as llm, pytest.raises(GenerationError) as caught:
        list(llm.stream(CHAT))
    assert caught.value.kind == "server"


def test_another_server_streams_what_it_answers(aimock: Any) -> None:
    text = "It is fine, and will stay so until the evening."
    aimock.reply("weather in Paris", text)
    with CohereLLM(model="command-test", base_url=aimock.url, api_key="key-0001-test") as llm:
        *pieces, output = llm.stream(CHAT)
    assert len(pieces) > 1
    assert "".join(pieces) == output["generations"][0] == text  # type: ignore[arg-type, index]
    assert output["finish_reasons"] == ["stop"]  # type: ignore[index]
