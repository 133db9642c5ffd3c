"""Every LLM of this package keeps every rule of the conformance kit."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from streamed_chats import chunks_of

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_openai import (
    AnyscaleLLM,
    AzureOpenAILLM,
    ClientvLLM,
    DeepSeekLLM,
    GroqLLM,
    OpenAICompatibleLLM,
    OpenAILLM,
    OpenRouterLLM,
    TogetherLLM,
)
from stillhouse_openai.providers import FireworksLLM


class Compatible(HTTPConformance):
    """What OpenAI's API answers: the question again, once for each generation."""

    uploaded: ClassVar[list[dict[str, Any]]] = []

    def respond(self, path: str, body: Any) -> Any:
        place = path.partition("?")[0].partition("v1/")[2] or path.partition("?")[0].partition("openai/")[2]
        if place == "models":
            return {"object": "list", "data": [{"id": "m", "object": "model", "created": 1_700_000_000}]}
        if place.startswith(("files", "batches")):
            return self.batch(place, body)
        return self.completion(body)

    def respond_streamed(self, path: str, body: Any) -> Any:
        is_stream = isinstance(body, dict) and body.get("stream")
        return chunks_of(self.completion(body)) if is_stream else None

    def batch(self, place: str, body: Any) -> Any:
        """An offline batch: it is done when somebody asks, and its results come in another order."""
        match place:
            case "files/file-1":
                return {"id": "file-1", "status": "processed"}
            case "files" | "files/upload":
                lines = [line for line in body.splitlines() if line.startswith(b"{")]
                self.uploaded[:] = [json.loads(line) for line in lines]
                return {"id": "file-1", "status": "processed"}
            case "batches":
                return {"id": "batch_1", "status": "in_progress"}
            case "batches/batch_1":
                return {"id": "batch_1", "status": "completed", "output_file_id": "file-2"}
        assert place == "files/file-2/content", place
        results = [
            {
                "custom_id": line["custom_id"],
                "response": {"status_code": 200, "body": self.completion(line["body"])},
                "error": None,
            }
            for line in reversed(self.uploaded)
        ]
        return "\n".join(json.dumps(result) for result in results).encode()

    def completion(self, body: Any) -> Any:
        chat = "messages" in body
        text = self.text_of(body["messages"][-1]["content"]) if chat else body["prompt"]
        text = self.form_of(body) or text
        choices = []
        for index in range(body.get("n") or 1):
            choice: dict[str, Any] = {"index": index, "finish_reason": "stop", "logprobs": None}
            choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choice["logprobs"] = self.logprobs(body, chat)
            choices.append(choice)
        used = len(str(text).split())
        return {
            "id": "1",
            "choices": choices,
            "usage": {
                "prompt_tokens": len(str(body.get("messages", body.get("prompt"))).split()),
                "completion_tokens": used,
                "total_tokens": used,
            },
        }

    def text_of(self, content: Any) -> str:
        return content if isinstance(content, str) else content[0]["text"]

    def form_of(self, body: Any) -> str:
        return self.example("json") if "response_format" in body else ""

    def logprobs(self, body: Any, chat: bool) -> Any:
        if not body.get("logprobs"):
            return None
        if body["logprobs"] is True:
            return {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]}
        return {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.0}]}


class TestOpenAI(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return OpenAILLM(model="m", base_url=f"{base_url}/v1", api_key=api_key)


class TestAzureOpenAI(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return AzureOpenAILLM(model="m", base_url=base_url, api_key=api_key, api_version="2024-10-21")


class TestAnyscale(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return AnyscaleLLM(model="m", base_url=base_url, api_key=api_key)


class TestTogether(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return TogetherLLM(model="m", base_url=base_url, api_key=api_key)


class TestGroq(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return GroqLLM(model="m", base_url=base_url, api_key=api_key)

    def logprobs(self, body: Any, chat: bool) -> Any:
        return None  # Groq has none


class TestVLLM(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return ClientvLLM(model="m", base_url=base_url, api_key=api_key)

    def form_of(self, body: Any) -> str:
        (asked,) = body.get("structured_outputs") or [""]
        return self.example(asked) if asked else ""


class TestOpenAICompatible(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return OpenAICompatibleLLM(model="m", base_url=f"{base_url}/v1", api_key=api_key)


class TestFireworks(Compatible):
    """One row of the table of providers, for all of them."""

    def make_at(self, base_url: str, api_key: str) -> LLM:
        return FireworksLLM(model="m", base_url=base_url, api_key=api_key)


class TestOpenRouter(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return OpenRouterLLM(model="m", base_url=base_url, api_key=api_key)

    def refusal(self, message: str) -> Any:
        return {"error": {"code": 400, "message": message, "metadata": {"provider_name": "x"}}}

    def completion(self, body: Any) -> Any:
        answer = super().completion(body)
        answer["usage"] |= {"cost": 0.00078, "is_byok": False}
        answer["choices"][0]["native_finish_reason"] = "completed"
        return {**answer, "provider": "Together", "model": "m"}


class TestDeepSeek(Compatible):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return DeepSeekLLM(model="m", base_url=f"{base_url}/v1", api_key=api_key, timeout=60)

    def completion(self, body: Any) -> Any:
        answer = super().completion(body)
        used = answer["usage"]["prompt_tokens"]
        answer["usage"] |= {"prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": used}
        return answer
