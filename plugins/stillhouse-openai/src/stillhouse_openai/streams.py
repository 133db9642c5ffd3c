"""An answer that comes as a stream of events: its pieces as they come, and the events as one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stillhouse import GenerationError
from stillhouse.outputs import count_of
from stillhouse_openai.wire import text_and_thoughts

__all__ = ["answer_of_events", "piece_of_event"]

_RESPONSES = ("response.completed", "response.incomplete", "response.failed")
"""The events of the responses API that hold the whole answer, the last of each stream."""

_DETAIL_TEXTS = frozenset({"data", "summary", "text"})
"""What of a detail of reasoning comes in pieces."""

_LISTS = frozenset({"content", "tokens", "token_logprobs", "top_logprobs"})
"""The lists of log probabilities, in either form, of which each event has a piece."""


def piece_of_event(event: Any) -> str | None:
    """Return the text that an event adds, of chats, completions or the responses API.

    Raises:
        AttributeError, LookupError, TypeError: it adds none.
    """
    if event.get("type") == "response.output_text.delta":
        return event["delta"]  # type: ignore[no-any-return]
    choice = event["choices"][0]
    part = choice.get("delta")
    if part is None:
        part = choice.get("message")
    return text_and_thoughts(choice["text"] if part is None else part["content"])[0]


def answer_of_events(events: Sequence[Any], *, ended: bool = False) -> dict[str, Any]:
    """Join the events of a stream into the answer that would have come in one piece.

    An error among the events is the answer's `error`, as if it had come alone, with the tokens that were
    counted. What is no JSON object is passed over, but for the text `[DONE]`, the mark of the end.

    Args:
        events: the events' data in their order, as JSON types.
        ended: whether the stream had its mark of the end. Without one, every choice must have a finish
            reason.

    Raises:
        ValueError: it is a stream of another API.
        GenerationError: the stream ended before its answer did, or has no answer.
    """
    joined = _Joined()
    for event in events:
        if isinstance(event, dict):
            if event.get("type") in _RESPONSES and isinstance(event.get("response"), dict):
                response: dict[str, Any] = event["response"]
                return response
            joined.add(event)
        elif event == "[DONE]":
            ended = True
    return joined.answer(ended)


class _Joined:
    """What the events of a stream have said so far."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._about: dict[str, Any] = {}
        self._usage: Any = None
        self._error: Any = None
        self._is_foreign: bool | None = None  # until an event has choices

    def add(self, event: dict[str, Any]) -> None:
        for name in ("id", "created", "model", "service_tier", "system_fingerprint"):
            if event.get(name) is not None:
                self._about.setdefault(name, event[name])
        if self._error is None:
            self._error = event.get("error") or None
            if self._error is None and "error" in (event.get("object"), event.get("type")):
                self._error = event  # flat, as some servers have it
        usage, groq = event.get("usage"), event.get("x_groq")
        if usage is None and isinstance(groq, dict):
            usage = groq.get("usage")
        if usage is not None:
            self._usage = usage
        choices = event.get("choices")
        if "choices" in event:
            self._is_foreign = False
        elif self._is_foreign is None:
            self._is_foreign = True
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            if isinstance(choice, dict):
                index = count_of(choice.get("index"))
                index = place if index is None else index
                self._choices.setdefault(index, _Choice()).add(choice)

    def answer(self, ended: bool) -> dict[str, Any]:
        answer = {**self._about, "usage": self._usage}
        if self._error is not None:
            return {**answer, "error": self._error}
        if not self._choices:
            if self._is_foreign:
                raise ValueError("no event has choices")
            raise GenerationError(
                "the server sent a stream of events without an answer",
                kind="server",
                hint="check that base_url is the address of an OpenAI API, and that "
                "nothing requests a stream",
            )
        if not ended and not all(choice.is_finished for choice in self._choices.values()):
            raise GenerationError(
                "the stream of events ended before the answer did",
                kind="connection",
                hint="retry the request",
            )
        made = [{"index": index, **self._choices[index].joined()} for index in sorted(self._choices)]
        return {**answer, "choices": made}


