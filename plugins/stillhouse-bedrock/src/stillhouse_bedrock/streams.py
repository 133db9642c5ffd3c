"""`ConverseStream`: the text that an event adds, and the answer of `Converse` that the events add up to."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import orjson

from stillhouse import GenerationError
from stillhouse_bedrock.frames import DAMAGED

__all__ = ["answer_of_events", "piece_of_event"]

_STATUSES = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "serviceUnavailableException": 503,
    "throttlingException": 429,
    "validationException": 400,
}
"""The statuses that errors within a stream stand for."""

MAX_BLOCKS = 4096
"""How many blocks an answer may have: their numbers are the server's."""


def piece_of_event(event: Any) -> str | None:
    """Return the text that an event adds to the answer."""
    text: str | None = event["contentBlockDelta"]["delta"].get("text")
    return text


def answer_of_events(events: list[Any]) -> Any:
    """Return the answer as `Converse` gives it, or an object with the `error` that ended the stream.

    Raises:
        GenerationError: the stream broke off.
        ValueError: it is not a stream of this API.
    """
    blocks: dict[int, _Block] = {}
    answer: dict[str, Any] = {}
    is_known = has_ended = False
    for event in events:
        if not isinstance(event, dict) or len(event) != 1:
            raise ValueError("it is not a stream of AWS")
        ((name, value),) = event.items()
        if name == DAMAGED:
            raise _broken_off(f"the stream is damaged: {_error(name, value)['message']}")
        if name in _STATUSES or "exception" in name.lower() or name == "error":
            return {"error": _error(name, value)}
        if not isinstance(value, dict):
            continue
        if name in ("contentBlockStart", "contentBlockDelta"):
            number = value.get("contentBlockIndex")
            if isinstance(number, int) and (number in blocks or len(blocks) < MAX_BLOCKS):
                blocks.setdefault(number, _Block()).add(value.get("start"), value.get("delta"))
        elif name == "messageStop":
            has_ended = True
            answer |= value
        elif name == "metadata":
            answer |= value
        is_known = is_known or name in ("messageStart", "contentBlockDelta", "messageStop")
    if not is_known:
        raise ValueError("there is no event of ConverseStream in it")
    if not has_ended:
        raise _broken_off("the stream broke off before its end")
    content = [block.whole() for _, block in sorted(blocks.items())]
    return {**answer, "output": {"message": {"role": "assistant", "content": content}}}


class _Block:
    """A block of the answer, as its events add to it."""

    def __init__(self) -> None:
        self._tool: dict[str, Any] | None = None
        self._texts: dict[str, list[str]] = {"text": [], "input": [], "thought": [], "signature": []}
        self._redacted: list[bytes] = []

    def add(self, start: Any, delta: Any) -> None:
        """Take what an event begins or adds; what has another shape adds nothing."""
        if isinstance(start, dict) and isinstance(start.get("toolUse"), dict):
            self._tool = start["toolUse"]
        if not isinstance(delta, dict):
            return
        self._append("text", delta.get("text"))
        tool, thought = delta.get("toolUse"), delta.get("reasoningContent")
        if isinstance(tool, dict):
            self._append("input", tool.get("input"))
        if isinstance(thought, dict):
            self._append("thought", thought.get("text"))
            self._append("signature", thought.get("signature"))
            redacted = thought.get("redactedContent")
            if isinstance(redacted, str):
                with suppress(ValueError):
                    self._redacted.append(base64.b64decode(redacted))

    def _append(self, name: str, text: Any) -> None:
        if isinstance(text, str):
            self._texts[name].append(text)

    def whole(self) -> dict[str, Any]:
        """Return the block as `Converse` has it."""
        text, given, thought, signature = ("".join(parts) for parts in self._texts.values())
        if self._tool is not None:
            return {"toolUse": {**self._tool, "input": _json(given)}}
        if self._redacted:
            redacted = base64.b64encode(b"".join(self._redacted)).decode()
            return {"reasoningContent": {"redactedContent": redacted}}
        if thought or signature:
            told = {"text": thought, **({"signature": signature} if signature else {})}
            return {"reasoningContent": {"reasoningText": told}}
        return {"text": text}


def _json(text: str) -> Any:
    """Return the arguments of a call; as text if they are not JSON."""
    try:
        return orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return text


def _error(name: str, value: Any) -> dict[str, Any]:
    """Return an error within a stream in the form that the same error has with a status."""
    value = value if isinstance(value, dict) else {}
    original = value.get("originalStatusCode")  # of the model itself, whose fault it is then
    status = original if isinstance(original, int) and 400 <= original < 500 else _STATUSES.get(name)
    message = value.get("message") or value.get("originalMessage") or name
    error = {"code": name[:1].upper() + name[1:], "message": message}
    return error if status is None else {**error, "status": status}


def _broken_off(message: str) -> GenerationError:
    return GenerationError(
        message, kind="connection", hint="run the same command again; if it happens often, check the network"
    )
