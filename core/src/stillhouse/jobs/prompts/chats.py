"""`chat_of`: a list of messages of a row, in the chat format or in ShareGPT's, checked message by message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from stillhouse.jobs.prompts.words import kind_of

__all__ = ["chat_of", "ends_with_answer", "is_chat", "without_answer", "without_unions"]

# Who speaks in ShareGPT's `from`, and what the role is called in a chat.
SPEAKERS: Mapping[str, str] = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "model": "assistant", "ai": "assistant",
    "system": "system",
    "tool": "tool", "observation": "tool", "tool_response": "tool", "function_response": "tool",
}  # fmt: skip

_CALLS = "function_call"

# What has a type in a message and may be missing: null there is as if it were missing.
_TEXTS = ("name", "tool_call_id")


def chat_of(value: Any, column: str, *, typed: bool = False) -> list[dict[str, Any]]:
    """Return the messages in a column, each a new dict.

    Args:
        value: a list of messages, or the JSON text of one, as a format without lists has it.
        column: the name of the column.
        typed: whether the value comes from a column with a type, in which every message has the fields of
            all: then a field that is null is left out. Elsewhere null is what the file says.

    Raises:
        ValueError: it is none; the message says which message is not.
    """
    if isinstance(value, str):
        value, typed = _parsed(value, column), False
    if not isinstance(value, list) or not value:
        raise ValueError(f"the column {column} is {kind_of(value)}, not a list of messages")
    messages = []
    calls: list[str] = []  # of ShareGPT, whose messages have no ids
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            raise ValueError(f"message {number} of the row is {kind_of(message)}, not an object with a role")
        found = without_unions(message) if typed else {**message}
        role = found.get("role")
        if role is None and found.get("from") is not None:
            found = _of_sharegpt(found, number, calls)
        elif not isinstance(role, str) or not role:
            raise ValueError(f"message {number} of the row is not an object with a role")
        elif column == "conversations":
            found["role"] = SPEAKERS.get(role, role)
        if type(found.get("content")) is not str or len(found) > 2:
            _check(found, number)
        messages.append(found)
    return messages


def is_chat(value: Any) -> bool:
    """Whether a value looks like a list of messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and ("role" in item or "from" in item) for item in value)
    )


def ends_with_answer(chat: Any) -> bool:
    """Whether the last message of a chat is the assistant's, as in data for training."""
    return isinstance(chat, list) and bool(chat) and chat[-1].get("role") == "assistant"


def without_answer(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a chat without the assistant's messages at its end.

    Raises:
        ValueError: no message is left.
    """
    end = len(chat)
    while end and chat[end - 1]["role"] == "assistant":
        end -= 1
    if not end:
        raise ValueError("the chat has no message but the assistant's")
    return chat[:end]


def _parsed(text: str, column: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError(f"the column {column} is a text that is not valid JSON") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _of_sharegpt(message: dict[str, Any], number: int, calls: list[str]) -> dict[str, Any]:
    """Return a message of ShareGPT as one of a chat.

    Args:
        message: with `from` and `value`.
        number: its position, from 1.
        calls: the ids of the calls that no message has answered yet; updated.
    """
    speaker, text = message["from"], message.get("value")
    if not isinstance(text, str):
        raise ValueError(
            f"message {number} of the row has no value"
            if text is None
            else f"the value of message {number} of the row is {kind_of(text)}, not a text"
        )
    if speaker == _CALLS:
        return {"role": "assistant", "content": None, "tool_calls": _calls_of(text, number, calls)}
    role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise ValueError(
            f"message {number} of the row is from {speaker!r}, which is not one of "
            f"{', '.join([*SPEAKERS, _CALLS])}"
        )
    if role == "tool" and calls:
        return {"role": role, "tool_call_id": calls.pop(0), "content": text}
    return {"role": role, "content": text}


def _calls_of(text: str, number: int, calls: list[str]) -> list[dict[str, Any]]:
    """Return the calls of tools that a text of JSON has, each with an id of its own."""
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        found = None
    made: list[dict[str, Any]] = []
    for call in found if isinstance(found, list) else [found]:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise ValueError(
                f"message {number} of the row is a call without the JSON of a name and arguments"
            )
        arguments = call.get("arguments", {})
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        calls.append(f"call_{number}_{len(made) + 1}")
        function = {"name": call["name"], "arguments": arguments}
        made.append({"id": calls[-1], "type": "function", "function": function})
    return made


def _check(message: dict[str, Any], number: int) -> None:
    """Refuse a message that no backend takes for one, and leave out what is null in it by the format."""
    content = message.get("content")
    if content is None or content == []:
        if message["role"] != "assistant":
            raise ValueError(f"message {number} of the row has no content")
    elif isinstance(content, list):
        for position, part in enumerate(content, 1):
            _check_part(part, f"part {position} of message {number} of the row")
    elif not isinstance(content, str):
        raise ValueError(
            f"the content of message {number} of the row is {kind_of(content)}, not a text or a list of parts"
        )
    for key in _TEXTS:
        if key in message and not isinstance(message[key], str):
            if message[key] is not None:
                raise ValueError(
                    f"the {key} of message {number} of the row is {kind_of(message[key])}, not a text"
                )
            del message[key]
    if "tool_calls" in message:
        calls = message["tool_calls"]
        if calls is None:
            del message["tool_calls"]
        elif not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise ValueError(f"the tool_calls of message {number} of the row are not a list of objects")


def _check_part(part: Any, where: str) -> None:
    if not isinstance(part, dict):
        raise ValueError(f'{where} is {kind_of(part)}, not an object such as {{"type": "text", "text": "…"}}')
    kind = part.get("type")
    if kind is not None and not isinstance(kind, str):
        raise ValueError(f"the type of {where} is {kind_of(kind)}, not a text")
    if kind == "text" and not isinstance(part.get("text"), str):
        raise ValueError(f"the text of {where} is {kind_of(part.get('text'))}, not a text")


def without_unions(value: Any) -> Any:
    """Leave out the fields that are null: a typed column gives every message the fields of all."""
    if isinstance(value, dict):
        # An assistant's message that only calls tools has the content null.
        return {
            key: item if type(item) is str else without_unions(item)
            for key, item in value.items()
            if item is not None or key == "content"
        }
    return [without_unions(item) for item in value] if isinstance(value, list) else value
