"""The backend against a mock provider that fails in every known way, and a verdict on how it copes."""

from __future__ import annotations

from typing import Any, ClassVar

from provider_faults import CHAT, ProviderFaults

from stillhouse import LLM
from stillhouse_mistral import MistralLLM


class TestMistral(ProviderFaults):
    provider: ClassVar[str] = "mistral"

    def make(self, llmock: Any, **fields: Any) -> LLM:
        return MistralLLM(
            model="mistral-test", base_url=llmock.base_url("mistral"), api_key="key-0001-test", **fields
        )

    def test_several_generations_are_one_request(self, llm: LLM, llmock: Any) -> None:
        (output,) = llm.generate_outputs([CHAT], num_generations=3)
        assert (len(output["generations"]), len(llmock.requests)) == (3, 1)
