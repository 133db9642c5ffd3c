"""A real model behind a real server, as an endpoint that speaks OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from stillhouse_huggingface import InferenceEndpointsLLM

CHAT: list[Any] = [{"role": "user", "content": "Say hello."}]
FORM = {
    "format": "json",
    "schema": {
        "type": "object",
        "properties": {"greeting": {"type": "string", "enum": ["hello", "goodbye"]}},
        "required": ["greeting"],
    },
}

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def llm(real_server: Any) -> Iterator[InferenceEndpointsLLM]:
    loaded = InferenceEndpointsLLM(
        base_url=real_server.listening_address, api_key="sesame", max_concurrency=2
    )
    with loaded:
        yield loaded


def test_chats_and_raw_prompts_are_answered(llm: InferenceEndpointsLLM) -> None:
    outputs = llm.generate_outputs([CHAT, "Once upon a time"], max_new_tokens=4, temperature=0, seed=1)
    for output in outputs:
        assert output["generations"][0]
        assert output["finish_reasons"] == ["length"]
        assert output["statistics"]["output_tokens"] == [4]


def test_structured_output_is_kept_to(llm: InferenceEndpointsLLM) -> None:
    (output,) = llm.generate_outputs([(CHAT, FORM)], max_new_tokens=24, temperature=0)  # type: ignore[list-item]
    assert json.loads(output["generations"][0] or "")["greeting"] in ("hello", "goodbye")
