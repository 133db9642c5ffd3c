"""`shown_input`, `shown_output`: prompts and answers as attributes of a span, where they are asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse import GenerateOutput

__all__ = ["cut", "shown_input", "shown_output"]

_PART = 20
"""Characters that each part counts for besides its text, so that many empty ones are bounded too."""


def cut(text: str, most: int) -> str:
    """Return a text of at most so many characters; one that was longer ends in an ellipsis."""
    return text if len(text) <= most else f"{text[: max(0, most - 1)]}…"


def shown_input(input: Any, most: int) -> str:
    """Return an input as `gen_ai.input.messages`, in JSON, with at most so many characters of text."""
    prompt = input[0] if isinstance(input, tuple) else input  # of one with its own structured output
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    room = _Room(most)
    shown = []
    for message in messages:
        if room.is_full:
            break
        content = message.get("content")
        items = content if isinstance(content, list) else [content]
        parts = [room.part(item) for item in items if item is not None and not room.is_full]
        parts += _calls(message.get("tool_calls"), room)
        shown.append({"role": cut(str(message.get("role")), 40), "parts": parts})
    return json.dumps(shown, ensure_ascii=False)


def shown_output(output: GenerateOutput, most: int) -> str:
    """Return an output as `gen_ai.output.messages`; arguments as `shown_input`."""
    room = _Room(most)
    shown = []
    calls: Any = output.get("tool_calls") or []
    for index, text in enumerate(output["generations"]):
        if room.is_full:
            break
        parts = [] if text is None else [room.part(text)]
        parts += _calls(calls[index] if index < len(calls) else None, room)
        shown.append({"role": "assistant", "parts": parts})
    return json.dumps(shown, ensure_ascii=False)


class _Room:
    """How many characters may still be added."""

    def __init__(self, most: int) -> None:
        self._left = most

    @property
    def is_full(self) -> bool:
        return self._left <= 0

    def take(self, text: str) -> str:
        taken = cut(text, max(1, self._left))
        self._left -= len(taken) + _PART
        return taken

    def part(self, item: Any) -> dict[str, str]:
        """Return a part of a message: its text, or only its type, as of an image."""
        if isinstance(item, dict) and not isinstance(item.get("text"), str):
            return {"type": self.take(cut(str(item.get("type")), 40))}
        return {"type": "text", "content": self.take(item["text"] if isinstance(item, dict) else str(item))}


def _calls(calls: Any, room: _Room) -> list[dict[str, str]]:
    """Return the parts of calls of tools."""
    parts = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if room.is_full or not isinstance(function, dict):
            break
        name, arguments = room.take(str(function.get("name"))), room.take(str(function.get("arguments")))
        parts.append({"type": "tool_call", "name": name, "arguments": arguments})
    return parts
