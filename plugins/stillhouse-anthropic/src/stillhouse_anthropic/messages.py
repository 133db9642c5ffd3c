"""From a chat to the `system` and the `messages` of the API."""

from __future__ import annotations

from typing import Any

from stillhouse import ConfigurationError, StandardInput
from stillhouse.http import arguments_of, function_of, image_of, media_type_of, split_system

__all__ = ["request_messages"]

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_DATA_URL_HINT = "write it as data:image/png;base64,…, or give the image's address on the web"


def request_messages(chat: StandardInput) -> tuple[str | list[dict[str, Any]] | None, list[dict[str, Any]]]:
    """The system prompt, `None` if there is none, and the messages, as the API takes them.

    System messages leave the chat, wherever they stand in it, and follow each other in the system
    prompt. Messages of the role `tool` become `tool_result` blocks of a user's message; those that
    follow each other become one, for the API requires the results of one turn together. A content
    that is a string stays one, and a part of a type that only the API knows is left as it is. The
    chat is not changed.

    Raises:
        ConfigurationError: a part cannot be made into a block, or nothing but system messages is there.
    """
    prompts, others = split_system(chat)
    system = [block for message in prompts for block in _system_blocks({**message})]
    messages: list[dict[str, Any]] = []
    results: list[dict[str, Any]] | None = None  # of the message before, if it is one of tool results
    for item in others:
        message: dict[str, Any] = {**item}
        if message["role"] == "tool":
            if results is None:
                results = []
                messages.append({"role": "user", "content": results})
            results.append(_tool_result(message))
        else:
            results = None
            messages.append(_message(message))
    if not messages:
        raise ConfigurationError(
            "the chat has only system messages; the API requires a user message", hint="add a user message"
        )
    if not system:
        return None, messages
    if len(system) == 1 and system[0].keys() == {"type", "text"}:
        return system[0]["text"], messages
    return system, messages


def _system_blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, list):
        return _blocks(content)
    # Keys such as cache_control belong to a block here; the API has no system message to hold them.
    extra = {key: value for key, value in message.items() if key not in ("role", "content", "name")}
    return [{**extra, "type": "text", "text": content}] if content else []


def _message(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.pop("tool_calls", None)
    thinking = message.pop("thinking_blocks", None)
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = _blocks(content)
    if not calls and not thinking:
        return message
    # The API requires a turn's thinking before everything else in it, and its calls last.
    text = message["content"] if isinstance(content, list) else _text_blocks(content)
    message["content"] = [*(thinking or ()), *text, *(_tool_use(call) for call in calls or ())]
    return message


def _tool_use(call: dict[str, Any]) -> dict[str, Any]:
    function = function_of(call)
    if function is None:
        return call  # in the API's own form already
    return {
        "type": "tool_use",
        "id": call.get("id"),
        "name": function.get("name"),
        "input": arguments_of(call),
    }


def _tool_result(message: dict[str, Any]) -> dict[str, Any]:
    known = ("role", "content", "name", "tool_call_id")  # the id of the call says which tool it was
    content = message.get("content")
    return {
        "type": "tool_result",
        "tool_use_id": message.get("tool_call_id"),
        "content": _blocks(content) if isinstance(content, list) else content or "",
        **{key: value for key, value in message.items() if key not in known},
    }


def _text_blocks(text: str | None) -> list[dict[str, Any]]:
    """The API refuses a block with an empty text."""
    return [{"type": "text", "text": text}] if text else []


def _blocks(parts: list[Any]) -> list[dict[str, Any]]:
    return [_block(part) for part in parts if not _is_empty(part)]


def _is_empty(part: Any) -> bool:
    """Whether a part is a text with nothing in it; the API refuses it, and also a mark of a cache on it."""
    return isinstance(part, dict) and part.get("type") == "text" and part.get("text") == ""


def _block(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url":
        extra = {key: value for key, value in part.items() if key not in ("type", "image_url")}
        return {**extra, "type": "image", "source": _source(part)}
    source = part.get("source") if kind == "image" else None
    if isinstance(source, dict) and source.get("type") == "base64":  # in the API's own form already
        media_type = media_type_of(source.get("media_type"), _IMAGE_TYPES, _DATA_URL_HINT)
        return {**part, "source": {**source, "media_type": media_type}}
    return part


def _source(part: dict[str, Any]) -> dict[str, Any]:
    image = image_of(part, _IMAGE_TYPES)
    if isinstance(image, str):
        return {"type": "url", "url": image}
    return {"type": "base64", "media_type": image.media_type, "data": image.data}
