"""`AnthropicLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from streamed_chats import event_of, thirds

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_anthropic import AnthropicLLM


class TestAnthropic(HTTPConformance):
    @pytest.fixture(autouse=True)
    def no_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No variable of the machine decides a test."""
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
            monkeypatch.delenv(name, raising=False)

    def make_at(self, base_url: str, api_key: str) -> LLM:
        return AnthropicLLM(model="claude-test", base_url=base_url, api_key=api_key)

    def respond(self, path: str, body: Any) -> Any:
        if path.partition("?")[0].endswith("/models"):
            return {
                "data": [{"type": "model", "id": "claude-test"}],
                "has_more": False,
                "last_id": "claude-test",
            }
        _, is_batch, place = path.partition("?")[0].partition("/batches")
        return self.batch(place, path, body) if is_batch else self.message(body)

    uploaded: ClassVar[list[dict[str, Any]]] = []

    def batch(self, place: str, path: str, body: Any) -> Any:
        """An offline batch: it is done when somebody asks, and its results come in another order."""
        job = {"id": "msgbatch_1", "type": "message_batch", "results_url": None}
        if place.endswith("/results"):
            results = [
                {
                    "custom_id": item["custom_id"],
                    "result": {"type": "succeeded", "message": self.message(item["params"])},
                }
                for item in reversed(self.uploaded)
            ]
            return "\n".join(json.dumps(result) for result in results).encode()
        if place:
            return {**job, "processing_status": "ended", "results_url": f"{path}/results"}
        if body is None:
            return {"data": [], "has_more": False}
        self.uploaded[:] = body["requests"]
        return {**job, "processing_status": "in_progress"}

    def message(self, body: Any) -> Any:
        """What the Messages API answers: the question again, or the form that was asked for."""
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0].get("text", "a result")
        if "format" in body.get("output_config", {}):
            text = self.example("json")
        prompt = {name: value for name, value in body.items() if name != "stream"}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": len(str(prompt).split()), "output_tokens": len(text.split())},
        }

    def respond_streamed(self, path: str, body: Any) -> Any:
        if not (body and body.get("stream")):
            return None
        answer = self.message(body)
        (whole,), usage = answer["content"], answer["usage"]
        start = {**answer, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        deltas = [{"type": "text_delta", "text": text} for text in thirds(whole["text"])]
        values = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "ping"},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
            {"type": "message_stop"},
        ]
        return [event_of(value, value["type"]) for value in values]

    def streamed_error(self, message: str) -> bytes:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": message}}
        return event_of(error, "error")

    def refusal(self, message: str) -> Any:
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
