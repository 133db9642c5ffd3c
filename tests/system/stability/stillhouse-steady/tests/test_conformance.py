from typing import Any

from stillhouse_steady import SteadyAsyncLLM, SteadyHTTPLLM, SteadyLLM

from stillhouse import LLM, FormattedInput
from stillhouse.testing import HTTPConformance, LLMConformance


class TestSync(LLMConformance):
    def make(self) -> LLM:
        return SteadyLLM()

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        return self.make(), ""


class TestAsync(LLMConformance):
    texts = ("a", "a b", "a b c", "a b c d e")

    def make(self) -> LLM:
        return SteadyAsyncLLM(max_concurrency=8)

    def make_failing(self) -> tuple[LLM, FormattedInput]:
        return self.make(), ""


class TestHTTP(HTTPConformance):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return SteadyHTTPLLM(model="m", base_url=base_url, api_key=api_key)

    def refusal(self, message: str) -> Any:
        return {"message": message}

    def respond(self, path: str, body: Any) -> Any:
        assert path == "/v1/ask"
        content = body["chat"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        return {"text": self.example("json") if "form" in body else text, "cost": len(text.split())}
