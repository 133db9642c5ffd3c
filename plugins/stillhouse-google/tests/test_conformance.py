"""`GeminiLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_google import GeminiLLM, VertexAILLM


class GoogleConformance(HTTPConformance):
    def respond(self, path: str, body: Any) -> Any:
        """What the API answers: the question again, or the form that was asked for."""
        config = body.get("generationConfig", {})
        parts = body["contents"][-1]["parts"]
        text = "".join(part.get("text", "a result") for part in parts)
        if "responseJsonSchema" in config:
            text = self.example("json")
        candidate: dict[str, Any] = {
            "content": {"parts": [{"text": text}], "role": "model"},
            "finishReason": "STOP",
            "index": 0,
        }
        if config.get("responseLogprobs"):
            chosen = [{"token": word, "tokenId": 1, "logProbability": -0.5} for word in text.split()]
            candidate["logprobsResult"] = {
                "chosenCandidates": chosen,
                "topCandidates": [{"candidates": [item]} for item in chosen],
            }
        made, asked = len(text.split()), len(str(body).split())
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": asked,
                "candidatesTokenCount": made,
                "totalTokenCount": asked + made,
            },
            "modelVersion": "gemini-3-flash",
            "responseId": "r-1",
        }

    def refusal(self, message: str) -> Any:
        return {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}


class TestGemini(GoogleConformance):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return GeminiLLM(model="gemini-3-flash", base_url=base_url, api_key=api_key)


class TestVertexAI(GoogleConformance):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return VertexAILLM(
            model="gemini-3-flash",
            project="p-1",
            location="europe-west4",
            base_url=base_url,
            access_token=SecretStr(api_key),
        )
