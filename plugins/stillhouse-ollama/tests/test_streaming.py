"""Answers that are streamed as lines: by a script, and by a server that nobody here wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from stillhouse.testing import ScriptedServer
from stillhouse_ollama import OllamaLLM

CHAT: Any = [{"role": "user", "content": "Name a river."}]
END = {"done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 18}


def lines(*values: Any) -> bytes:
    return "".join(f"{json.dumps(value)}\n" for value in values).encode()


def chat(**message: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", **message}, "done": False}


def test_a_chat_comes_in_pieces(make: Callable[..., OllamaLLM], server: ScriptedServer, says: Any) -> None:
    says(
        lines(
            chat(thinking="Hm"), chat(content="The "), chat(content="Ucayali."), {**chat(content=""), **END}
        )
    )
    llm = make()
    *pieces, output = llm.stream(CHAT)
    assert pieces == ["The ", "Ucayali."]
    (whole,) = llm.generate_outputs([CHAT])
    assert output == {**whole, "reasoning": ["Hm"]}
    streamed, plain = (request.body for request in server.requests)
    assert streamed == {**plain, "stream": True}


def test_a_raw_prompt_comes_in_pieces(make: Callable[..., OllamaLLM], says: Any) -> None:
    says(
        lines(
            {"response": " a", "done": False}, {"response": " time", "done": False}, {"response": "", **END}
        )
    )
    *pieces, output = make().stream("Once upon")
    assert pieces == [" a", " time"]
    assert output["generations"] == [" a time"]  # type: ignore[index]


def test_another_server_streams_what_it_answers(aimock: Any) -> None:
    text = "The Ucayali, which is long, and joins the Marañón."
    aimock.reply("Name a river", text)
    aimock.reply("Once upon", " a time there was a river.")
    with OllamaLLM(model="llama3.2", base_url=aimock.url, retry_timeout=10) as llm:
        *pieces, output = llm.stream(CHAT)
        assert len(pieces) > 1
        assert "".join(pieces) == output["generations"][0] == text  # type: ignore[arg-type, index]
        assert output["finish_reasons"] == ["stop"]  # type: ignore[index]
        *pieces, output = llm.stream("Once upon")
        assert "".join(pieces) == " a time there was a river."  # type: ignore[arg-type]
