"""The backend against a mock provider that fails in every known way, and a verdict on how it copes."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from provider_faults import CHAT, ProviderFaults

from stillhouse import LLM, GenerationError
from stillhouse_google import GeminiLLM, VertexAILLM


class TestGemini(ProviderFaults):
    """Address and key come from the environment, which llmock's fixture sets as the SDK reads it."""

    provider: ClassVar[str] = "gemini"

    def make(self, llmock: Any, **fields: Any) -> LLM:
        return GeminiLLM(model="gemini-2.5-flash", **fields)

    def test_only_missing_generations_are_requested_again(self, llm: LLM, llmock: Any) -> None:
        llmock.fail(500, times=1, provider=self.provider)
        (output,) = llm.generate_outputs([CHAT], num_generations=3)
        assert len(output["generations"]) == 3
        assert sorted(record.status for record in llmock.requests) == [200, 200, 200, 500]
        llmock.assert_resilient(strict=True)


def test_unknown_model_is_told_with_its_near_matches(llmock: Any) -> None:
    llmock.fail(404, times=1, message="models/gemini-2.5-prp is not found for API version v1beta")
    with GeminiLLM(model="gemini-2.5-prp") as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert "gemini-2.5-pro" in caught.value.hint
    assert caught.value.stops_run


def test_another_mock_server_is_asked_as_gemini_and_as_vertex_ai(aimock: Any) -> None:
    aimock.reply("weather", "Rain.")
    fields: Any = {"base_url": aimock.url, "model": "gemini-2.5-flash"}
    gemini = GeminiLLM(**fields, api_key="k", retry_timeout=20.0)
    vertex = VertexAILLM(
        **fields, project="p", location="us-central1", access_token="t", api_version="v1", retry_timeout=20.0
    )
    for llm in (gemini, vertex):
        aimock.fail_once(503)
        with llm:
            (output,) = llm.generate_outputs([CHAT], max_new_tokens=5)
        assert (output["generations"], output["finish_reasons"]) == (["Rain."], ["stop"])
    assert [request["path"].partition("?")[0] for request in aimock.requests()][-1] == (
        "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash:generateContent"
    )


def test_tool_call_of_another_mock_server(aimock: Any) -> None:
    calls = [{"name": "weather", "arguments": '{"city": "Paris"}'}]
    aimock.fixtures([{"match": {"userMessage": "weather"}, "response": {"toolCalls": calls}}])
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    with GeminiLLM(model="gemini-2.5-flash", base_url=aimock.url, api_key="k") as llm:
        (output,) = llm.generate_outputs([CHAT], tools=[tool])
    ((call,),) = output["tool_calls"]  # type: ignore[misc]
    assert (output["finish_reasons"], call["function"]["name"]) == (["tool_calls"], "weather")
    assert isinstance(call["id"], str)
