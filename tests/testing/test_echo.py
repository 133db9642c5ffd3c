"""The built-in backend keeps every rule of the kit."""

from __future__ import annotations

from stillhouse import LLM, EchoLLM, FormattedInput
from stillhouse.testing import LLMConformance


class TestEcho(LLMConformance):
    def make(self) -> LLM:
        return EchoLLM(latency=0.001)

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        return EchoLLM(failure_rate=1.0), [{"role": "user", "content": "anything"}]
