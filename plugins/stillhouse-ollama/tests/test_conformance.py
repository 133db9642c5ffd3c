"""`OllamaLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

import json
from typing import Any

from streamed_chats import thirds

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_ollama import OllamaLLM


class TestOllama(HTTPConformance):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return OllamaLLM(model="llama3.2", base_url=base_url, api_key=api_key)

    def respond(self, path: str, body: Any) -> Any:
        """What the API answers: the question again, or the form that was asked for."""
        if path == "/api/tags":
            return {"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest", "size": 2019393189}]}
        chat = path == "/api/chat"
        assert chat or (path == "/api/generate" and body["raw"] is True), path
        assert isinstance(body["stream"], bool)
        text = body["messages"][-1]["content"] if chat else body["prompt"]
        if "format" in body:
            text = self.example("json")
        answer: dict[str, Any] = {
            "model": body["model"],
            "created_at": "2026-11-04T09:12:44.120371Z",
            "done": True,
            "done_reason": "stop",
            "total_duration": 174560334,
            "load_duration": 101397084,
            "prompt_eval_count": len(str(body.get("messages", body.get("prompt"))).split()),
            "prompt_eval_duration": 13074791,
            "eval_count": len(text.split()) or 1,
            "eval_duration": 52479709,
        }
        answer |= {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
        if body.get("logprobs"):
            top = [{"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -1.5}]
            answer["logprobs"] = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": top}]
        return answer

    def respond_streamed(self, path: str, body: Any) -> Any:
        if not (body and body["stream"]):
            return None
        answer = self.respond(path, body)
        chat = "message" in answer
        text = answer["message"]["content"] if chat else answer["response"]
        lines = []
        for part in [*thirds(text), ""]:
            added = {"message": {"role": "assistant", "content": part}} if chat else {"response": part}
            kept = {"model": body["model"], "created_at": answer["created_at"], "done": False}
            lines.append({**(kept if part else answer), **added})
        return [json.dumps(line).encode() + b"\n" for line in lines]

    def streamed_error(self, message: str) -> bytes:
        return json.dumps({"error": message}).encode() + b"\n"

    def refusal(self, message: str) -> Any:
        return {"error": message}
