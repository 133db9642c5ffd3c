"""`BedrockLLM` keeps every rule of the conformance kit, with a key of Bedrock and with a signature."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
from pydantic import SecretStr
from streamed_chats import thirds

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_bedrock import BedrockLLM

from .conftest import block, frame, streamed


class TestBedrock(HTTPConformance):
    @pytest.fixture(autouse=True)
    def no_environment(self, no_aws: None) -> None:
        """No variable of the machine decides a test."""

    def make_at(self, base_url: str, api_key: str) -> LLM:
        return BedrockLLM(model="anthropic.test-v1:0", base_url=base_url, api_key=SecretStr(api_key))

    def respond(self, path: str, body: Any) -> Any:
        """What the Converse API answers: the question again, or the form that was asked for."""
        if body is None:
            return self.models(path)
        assert path.removesuffix("-stream") == "/model/anthropic.test-v1%3A0/converse"
        text = body["messages"][-1]["content"][0].get("text", "a result")
        if "textFormat" in body.get("outputConfig", {}):
            text = self.example("json")
        count, made = len(str(body).split()), len(text.split())
        return {
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": count, "outputTokens": made, "totalTokens": count + made},
            "metrics": {"latencyMs": 1},
        }

    def respond_streamed(self, path: str, body: Any) -> Any:
        if not path.endswith("/converse-stream"):
            return None
        answer = self.respond(path, body)
        (whole,) = answer["output"]["message"]["content"]
        *events, _ = streamed(block(0, *({"text": text} for text in thirds(whole["text"]))))
        return [*events, frame("metadata", {"usage": answer["usage"], "metrics": answer["metrics"]})]

    def streamed_error(self, message: str) -> bytes:
        return frame("serviceUnavailableException", {"message": message}, "exception")

    def models(self, path: str) -> Any:
        if path == "/inference-profiles":
            return {"inferenceProfileSummaries": [{"inferenceProfileId": "us.anthropic.test-v1:0"}]}
        assert path == "/foundation-models"
        return {"modelSummaries": [{"modelId": "anthropic.test-v1:0"}]}

    def refusal(self, message: str) -> Any:
        return {"message": message}


class TestSignedBedrock(TestBedrock):
    credential: ClassVar[Literal["header", "query", "signature"]] = "signature"

    def make_at(self, base_url: str, api_key: str) -> LLM:
        return BedrockLLM(
            model="anthropic.test-v1:0",
            base_url=base_url,
            region="us-east-1",
            aws_access_key_id=SecretStr("AKIDEXAMPLE"),
            aws_secret_access_key=SecretStr(api_key),
        )
