"""`GeminiLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import SecretStr
from streamed_chats import event_of, thirds

from stillhouse import LLM
from stillhouse.testing import HTTPConformance, Reply
from stillhouse_google import GeminiLLM, VertexAILLM


class GoogleConformance(HTTPConformance):
    def respond(self, path: str, body: Any) -> Any:
        """What the API answers: the question again, or the form that was asked for."""
        if not any(name in path for name in (":generateContent", ":streamGenerateContent")):
            return self.other(path, body)
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

    def respond_streamed(self, path: str, body: Any) -> Any:
        if ":streamGenerateContent" not in path:
            return None
        answer = self.respond(path, body)
        (whole,) = answer["candidates"]
        (part,) = whole["content"]["parts"]
        unfinished = {name: value for name, value in whole.items() if name != "finishReason"}
        candidates = [
            {**unfinished, "content": {"parts": [{"text": text}], "role": "model"}}
            for text in thirds(part["text"])
        ]
        candidates.append({**whole, "content": {"parts": [], "role": "model"}})
        return [event_of({**answer, "candidates": [candidate]}) for candidate in candidates]

    def other(self, path: str, body: Any) -> Any:
        """What the API answers to another request than one that generates."""
        return {"publisherModels": [{"name": "publishers/google/models/gemini-3-flash"}]}

    def refusal(self, message: str) -> Any:
        return {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}


class TestGemini(GoogleConformance):
    uploaded: ClassVar[list[dict[str, Any]]] = []

    def other(self, path: str, body: Any) -> Any:
        """An offline batch: it is done when somebody asks, and its results come in another order."""
        job: dict[str, Any] = {"name": "batches/b1", "metadata": {"state": "BATCH_STATE_PENDING"}}
        if path == "/upload/v1beta/files":
            place = f"http://elsewhere.invalid{path}?upload_id=u1&upload_protocol=resumable"
            return Reply(body=b"", headers={"x-goog-upload-url": place})
        if path.startswith("/upload/"):
            lines = body.splitlines() if isinstance(body, bytes) else [json.dumps(body)]
            self.uploaded[:] = map(json.loads, lines)
            return {"file": {"name": "files/f1", "state": "ACTIVE"}}
        if "/files/" in path:
            results = [
                {"key": line["key"], "response": self.respond("m:generateContent", line["request"])}
                for line in reversed(self.uploaded)
            ]
            return "".join(json.dumps(result) + "\n" for result in results).encode()
        if "/batches/b1" in path:
            job["metadata"] = {
                "state": "BATCH_STATE_SUCCEEDED",
                "output": {"responsesFile": "files/r1"},
                "batchStats": {"requestCount": str(len(self.uploaded))},
            }
        if path.endswith("/models"):
            return {"models": [{"name": "models/gemini-3-flash", "inputTokenLimit": 1048576}]}
        return {} if "/batches?" in path else job

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
