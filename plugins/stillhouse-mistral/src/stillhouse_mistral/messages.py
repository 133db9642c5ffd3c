"""From a chat to the messages of the API, which refuses unknown fields and other forms of tool call ids."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from stillhouse.typing import ChatItem

__all__ = ["request_messages", "short_ids"]

_ID = re.compile(r"[a-zA-Z0-9]{9}")
"""What the API takes as the id of a tool call."""


_REASONING = ("reasoning", "reasoning_content")


def request_messages(chat: list[ChatItem]) -> list[dict[str, Any]]:
    """The messages for a chat.

    Ids of tool calls become nine letters or digits, the same for a call and its result. The reasoning of an
    answer becomes a part of its content. A last message of the assistant is the beginning of the answer, and
    the API wants to be told so.
    """
    ids = short_ids(_call_ids(chat))
    messages = [_message(message, ids) for message in chat]
    if messages and messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls"):
        messages[-1] = {"prefix": True, **messages[-1]}
    return messages


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """The id that the API gets for each id: distinct for distinct ones, and itself where the API takes it."""
    short = dict.fromkeys(ids, "")
    taken = {id for id in short if _ID.fullmatch(id)}
    for id in short:
        made, attempt = id, 0
        while id not in taken and (attempt == 0 or made in taken):
            made = hashlib.sha256(f"{attempt} {id}".encode("utf-8", "replace")).hexdigest()[:9]
            attempt += 1
        short[id] = made
        taken.add(made)
    return short


def _call_ids(chat: list[ChatItem]) -> Iterator[str]:
    for message in chat:
        for call in message.get("tool_calls") or ():
            if isinstance(call, dict) and call.get("id") is not None:
                yield str(call["id"])
        if message.get("tool_call_id") is not None:
            yield str(message["tool_call_id"])


def _message(given: ChatItem, ids: dict[str, str]) -> dict[str, Any]:
    # A field that is null would be refused as an unknown one: OpenAI's SDK writes many.
    message = {key: value for key, value in given.items() if value is not None or key == "content"}
    if message.get("role") == "developer":
        message["role"] = "system"
    if message.get("tool_call_id") is not None:
        message["tool_call_id"] = ids[str(message["tool_call_id"])]
    reasoning = [message.pop(name) for name in _REASONING if name in message]
    if reasoning and message.get("role") == "assistant":
        message["content"] = [_thinking(reasoning[0]), *_parts(message.get("content"))]
    calls = message.get("tool_calls")
    if calls:
        message["tool_calls"] = [
            {**call, "id": ids[str(call["id"])]}
            if isinstance(call, dict) and call.get("id") is not None
            else call
            for call in calls  # type: ignore[attr-defined]
        ]
    elif calls is not None:
        del message["tool_calls"]  # an empty list is refused
    return message


def _thinking(text: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def _parts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content or []
