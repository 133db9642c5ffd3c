"""`MistralLLM` keeps every rule of the conformance kit."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from streamed_chats import chunks_of

from stillhouse import LLM
from stillhouse.testing import HTTPConformance
from stillhouse_mistral import MistralLLM


class TestMistral(HTTPConformance):
    uploaded: ClassVar[list[dict[str, Any]]] = []

    def make_at(self, base_url: str, api_key: str) -> LLM:
        return MistralLLM(model="mistral-test", base_url=base_url, api_key=api_key)

    def respond(self, path: str, body: Any) -> Any:
        place = path.partition("?")[0].removeprefix("/v1/")
        if place.startswith(("files", "batch/")):
            return self.batch(place, body)
        return self.completion(body)

    def respond_streamed(self, path: str, body: Any) -> Any:
        is_stream = isinstance(body, dict) and body.get("stream")
        return chunks_of(self.completion(body)) if is_stream else None

    def batch(self, place: str, body: Any) -> Any:
        """An offline batch: it is done when somebody asks, and its results come in another order."""
        job = {"id": "job-1", "object": "batch", "input_files": ["file-1"], "errors": []}
        match place:
            case "files":
                lines = [line for line in body.splitlines() if line.startswith(b"{")]
                self.uploaded[:] = [json.loads(line) for line in lines]
                return {"id": "file-1", "object": "file", "purpose": "batch"}
            case "batch/jobs":
                return {**job, "status": "QUEUED", "output_file": None, "error_file": None}
            case "batch/jobs/job-1":
                return {**job, "status": "SUCCESS", "output_file": "file-2", "error_file": None}
        assert place == "files/file-2/content", place
        results = [
            {
                "id": "result-1",
                "custom_id": line["custom_id"],
                "response": {"status_code": 200, "body": self.completion(line["body"])},
                "error": None,
            }
            for line in reversed(self.uploaded)
        ]
        return "\n".join(json.dumps(result) for result in results).encode()

    def completion(self, body: Any) -> Any:
        """What the API answers: the question again, once for each generation."""
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[0].get("text", "an image")
        if "response_format" in body:
            text = self.example("json")
        logprobs = [{"token": "a", "token_id": 1, "bytes": [97], "logprob": -0.5, "top_logprobs": []}]
        choices = [
            {
                "index": index,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, "tool_calls": None},
                "logprobs": {"content": logprobs} if body.get("logprobs") else None,
            }
            for index in range(body.get("n") or 1)
        ]
        usage = {"prompt_tokens": len(str(body["messages"]).split()), "completion_tokens": len(text.split())}
        return {"id": "cmpl-1", "object": "chat.completion", "choices": choices, "usage": usage}

    def refusal(self, message: str) -> Any:
        return {"object": "error", "message": message, "type": "invalid_request_error", "code": "3000"}
