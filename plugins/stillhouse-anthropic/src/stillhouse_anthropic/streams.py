"""A message that comes as a stream of events: its pieces as they come, and the events as one message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from stillhouse import GenerationError
from stillhouse.outputs import count_of

__all__ = ["answer_of_events", "piece_of_event"]

_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""Where the pieces of a block are, by the type of the event's delta."""


def piece_of_event(event: Any) -> str | None:
    """Return the text that an event adds; a block of text may begin with some.

    Raises:
        AttributeError, LookupError: it adds none.
    """
    if event["type"] == "content_block_start":
        block = event["content_block"]
        return block["text"] if block.get("type") == "text" else None
    delta = event["delta"]
    return delta["text"] if delta.get("type") == "text_delta" else None


def answer_of_events(events: Sequence[Any], *, ended: bool = False) -> dict[str, Any]:
    """Join the events of a stream into the message that would have come in one piece.

    An error among the events is the answer's `error`, as if it had come alone, with the tokens that were
    counted. What is no JSON object is passed over.

    Args:
        events: the events' data in their order, as JSON types.
        ended: whether the stream had a mark of its end beside `message_stop`. Without any, the message
            must have a stop reason.

    Raises:
        ValueError: it is a stream of another API.
        GenerationError: the stream ended before its message did, or has no message.
    """
    joined = _Joined()
    for event in events:
        if isinstance(event, dict):
            joined.add(event)
        elif event == "[DONE]":
            ended = True
    return joined.answer(ended)


class _Joined:
    """What the events of a stream have said so far."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, Any] = {}
        self._error: Any = None
        self._is_stopped = False
        self._is_foreign: bool | None = None  # until an event has a type

    def add(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind is None:
            self._is_foreign = self._is_foreign is not False
        else:
            self._is_foreign = False
        if kind == "message_start" and isinstance(event.get("message"), dict):
            self._begin(event["message"])
        elif kind == "message" and self._message is None:  # whole, as the only event
            self._begin(event)
            self._is_stopped = True
        elif kind in ("content_block_start", "content_block_delta"):
            index = count_of(event.get("index"))
            block = self._blocks.setdefault(index or 0, _Block())
            block.add(event.get("content_block"), event.get("delta"))
        elif kind == "message_delta":
            delta = event.get("delta")
            if self._message is not None and isinstance(delta, dict):
                self._message |= {name: value for name, value in delta.items() if value is not None}
            self._count(event.get("usage"))
        elif kind == "message_stop":
            self._is_stopped = True
        elif kind == "error" or (event.get("error") and kind is None):
            self._error = self._error or event.get("error") or event

    def _begin(self, message: dict[str, Any]) -> None:
        self._message = dict(message)
        self._count(message.get("usage"))

    def _count(self, usage: Any) -> None:
        """Take counts over: they are sums, the last of which is the whole."""
        if isinstance(usage, dict):
            self._usage |= {name: count for name, count in usage.items() if count is not None}

    def answer(self, ended: bool) -> dict[str, Any]:
        if self._error is not None:
            return {"type": "error", "error": self._error, "usage": self._usage}
        if self._message is None:
            if self._is_foreign:
                raise ValueError("no event has a type")
            raise GenerationError(
                "the server sent a stream of events without a message",
                kind="server",
                hint="check that base_url is the address of an Anthropic API, and that "
                "nothing requests a stream",
            )
        if not (ended or self._is_stopped or self._message.get("stop_reason")):
            raise GenerationError(
                "the stream of events ended before the message did",
                kind="connection",
                hint="retry the request",
            )
        answer = {**self._message, "usage": self._usage}
        if self._blocks:
            answer["content"] = [self._blocks[index].joined() for index in sorted(self._blocks)]
        return answer


class _Block:
    """One block of the content."""

    def __init__(self) -> None:
        self._block: dict[str, Any] = {}
        self._pieces: dict[str, list[Any]] = {}

    def add(self, block: Any, delta: Any) -> None:
        if isinstance(block, dict):
            self._block |= block
        if not isinstance(delta, dict):
            return
        name = _PIECES.get(str(delta.get("type")))
        if name is not None:
            self._pieces.setdefault(name, []).append(delta.get(name))
        elif isinstance(delta.get("signature"), str):
            self._block["signature"] = delta["signature"]

    def joined(self) -> dict[str, Any]:
        block = dict(self._block)
        for name, pieces in self._pieces.items():
            texts = [piece for piece in pieces if isinstance(piece, str)]
            if name == "partial_json":
                block.setdefault("type", "tool_use")
                block["input"] = _input("".join(texts)) or block.get("input") or {}
            else:
                block.setdefault("type", name)
                begun = block.get(name)
                block[name] = "".join([begun if isinstance(begun, str) else "", *texts])
        return block


def _input(text: str) -> Any:
    """The input of a tool; one that was cut off stays the text that it is."""
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return text
