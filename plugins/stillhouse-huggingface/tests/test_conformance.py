"""`InferenceEndpointsLLM` keeps every rule of the conformance kit, whatever it asks."""

from __future__ import annotations

from typing import Any

import pytest
from streamed_chats import chunks_of

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_huggingface import InferenceEndpointsLLM

VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HOME",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
)


class Endpoint(HTTPConformance):
    @pytest.fixture(autouse=True)
    def no_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")

    def chat(self, body: Any) -> Any:
        """What OpenAI's API answers: the question again, or the form that was asked for."""
        content = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        text = content if isinstance(content, str) else content[0]["text"]
        form = body.get("response_format")
        if form is not None:
            text = self.example("regex" if form["type"] == "regex" else "json")
        position: Any = {"token": "a", "logprob": -0.5, "top_logprobs": []}
        old: Any = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.0}]}
        choices = []
        for index in range(body.get("n") or 1):
            choice: dict[str, Any] = {"index": index, "finish_reason": "stop", "logprobs": None}
            if "messages" in body:
                choice["message"] = {"role": "assistant", "content": text}
                choice["logprobs"] = {"content": [position]} if body.get("logprobs") else None
            else:
                choice |= {"text": text, "logprobs": old if body.get("logprobs") else None}
            choices.append(choice)
        used = len(text.split())
        usage = {
            "prompt_tokens": len(str(body["messages"]).split()),
            "completion_tokens": used,
            "total_tokens": used,
        }
        return {
            "object": "chat.completion", "id": "", "created": 1730000000, "model": "m",
            "system_fingerprint": "3.3.6-native", "choices": choices, "usage": usage,
        }  # fmt: skip

    def respond_streamed(self, path: str, body: Any) -> Any:
        return chunks_of(self.chat(body)) if body and body.get("stream") else None

    def refusal(self, message: str) -> Any:
        return {"error": message, "error_type": "validation"}


class TestRouter(Endpoint):
    @pytest.fixture(autouse=True)
    def elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch

    def make_at(self, base_url: str, api_key: str) -> LLM:
        self.patch.setattr(InferenceEndpointsLLM, "default_base_url", f"{base_url}/v1")
        return InferenceEndpointsLLM(model="org/name:provider", api_key=api_key)

    def respond(self, path: str, body: Any) -> Any:
        if path == "/v1/models":
            price = {"input": 0.27, "output": 0.85}
            provider = {"provider": "p", "status": "live", "context_length": 131072, "pricing": price}
            return {"data": [{"id": "org/name", "created": 1730000000, "providers": [provider]}]}
        assert path == "/v1/chat/completions", path
        return self.chat(body)


class TestTGI(Endpoint):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return InferenceEndpointsLLM(base_url=base_url, api_key=api_key, api="tgi")

    def respond(self, path: str, body: Any) -> Any:
        if path == "/info":
            return {"model_id": "org/name", "max_input_tokens": 4095, "max_total_tokens": 4096}
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": "org/name", "object": "model", "created": 0}]}
        if path == "/generate":
            return self.generate(body)
        assert path == "/v1/chat/completions", path
        assert body["model"] == "tgi"
        return self.chat(body)

    def generate(self, body: Any) -> Any:
        parameters = body["parameters"]
        grammar = parameters.get("grammar")
        text = self.example(grammar["type"]) if grammar else body["inputs"]
        return {
            "generated_text": text,
            "details": {
                "finish_reason": "eos_token",
                "generated_tokens": len(text.split()),
                "seed": parameters.get("seed"),
                "prefill": [],
                "tokens": [{"id": 1, "text": "a", "logprob": -0.5, "special": False}],
            },
        }
