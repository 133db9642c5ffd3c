"""Answers as the events of a stream, as OpenAI's API and those like it send them."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["DONE", "chunks_of", "event_of", "thirds"]

DONE = b"data: [DONE]\n\n"


def event_of(value: Any, name: str = "") -> bytes:
    """Return a server-sent event with JSON as its data."""
    begin = f"event: {name}\n" if name else ""
    return f"{begin}data: {json.dumps(value)}\n\n".encode()


def thirds(text: str) -> list[str]:
    """Return a text in three pieces."""
    size = len(text) // 3 + 1
    return [text[place : place + size] for place in range(0, len(text), size)]


def chunks_of(answer: Any) -> list[bytes]:
    """Return the answer to a chat or a prompt as a stream, with its usage in the last chunk."""
    kept = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
    (choice,) = answer["choices"]
    is_chat = "message" in choice
    text = choice["message"]["content"] if is_chat else choice["text"]
    deltas: list[Any] = [{"delta": {"role": "assistant", "content": ""}}] if is_chat else []
    deltas += [{"delta": {"content": part}} if is_chat else {"text": part} for part in thirds(text)]
    last = {name: value for name, value in choice.items() if name not in ("message", "text")}
    chunks: list[Any] = [
        {**kept, "choices": [{"index": 0, "finish_reason": None, **delta}]} for delta in deltas
    ]
    chunks.append({**kept, "choices": [{**last, "delta": {}} if is_chat else {**last, "text": ""}]})
    chunks.append({**kept, "choices": [], "usage": answer["usage"]})
    return [*map(event_of, chunks), DONE]
