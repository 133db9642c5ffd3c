"""Streams as Mistral has them: nothing but `stream` is sent, and the tokens come unasked."""

from __future__ import annotations

import json
from typing import Any

from stillhouse.testing import Reply, ScriptedServer
from stillhouse_mistral import MistralLLM


def test_a_chat_comes_in_pieces_with_its_tokens() -> None:
    def event(content: Any, finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
        return f"data: {json.dumps({'choices': [choice], **more})}\n\n"

    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    body = event(thought) + event("Hel") + event("lo", "stop", usage=usage) + "data: [DONE]\n\n"
    server = ScriptedServer(lambda path, asked: None)
    server.script = [Reply(body=body.encode())]
    try:
        with MistralLLM(model="m", base_url=f"{server.origin}/v1", api_key="key") as llm:
            *pieces, output = llm.stream([{"role": "user", "content": "hello"}])
        assert pieces == ["Hel", "lo"]
        assert output["reasoning"] == ["Hm"]  # type: ignore[index]
        assert output["statistics"] == {"input_tokens": [7], "output_tokens": [5]}  # type: ignore[index]
        assert server.requests[0].body["stream"] is True
        assert "stream_options" not in server.requests[0].body
    finally:
        server.close()
