"""The backend against a mock provider that fails in every known way, and a verdict on how it copes."""

from __future__ import annotations

from typing import Any, ClassVar

from provider_faults import CHAT, ProviderFaults

from stillhouse import LLM
from stillhouse_cohere import CohereLLM


class TestCohere(ProviderFaults):
    provider: ClassVar[str] = "cohere"

    def make(self, llmock: Any, **fields: Any) -> LLM:
        return CohereLLM(
            model="command-test", base_url=llmock.base_url("cohere"), api_key="key-0001-test", **fields
        )

    def test_cancelled_request_is_retried(self, llm: LLM, llmock: Any) -> None:
        llmock.fail(499, times=1, provider=self.provider)
        assert llm.generate_outputs([CHAT])[0]["generations"][0]
        llmock.assert_resilient(strict=True)

    def test_only_missing_generations_are_requested_again(self, llm: LLM, llmock: Any) -> None:
        llmock.fail(500, times=1, provider=self.provider)
        (output,) = llm.generate_outputs([CHAT], num_generations=3)
        assert len(output["generations"]) == 3
        assert sorted(record.status for record in llmock.requests) == [200, 200, 200, 500]
        llmock.assert_resilient(strict=True)


def test_address_and_key_come_from_the_environment(llmock: Any) -> None:
    with CohereLLM(model="command-test") as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"][0]
    assert llmock.requests[0].path == "/cohere/v2/chat"


def test_another_server_that_speaks_the_api(aimock: Any) -> None:
    aimock.reply("weather in Paris", "It is fine.")
    aimock.fail_once(500)
    with CohereLLM(model="command-test", base_url=aimock.url, api_key="key-0001-test") as llm:
        (output,) = llm.generate_outputs([CHAT], max_new_tokens=5)
    assert (output["generations"], output["finish_reasons"]) == (["It is fine."], ["stop"])
