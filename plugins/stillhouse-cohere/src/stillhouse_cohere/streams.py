"""An answer of `v2/chat` that comes as a stream: its pieces as they come, and the events as one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillhouse import GenerationError
from stillhouse.outputs import count_of

__all__ = ["answer_of_events", "piece_of_event"]


def piece_of_event(event: Any) -> str | None:
    """Return the text that an event adds; a content may begin with some.

    Raises:
        AttributeError, LookupError, TypeError: it adds none.
    """
    if event["type"] not in ("content-start", "content-delta"):
        return None
    return event["delta"]["message"]["content"]["text"]  # type: ignore[no-any-return]


def answer_of_events(events: Sequence[Any]) -> dict[str, Any]:
    """Join the events of a stream into the answer that would have come in one piece.

    An error among them is the answer.

    Raises:
        ValueError: it is a stream of another API.
        GenerationError: the stream ended before its answer did.
    """
    joined = _Joined()
    for event in events:
        if isinstance(event, dict):
            if event.get("error"):
                return event
            joined.add(event)
    return joined.answer()


class _Joined:
    """What the events of a stream have said so far."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}
        self._contents: dict[int, dict[str, Any]] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._citations: list[Any] = []
        self._plan: list[str] = []
        self._logprobs: list[Any] = []
        self._is_foreign = True

    def add(self, event: dict[str, Any]) -> None:
        kind, delta = event.get("type"), event.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        message = delta.get("message")
        message = message if isinstance(message, dict) else {}
        index = count_of(event.get("index")) or 0
        if kind == "message-start":
            self._is_foreign = False
            if event.get("id") is not None:
                self._answer["id"] = event["id"]
        elif kind in ("content-start", "content-delta"):
            _join(self._contents.setdefault(index, {}), message.get("content"))
            if event.get("logprobs") is not None:
                self._logprobs.append(event["logprobs"])
        elif kind in ("tool-call-start", "tool-call-delta"):
            _join(self._calls.setdefault(index, {}), message.get("tool_calls"))
        elif kind == "tool-plan-delta" and isinstance(message.get("tool_plan"), str):
            self._plan.append(message["tool_plan"])
        elif kind == "citation-start" and message.get("citations"):
            self._citations.append(message["citations"])
        elif kind == "message-end":
            if delta.get("error") is not None:
                self._answer["error"] = delta["error"]
            self._answer |= {name: delta[name] for name in ("finish_reason", "usage") if name in delta}

    def answer(self) -> dict[str, Any]:
        if self._is_foreign:
            raise ValueError("no event begins a message")
        if not self._answer.get("finish_reason") and not self._answer.get("error"):
            raise GenerationError(
                "the stream ended before its answer did", kind="connection", hint="ask again"
            )
        contents = [{"type": "text", **self._contents[index]} for index in sorted(self._contents)]
        for content in contents:
            if "thinking" in content and "text" not in content:
                content["type"] = "thinking"
        message: dict[str, Any] = {"role": "assistant", "content": contents}
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        if self._plan:
            message["tool_plan"] = "".join(self._plan)
        if self._citations:
            message["citations"] = self._citations
        answer = {**self._answer, "message": message}
        return {**answer, "logprobs": self._logprobs} if self._logprobs else answer


def _join(whole: dict[str, Any], piece: Any) -> None:
    """Add a piece of an object: texts under `arguments`, `text` and `thinking` are joined."""
    for name, value in piece.items() if isinstance(piece, dict) else ():
        own = whole.get(name)
        if isinstance(value, dict):
            _join(whole.setdefault(name, {}), value)
        elif name in ("arguments", "text", "thinking") and isinstance(own, str) and isinstance(value, str):
            whole[name] = own + value
        elif value is not None:
            whole[name] = value
