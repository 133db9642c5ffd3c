"""From a chat to the messages of the API, which refuses unknown fields and other forms of tool call ids."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from stillhouse.http import lean_message
from stillhouse.typing import ChatItem

__all__ = ["request_messages", "short_ids"]

_ID = re.compile(r"[a-zA-Z0-9]{9}")
"""What the API takes as the id of a tool call."""

_CALL = ("id", "type", "function", "index")
"""The fields of a tool call that the API knows."""


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
    message, reasoning = lean_message(given)
    if message.get("tool_call_id") is not None:
        message["tool_call_id"] = ids[str(message["tool_call_id"])]
    if reasoning is not None:
        message["content"] = [_thinking(reasoning), *_parts(message.get("content"))]
    if "tool_calls" in message:
        message["tool_calls"] = [_call(call, ids) for call in message["tool_calls"]]
    return message


def _call(call: Any, ids: dict[str, str]) -> Any:
    """A call without what another provider added to it, such as a signature."""
    if not isinstance(call, dict):
        return call
    made = {key: call[key] for key in _CALL if call.get(key) is not None}
    if "id" in made:
        made["id"] = ids[str(made["id"])]
    return made


def _thinking(text: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def _parts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content or []
