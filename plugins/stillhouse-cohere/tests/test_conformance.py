"""`CohereLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

from typing import Any

from streamed_chats import DONE, event_of, thirds

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_cohere import CohereLLM


class TestCohere(HTTPConformance):
    def make_at(self, base_url: str, api_key: str) -> LLM:
        return CohereLLM(model="command-test", base_url=base_url, api_key=api_key)

    def respond(self, path: str, body: Any) -> Any:
        """What the API answers: the question again, or the form that was asked for."""
        assert path == "/v2/chat"
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0].get("text", "an image")
        if "response_format" in body:
            assert "json" in str(body["messages"]).lower()
            text = self.example("json")
        used, made = float(len(str(body).split())), float(len(text.split()))
        answer = {
            "id": "c14c80c3",
            "finish_reason": "COMPLETE",
            "message": {"role": "assistant", "content": [{"type": "text", "text": text}]},
            "usage": {
                "billed_units": {"input_tokens": used, "output_tokens": made},
                "tokens": {"input_tokens": used, "output_tokens": made},
            },
        }
        if body.get("logprobs"):
            answer["logprobs"] = [{"text": "a b", "token_ids": [1, 2], "logprobs": [-0.5, -0.25]}]
        return answer

    def respond_streamed(self, path: str, body: Any) -> Any:
        if not body.get("stream"):
            return None
        answer = self.respond(path, body)
        (whole,) = answer["message"]["content"]
        values: list[Any] = [
            {"type": "message-start", "id": "c14c80c3", "delta": {"message": {"role": "assistant"}}},
            {
                "type": "content-start",
                "index": 0,
                "delta": {"message": {"content": {"type": "text", "text": ""}}},
            },
            *(
                {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}}
                for text in thirds(whole["text"])
            ),
            {"type": "content-end", "index": 0},
            {
                "type": "message-end",
                "delta": {"finish_reason": answer["finish_reason"], "usage": answer["usage"]},
            },
        ]
        return [*(event_of(value, value["type"]) for value in values), DONE]

    def streamed_error(self, message: str) -> bytes:
        return event_of({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": message}})

    def refusal(self, message: str) -> Any:
        return {"id": "c14c80c3", "message": message}
