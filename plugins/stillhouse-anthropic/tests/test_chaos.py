"""The backend against a mock provider that fails in every known way, and a verdict on how it copes."""

from __future__ import annotations

from typing import Any, ClassVar

from provider_faults import CHAT, ProviderFaults

from stillhouse import LLM
from stillhouse_anthropic import AnthropicLLM


class TestAnthropic(ProviderFaults):
    """Address and key come from the environment, which llmock's fixture sets as the SDK reads it."""

    provider: ClassVar[str] = "anthropic"
    overloaded: ClassVar[int] = 529

    def make(self, llmock: Any, **fields: Any) -> LLM:
        return AnthropicLLM(model="claude-test", **fields)

    def test_overload_is_retried(self, llm: LLM, llmock: Any) -> None:
        llmock.fail(529, times=2, provider=self.provider)
        assert llm.generate_outputs([CHAT])[0]["generations"][0]
        assert [record.status for record in llmock.requests] == [529, 529, 200]
        llmock.assert_resilient(strict=True)

    def test_only_missing_generations_are_requested_again(self, llm: LLM, llmock: Any) -> None:
        llmock.fail(500, times=1, provider=self.provider)
        (output,) = llm.generate_outputs([CHAT], num_generations=3)
        assert len(output["generations"]) == 3
        assert sorted(record.status for record in llmock.requests) == [200, 200, 200, 500]
        llmock.assert_resilient(strict=True)
