"""`streamGenerateContent`: by a script, and by a server that nobody here wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from stillhouse.testing import Reply, ScriptedServer
from stillhouse_google import GeminiLLM, VertexAILLM

CHAT: Any = [{"role": "user", "content": "How is the weather?"}]
USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 4, "thoughtsTokenCount": 2}


def answer(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate | fields], "responseId": "r", "usageMetadata": USAGE}


def events(*values: Any) -> bytes:
    return "".join(f"data: {json.dumps(value)}\r\n\r\n" for value in values).encode()


THOUGHT = {"text": "Hm", "thought": True}
CALL = {"functionCall": {"name": "look", "args": {"at": "sky"}}}
WHOLE = answer(THOUGHT, {"text": "Rain, "}, {"text": "and wind."}, CALL, finish="STOP")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer(lambda path, body: WHOLE)
    yield server
    server.close()


def gemini(url: str) -> GeminiLLM:
    return GeminiLLM(model="gemini-2.5-flash", base_url=url, api_key="k", retry_timeout=5)


def test_an_answer_comes_in_pieces_of_its_text(server: ScriptedServer) -> None:
    server.script = [
        Reply(
            body=events(
                answer(THOUGHT),
                answer({"text": "Rain, "}),
                answer({"text": "and wind."}, CALL),
                answer(finish="STOP"),
            )
        )
    ]
    with gemini(server.origin) as llm:
        *pieces, output = llm.stream(CHAT)
        (whole,) = llm.generate_outputs([CHAT])
    assert pieces == ["Rain, ", "and wind."]
    assert output == whole
    streamed, plain = server.requests
    assert streamed.path == plain.path.replace(":generateContent", ":streamGenerateContent") + "?alt=sse"
    assert streamed.body == plain.body


def test_log_probabilities_follow_each_other(server: ScriptedServer) -> None:
    def piece(token: str, **more: Any) -> dict[str, Any]:
        chosen = [{"token": token, "logProbability": -0.5}]
        return answer({"text": token}, logprobsResult={"chosenCandidates": chosen}, **more)

    server.script = [Reply(body=events(piece("a"), piece("b", finish="STOP")))]
    with gemini(server.origin) as llm:
        *_, output = llm.stream(CHAT, logprobs=True)
    assert [position[0]["token"] for position in output["logprobs"][0]] == ["a", "b"]  # type: ignore[index]


def test_what_is_withheld_is_none(server: ScriptedServer) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    server.script = [
        Reply(body=events(blocked)),
        Reply(body=events(answer({"text": "Well"}), answer(finish="SAFETY"))),
    ]
    with gemini(server.origin) as llm:
        (output,) = llm.stream(CHAT)
        assert output["generations"] == [None]  # type: ignore[index]
        piece, output = llm.stream(CHAT)
    assert piece == "Well"
    assert output["generations"] == [None]  # type: ignore[index]
    assert output["finish_reasons"] == ["content_filter"]  # type: ignore[index]


@pytest.mark.parametrize("kind", [GeminiLLM, VertexAILLM])
def test_another_server_streams_what_it_answers(aimock: Any, kind: Any) -> None:
    text = "Rain, and a lot of it, from the west."
    aimock.reply("weather", text)
    fields: Any = {"base_url": aimock.url, "model": "gemini-2.5-flash"}
    if kind is GeminiLLM:
        fields["api_key"] = "k"
    else:
        fields |= {"project": "p", "location": "europe-west4", "access_token": "t", "api_version": "v1"}
    with kind(**fields) as llm:
        *pieces, output = llm.stream(CHAT)
    assert len(pieces) > 1
    assert "".join(pieces) == output["generations"][0] == text
    assert output["finish_reasons"] == ["stop"]
