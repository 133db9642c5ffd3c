"""`MyCohereLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr
from stillhouse import LLM
from stillhouse.testing import HTTPConformance

from stillhouse_my_cohere import MyCohereLLM


class TestMyCohereLLM(HTTPConformance):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return MyCohereLLM(model="test", base_url=base_url, api_key=SecretStr(api_key))

    def respond(self, path: str, body: Any) -> Any:
        """What the API answers: here, the question again, or the form that was asked for."""
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        if "response_format" in body:
            text = self.example("json")
        return {
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": text}]},
            "usage": {"tokens": {"input_tokens": len(str(body).split()), "output_tokens": len(text.split())}},
        }
