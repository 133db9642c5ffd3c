"""The Messages API of a real server with a real model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from stillhouse import GenerationError
from stillhouse_anthropic import AnthropicLLM

pytestmark = pytest.mark.model

KEY = "sk-ant-test-0001"
HELLO: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def llm(real_server: Any) -> Iterator[AnthropicLLM]:
    with AnthropicLLM(
        model="smollm2",
        base_url=real_server.listening_address,
        api_key=KEY,
        generation_kwargs={"temperature": 0.0, "max_new_tokens": 12},
    ) as loaded:
        yield loaded


def test_same_text_as_the_sdk(llm: AnthropicLLM, real_server: Any) -> None:
    system = "You answer in French."
    chat: Any = [{"role": "system", "content": system}, *HELLO]
    (output,) = llm.generate_outputs([chat])
    with anthropic.Anthropic(api_key=KEY, base_url=real_server.listening_address) as client:
        message = client.messages.create(
            model="smollm2",
            max_tokens=12,
            system=system,
            messages=HELLO,
            extra_body={"temperature": 0.0},
        )
        alone = client.messages.create(
            model="smollm2",
            max_tokens=12,
            messages=HELLO,
            extra_body={"temperature": 0.0},
        )
    assert output["generations"] == [message.content[0].text]  # type: ignore[union-attr]
    assert output["statistics"]["output_tokens"] == [message.usage.output_tokens]
    assert output["generations"] != [alone.content[0].text]  # type: ignore[union-attr]


def test_input_tokens_do_not_depend_on_the_cache(llm: AnthropicLLM) -> None:
    chat: Any = [{"role": "user", "content": "Name four rivers of the north, and one of the south."}]
    first, second = (llm.generate_outputs([chat])[0]["statistics"] for _ in range(2))
    assert second["cached_tokens"][0] > 10
    assert first["input_tokens"] == second["input_tokens"]
    assert first["input_tokens"][0] > second["cached_tokens"][0]


def test_finish_reasons(llm: AnthropicLLM) -> None:
    (cut,) = llm.generate_outputs([HELLO], max_new_tokens=3)
    assert (cut["finish_reasons"], cut["statistics"]["output_tokens"]) == (["length"], [3])
    (full,) = llm.generate_outputs([HELLO], max_new_tokens=60)
    assert full["finish_reasons"] == ["stop"]
    text = full["generations"][0] or ""
    word = text.split()[2]
    (stopped,) = llm.generate_outputs([HELLO], max_new_tokens=60, stop=word)
    assert stopped["generations"] == [text.partition(word)[0]]
    assert stopped["finish_reasons"] == ["stop"]
    assert stopped["stop_sequences"] == [word]  # type: ignore[typeddict-item]


def test_several_generations(llm: AnthropicLLM) -> None:
    chats: Any = [HELLO, [{"role": "user", "content": "Name a bird."}]]
    outputs = llm.generate_outputs(chats, num_generations=3)
    for output, chat in zip(outputs, chats, strict=True):
        assert output["generations"] == llm.generate_outputs([chat])[0]["generations"] * 3
        assert len(output["statistics"]["output_tokens"]) == len(output["finish_reasons"]) == 3


def test_oversized_prompt(llm: AnthropicLLM) -> None:
    with pytest.raises(GenerationError, match="exceeds the available context size") as caught:
        llm.generate_outputs([[{"role": "user", "content": "word " * 3000}]])
    assert (caught.value.kind, caught.value.attempts) == ("context_length", 1)


def test_wrong_api_key_is_an_authentication_error(real_server: Any) -> None:
    fields = {"base_url": real_server.listening_address, "api_key": "sk-ant-wrong"}
    with (
        AnthropicLLM(model="smollm2", **fields) as llm,
        pytest.raises(GenerationError, match="Invalid API Key") as caught,
    ):
        llm.generate_outputs([HELLO])
    assert (caught.value.kind, caught.value.stops_run) == ("authentication", True)
    assert "sk-ant-wrong" not in str(caught.value)


def test_server_that_ignores_the_schema_is_found_out(llm: AnthropicLLM) -> None:
    form: Any = {"format": "json", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    with pytest.raises(GenerationError, match="not JSON") as caught:
        llm.generate_outputs([(HELLO, form)], max_new_tokens=60)
    assert caught.value.kind == "schema"
