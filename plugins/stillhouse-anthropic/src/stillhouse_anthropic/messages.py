"""From a chat to the `system` and the `messages` of the API."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import orjson

from stillhouse import ConfigurationError, StandardInput

__all__ = ["request_messages"]

_SYSTEM_ROLES = ("system", "developer")
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/jpe": "image/jpeg",
    "image/jfif": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
}
"""Names of media types that are in use, and that the API does not know."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
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
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    results: list[dict[str, Any]] | None = None  # of the message before, if it is one of tool results
    for item in chat:
        message: dict[str, Any] = dict(item)
        role = message["role"]
        if role in _SYSTEM_ROLES:
            system.extend(_system_blocks(message))
        elif role == "tool":
            if results is None:
                results = []
                messages.append({"role": "user", "content": results})
            results.append(_tool_result(message))
        else:
            results = None
            messages.append(_message(message))
    if not messages:
        raise ConfigurationError(
            "the chat has only system messages, and the API answers a user's", hint="add a user's message"
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
    function = call.get("function")
    if not isinstance(function, dict):
        return call  # in the API's own form already
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments)
        except orjson.JSONDecodeError as error:
            raise ConfigurationError(
                f"the arguments of the tool call {function.get('name')!r} are not valid JSON: {error}",
                hint="write them as a JSON object",
            ) from None
    return {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": arguments}


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
    return [_block(part) for part in parts if part != {"type": "text", "text": ""}]


def _block(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url":
        return _image(part)
    source = part.get("source") if kind == "image" else None
    if isinstance(source, dict) and source.get("type") == "base64":  # in the API's own form already
        return {**part, "source": {**source, "media_type": _media_type(source.get("media_type"))}}
    return part


def _image(part: dict[str, Any]) -> dict[str, Any]:
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str) or not url:
        raise ConfigurationError("an image_url part has no url", hint=_DATA_URL_HINT)
    extra = {key: value for key, value in part.items() if key not in ("type", "image_url")}
    return {**extra, "type": "image", "source": _source(url)}


def _source(url: str) -> dict[str, Any]:
    url = url.strip()
    if url[:8].lower().startswith(("http://", "https://")):
        return {"type": "url", "url": url}
    head, comma, data = url.partition(",")
    media_type, *flags = head[5:].split(";")
    if head[:5].lower() != "data:" or not comma or "base64" not in map(str.lower, map(str.strip, flags)):
        raise ConfigurationError(
            f"the url of an image, {url[:40]!r}, is neither an address on the web nor base64 data",
            hint=_DATA_URL_HINT,
        )
    if "%" in data:
        data = unquote(data)
    data = "".join(data.split())
    if not _BASE64.fullmatch(data) or len(data.rstrip("=")) % 4 == 1:
        raise ConfigurationError(f"the data of an image, {url[:40]!r}, are not base64", hint=_DATA_URL_HINT)
    return {"type": "base64", "media_type": _media_type(media_type), "data": data}


def _media_type(given: Any) -> str:
    """The media type of an image as the API names it."""
    name = given.strip().lower() if isinstance(given, str) else ""
    name = _ALIASES.get(name, name)
    if name not in _IMAGE_TYPES:
        raise ConfigurationError(
            f"the API takes images of the types {', '.join(_IMAGE_TYPES)}, and not of {str(given)[:40]!r}",
            hint=f"convert the image; {_DATA_URL_HINT}",
        )
    return name
