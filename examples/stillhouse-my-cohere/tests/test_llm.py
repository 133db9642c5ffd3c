"""`MyCohereLLM` against a server that speaks Cohere's API, and fails as one does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from stillhouse import GenerationError, UnsupportedError
from stillhouse.typing import ChatItem, StructuredOutput

from stillhouse_my_cohere import MyCohereLLM

CHAT: list[ChatItem] = [{"role": "user", "content": "Name a river in Peru."}]
FORM: StructuredOutput = {
    "format": "json",
    "schema": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
}


@pytest.fixture
def llm(llmock: Any) -> Iterator[MyCohereLLM]:
    with MyCohereLLM(model="command-r", retry_timeout=5) as loaded:
        yield loaded


def test_generate_outputs_returns_text_finish_reason_and_token_counts(llm: MyCohereLLM, llmock: Any) -> None:
    llmock.reply("The Ucayali.")
    (output,) = llm.generate_outputs([CHAT], max_new_tokens=20)
    assert output["generations"] == ["The Ucayali."]
    assert output["finish_reasons"] == ["stop"]
    assert output["statistics"]["output_tokens"][0] > 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_server_errors_are_retried(llm: MyCohereLLM, llmock: Any, status: int) -> None:
    llmock.fail(status, times=1)
    assert llm.generate_outputs([CHAT])[0]["generations"][0]
    assert [record.status for record in llmock.requests] == [status, 200]
    llmock.assert_resilient()


def test_wrong_api_key_is_an_authentication_error(llm: MyCohereLLM, llmock: Any) -> None:
    llmock.fail(401, times=None)
    with pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run) == ("authentication", True)


def test_answer_that_violates_the_schema_is_requested_again(llm: MyCohereLLM, llmock: Any) -> None:
    llmock.reply("The Ucayali.").reply('{"river": "Ucayali"}')
    (output,) = llm.generate_outputs([(CHAT, FORM)])
    assert json.loads(output["generations"][0] or "") == {"river": "Ucayali"}
    assert len(llmock.requests) == 2


def test_schema_keyword_that_the_api_does_not_enforce_is_refused(llm: MyCohereLLM) -> None:
    with pytest.raises(UnsupportedError, match="minimum"):
        llm.structured_output = {"format": "json", "schema": {"type": "integer", "minimum": 1}}


def test_several_generations_are_as_many_requests(llm: MyCohereLLM, llmock: Any) -> None:
    (output,) = llm.generate_outputs([CHAT], num_generations=3, seed=1)
    assert len(output["generations"]) == len(llmock.requests) == 3
