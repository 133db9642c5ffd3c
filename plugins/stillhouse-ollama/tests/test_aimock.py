"""Against a server that speaks Ollama's API, and that nobody here wrote."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse_ollama import OllamaLLM


def test_chats_and_raw_prompts_are_answered(aimock: Any) -> None:
    aimock.reply("Name a river", "The Ucayali.")
    aimock.reply("Once upon", " a time.")
    with OllamaLLM(model="llama3.2", base_url=aimock.url, retry_timeout=10) as llm:
        outputs = llm.generate_outputs([[{"role": "user", "content": "Name a river."}], "Once upon"])
    assert [output["generations"] for output in outputs] == [["The Ucayali."], [" a time."]]
    assert {output["finish_reasons"][0] for output in outputs} == {"stop"}
    assert {request["path"] for request in aimock.requests()} == {"/api/chat", "/api/generate"}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_refusal_that_passes_is_tried_again(aimock: Any, status: int, at_once: None) -> None:
    aimock.reply("Name a river", "The Ucayali.")
    aimock.fail_once(status)
    with OllamaLLM(model="llama3.2", base_url=aimock.url, retry_timeout=10) as llm:
        (output,) = llm.generate_outputs([[{"role": "user", "content": "Name a river."}]])
    assert output["generations"] == ["The Ucayali."]