class _Choice:
    """One generation of a stream."""

    def __init__(self) -> None:
        self._is_chat = False
        self._contents: list[Any] = []
        self._texts: dict[str, list[str]] = {}
        self._calls = _Calls()
        self._logprobs: dict[str, list[Any]] = {}
        self._details: dict[Any, dict[str, Any]] = {}
        self._rest: dict[str, Any] = {"finish_reason": None}

    @property
    def is_finished(self) -> bool:
        return bool(self._rest["finish_reason"] or self._rest.get("error"))

    def add(self, choice: dict[str, Any]) -> None:
        part = choice.get("delta")
        if part is None:
            part = choice.get("message")
        if isinstance(part, dict):
            self._is_chat = True
            self._contents.append(part.get("content"))
            for name in ("reasoning_content", "reasoning", "refusal"):
                if isinstance(part.get(name), str):
                    self._texts.setdefault(name, []).append(part[name])
            details = part.get("reasoning_details")
            for detail in details if isinstance(details, list) else ():
                if isinstance(detail, dict):
                    self._add_detail(detail)
            calls = part.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict):
                    self._calls.add(call)
        elif part is not None:
            self._contents.append({"type": type(part).__name__})  # so that reading it says what is wrong
        else:
            self._contents.append(choice.get("text"))
        logprobs = choice.get("logprobs")
        for name, entries in logprobs.items() if isinstance(logprobs, dict) else ():
            if name in _LISTS and isinstance(entries, list):
                self._logprobs.setdefault(name, []).extend(entries)
        for name in ("finish_reason", "native_finish_reason", "error"):
            if choice.get(name) is not None:
                self._rest[name] = choice[name]

    def _add_detail(self, detail: dict[str, Any]) -> None:
        """Add a piece of OpenRouter's details of reasoning, which come by their index."""
        index = count_of(detail.get("index"))
        known = self._details.setdefault(len(self._details) if index is None else index, {})
        for name, value in detail.items():
            begun = known.get(name)
            is_text = name in _DETAIL_TEXTS and isinstance(begun, str) and isinstance(value, str)
            known[name] = begun + value if is_text else value if value is not None else begun

    def joined(self) -> dict[str, Any]:
        rest = {**self._rest, "logprobs": self._logprobs or None}
        content = _content(self._contents)
        if not self._is_chat:
            return {"text": content, **rest}
        message: dict[str, Any] = {"role": "assistant", "content": content}
        message |= {name: "".join(texts) for name, texts in self._texts.items()}
        if self._details:
            message["reasoning_details"] = list(self._details.values())
        calls = self._calls.joined()
        if calls:
            message["tool_calls"] = calls
        return {"message": message, **rest}


def _content(pieces: list[Any]) -> Any:
    """The content that pieces make: a text, a list of parts, or the piece that is neither."""
    given = [piece for piece in pieces if piece is not None]
    if all(isinstance(piece, str) for piece in given):
        return "".join(given) or None
    parts: list[Any] = []
    for piece in given:
        if isinstance(piece, str):
            parts.append({"type": "text", "text": piece})
        elif isinstance(piece, list):
            parts.extend(piece)
        else:
            return piece
    return parts


class _Calls:
    """The tool calls of a choice. Not every server numbers them, and some give all the same number."""

    def __init__(self) -> None:
        self._all: list[dict[str, Any]] = []
        self._by_index: dict[int, dict[str, Any]] = {}
        self._by_id: dict[str, dict[str, Any]] = {}

    def add(self, piece: dict[str, Any]) -> None:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        id, name = piece.get("id"), function.get("name")
        id = None if id is None or id == "" else str(id)
        index = count_of(piece.get("index"))
        call = self._found(index, id, bool(name))
        if call is None:
            call = {"id": id, "name": None, "pieces": [], "rest": {}}
            self._all.append(call)
        call["id"] = call["id"] or id
        if index is not None:
            self._by_index[index] = call
        if id is not None:
            self._by_id[id] = call
        call["name"] = call["name"] or name
        if function.get("arguments") is not None:
            call["pieces"].append(function["arguments"])
        if piece.get("type") is not None:
            call["rest"]["type"] = piece["type"]

    def _found(self, index: int | None, id: str | None, is_named: bool) -> dict[str, Any] | None:
        """The call that a piece belongs to, if it is one that began before."""
        if id is not None:
            known = self._by_id.get(id)
            if known is not None:
                return known
            at = self._by_index.get(index) if index is not None else None
            return at if at is not None and at["id"] is None else None
        if index is not None:
            return self._by_index.get(index)
        if not self._all or (is_named and self._all[-1]["name"]):
            return None
        return self._all[-1]

    def joined(self) -> list[dict[str, Any]]:
        made = []
        for call in self._all:
            pieces = call["pieces"]
            if all(isinstance(piece, str) for piece in pieces):
                arguments: Any = "".join(pieces)
            else:  # an object, which comes whole
                arguments = next(piece for piece in pieces if not isinstance(piece, str))
            function = {"name": call["name"], "arguments": arguments}
            made.append({"id": call["id"], "type": "function", **call["rest"], "function": function})
        return made
