"""From a chat to the messages of the API."""

from __future__ import annotations

from typing import Any

from stillhouse import StandardInput
from stillhouse.http import arguments_of, function_of, image_of, text_of, tool_names

__all__ = ["request_messages"]

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")

_ROLES = {"developer": "system"}


def request_messages(chat: StandardInput) -> list[dict[str, Any]]:
    """The messages as the API takes them; the chat is not changed.

    A content is one text, and the images stand beside it. The arguments of tool calls are objects, and the
    result of a tool has its name. Keys that only the API knows, such as `thinking`, are left as they are.

    Raises:
        ConfigurationError: a part cannot be sent, or the arguments of a tool call are no JSON object.
    """
    names: dict[str, str] = {}  # of the functions that were called so far; ids may come again
    messages = []
    for item in chat:
        message: dict[str, Any] = dict(item)
        message["role"] = _ROLES.get(message["role"], message["role"])
        text, images = _content(message.get("content"))
        message["content"] = text
        if images:
            message["images"] = [*(message.get("images") or ()), *images]
        if message.get("tool_calls"):
            names |= tool_names([item])
            message["tool_calls"] = [_call(call) for call in message["tool_calls"]]
        elif "tool_calls" in message:
            del message["tool_calls"]
        if message["role"] == "tool":
            name = message.pop("name", None) or names.get(message.get("tool_call_id") or "")
            if name:
                message.setdefault("tool_name", name)
        messages.append(message)
    return messages


def _content(content: Any) -> tuple[str, list[str]]:
    """The text of a content, and its images as base64."""
    if not isinstance(content, list):
        return text_of(content), []
    texts, images = [], []
    for part in content:
        if isinstance(part, dict) and part.get("type") == "image_url":
            image = image_of(part, _IMAGE_TYPES, urls=False)
            images.append(image if isinstance(image, str) else image.data)
        else:
            texts.append(part)
    return text_of(texts), images


def _call(call: Any) -> Any:
    function = function_of(call)
    if function is None:
        return call
    return {**call, "function": {**function, "arguments": arguments_of(call)}}
