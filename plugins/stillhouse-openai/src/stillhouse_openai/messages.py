"""Chats as the servers take them that are stricter than OpenAI about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from stillhouse.http import text_of

__all__ = ["plain_messages", "with_reasoning_as", "with_schema"]

_REASONING = ("reasoning_content", "reasoning")
"""The keys under which servers give the reasoning of a message; `reasoning` is that of our outputs, too."""

_FORM = (
    "Answer with JSON alone, without any text before or after it. "
    "The JSON must be valid against this JSON schema:\n"
)


def plain_messages(chat: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a chat in which contents are strings where they can be, and roles those that every server knows.

    Parts that are nothing but texts become one string, and an empty text beside tool calls becomes none: not
    every server takes a list, or an empty text. A part with more in it than its text is left alone. The role
    `developer`, which few servers know beside OpenAI's, becomes `system`.
    """
    made: list[dict[str, Any]] = []
    for message in chat:
        content = message.get("content")
        if message.get("role") == "developer":
            message = {**message, "role": "system"}
        if content == "" and message.get("tool_calls"):
            message = {**message, "content": None}
        elif isinstance(content, list) and all(_is_plain(part) for part in content):
            message = {**message, "content": text_of(content)}
        made.append(message)
    return made


def _is_plain(part: Any) -> bool:
    return isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text"


def with_reasoning_as(key: str, chat: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a chat whose assistant's messages have their reasoning under the server's key."""
    others = [name for name in _REASONING if name != key]
    made: list[dict[str, Any]] = []
    for message in chat:
        found = [name for name in others if name in message] if message.get("role") == "assistant" else ()
        if found:
            rest = {name: value for name, value in message.items() if name not in found}
            reasoning = rest.get(key) or next((message[name] for name in found if message[name]), None)
            message = {**rest, key: reasoning} if reasoning is not None else rest
        made.append(message)
    return made


def with_schema(chat: Sequence[dict[str, Any]], schema: Any) -> list[dict[str, Any]]:
    """Return a chat that asks for JSON by a schema, in its first system message or in a new one."""
    told = _FORM + orjson.dumps(schema).decode()
    first = chat[0] if chat else {}
    if first.get("role") != "system":
        return [{"role": "system", "content": told}, *chat]
    content = first.get("content")
    if isinstance(content, list):
        return [{**first, "content": [*content, {"type": "text", "text": told}]}, *chat[1:]]
    return [{**first, "content": f"{content}\n\n{told}" if content else told}, *chat[1:]]
