"""Helpers that convert chats and tools to the format of an API.

Chats are in OpenAI's format, like `ChatItem`. The backend passes on parts, tools and choices that are in the
provider's own format. No function changes its arguments.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

import orjson

from stillhouse.errors import ConfigurationError, UnsupportedError
from stillhouse.typing import ChatItem

__all__ = [
    "InlineImage",
    "NamedTool",
    "arguments_of",
    "choice_of",
    "complete_tool",
    "effort_of",
    "function_of",
    "image_of",
    "lean_message",
    "media_type_of",
    "split_system",
    "text_of",
    "tool_names",
]

T = TypeVar("T")

_SYSTEM_ROLES = ("system", "developer")

_REASONING = ("reasoning", "reasoning_content")
"""The keys of a message that have its reasoning: that of our outputs, and that of many servers."""

_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/jpe": "image/jpeg",
    "image/jfif": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
}
"""Names of media types that are in use, and that no API knows."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")

_MAX_SHOWN = 40
"""How many characters of an image's address, or of a name, a message shows."""


class InlineImage(NamedTuple):
    """An image whose bytes are in the chat.

    Attributes:
        media_type: the media type, such as `image/png`, under the name that APIs use.
        data: its bytes as base64, without white space.
    """

    media_type: str
    data: str


class NamedTool(NamedTuple):
    """A choice of one tool, by the name of its function."""

    name: str


def split_system(chat: Collection[ChatItem]) -> tuple[list[ChatItem], list[ChatItem]]:
    """Return the messages with the roles `system` and `developer`, and all others, both in order."""
    system = [message for message in chat if message["role"] in _SYSTEM_ROLES]
    return system, [message for message in chat if message["role"] not in _SYSTEM_ROLES] if system else [
        *chat
    ]


def lean_message(given: ChatItem) -> tuple[dict[str, Any], str | None]:
    """Return a copy of a message without empty fields, and its reasoning.

    Fields that are null or empty lists, such as OpenAI's SDK writes, are left out, except `content`. The role
    `developer` becomes `system`. The reasoning of an answer is removed and returned; `None` means that there
    is none.
    """
    message = {
        key: value
        for key, value in given.items()
        if key == "content" or not (value is None or (type(value) is list and not value))
    }
    reasoning = None
    role = message.get("role")
    if role == "developer":
        message["role"] = "system"
    elif role == "assistant":
        for name in _REASONING:
            text = message.pop(name, None)
            if reasoning is None and isinstance(text, str) and text.strip():
                reasoning = text
    return message, reasoning


def text_of(content: Any) -> str:
    """Return a content as one text, with the texts of its parts joined; `None` gives an empty text.

    Raises:
        ConfigurationError: a part is not a text.
    """
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise ConfigurationError(
                f"a part of the type {str(kind)[:_MAX_SHOWN]!r} stands where the API takes text only",
                hint="give a string, or parts of the type text",
            )
        texts.append(text)
    return "".join(texts)


def image_of(
    part: Mapping[str, Any], media_types: Collection[str], *, urls: bool = True
) -> InlineImage | str:
    """Return the image of an `image_url` part: its bytes, or its web address.

    Args:
        part: the part.
        media_types: the media types that the API accepts, such as `image/png`.
        urls: whether the API fetches images from web addresses.

    Raises:
        ConfigurationError: the part has no address, its bytes are not base64 of one of these types, or it has
            a web address and the API fetches none.
    """
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    hint = "write it as data:image/png;base64,…" + (
        ", or give the image's address on the web" if urls else ""
    )
    if not isinstance(url, str) or not url:
        raise ConfigurationError("an image_url part has no url", hint=hint)
    url = url.strip()
    if url[:8].lower().startswith(("http://", "https://")):
        if urls:
            return url
        raise ConfigurationError(f"the API fetches no images: {url[:_MAX_SHOWN]!r} is an address", hint=hint)
    head, comma, data = url.partition(",")
    media_type, *flags = head[5:].split(";")
    if head[:5].lower() != "data:" or not comma or "base64" not in map(str.lower, map(str.strip, flags)):
        otherwise = "neither an address on the web nor base64 data" if urls else "not base64 data"
        raise ConfigurationError(f"the url of an image, {url[:_MAX_SHOWN]!r}, is {otherwise}", hint=hint)
    if "%" in data:
        data = unquote(data)
    data = "".join(data.split())
    if not _BASE64.fullmatch(data) or len(data.rstrip("=")) % 4 == 1:
        raise ConfigurationError(f"the data of an image, {url[:_MAX_SHOWN]!r}, are not base64", hint=hint)
    return InlineImage(media_type_of(media_type, media_types, hint), data)


def media_type_of(given: Any, media_types: Collection[str], hint: str = "") -> str:
    """Return the API's name of an image's media type.

    Raises:
        ConfigurationError: the API does not accept the type.
    """
    name = given.strip().lower() if isinstance(given, str) else ""
    name = _ALIASES.get(name, name)
    if name not in media_types:
        raise ConfigurationError(
            f"the API takes images of the types {', '.join(media_types)}, and not of "
            f"{str(given)[:_MAX_SHOWN]!r}",
            hint="convert the image" + (f"; {hint}" if hint else ""),
        )
    return name


def arguments_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the arguments of a tool call in a chat, which are JSON as text.

    Missing arguments, an empty text and `null` give `{}`.

    Raises:
        ConfigurationError: they are not a JSON object.
    """
    function = function_of(call) or {}
    arguments = function.get("arguments") or {}
    why = ""
    if isinstance(arguments, str):
        try:
            arguments = orjson.loads(arguments) or {} if arguments.strip() else {}
        except orjson.JSONDecodeError as error:
            why = f": {error}"
    if not isinstance(arguments, dict):
        name = str(function.get("name"))[:_MAX_SHOWN]
        what = "not valid JSON" if why else "not a JSON object"
        raise ConfigurationError(
            f"the arguments of the tool call {name!r} are {what}{why}", hint="write them as a JSON object"
        )
    return arguments


def tool_names(chat: Collection[ChatItem]) -> dict[str, str]:
    """Return the name of the function of each tool call in a chat, by the id of the call.

    Use it for APIs in which a tool's result names the function; a message with the role `tool` has only the
    id.
    """
    names = {}
    for message in chat:
        for call in message.get("tool_calls") or ():
            function = function_of(call)
            if function is None:
                continue
            id, name = call.get("id"), function.get("name")
            if isinstance(id, str) and isinstance(name, str):
                names[id] = name
    return names


def function_of(tool: Any) -> dict[str, Any] | None:
    """Return the `function` of a tool or a call in OpenAI's format; `None` for any other format."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else None


def complete_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool without null fields and with `parameters`, for APIs that require this.

    A tool in the provider's own format is returned unchanged.
    """
    function = function_of(tool)
    if function is None:
        return tool
    kept = {key: value for key, value in function.items() if value is not None}
    kept.setdefault("parameters", {"type": "object", "properties": {}})
    return {**tool, "function": kept}


def choice_of(tool_choice: Any) -> str | NamedTool | None:
    """Return the choice of a tool: `auto`, `none`, `required`, a `NamedTool`, or another word.

    `None` means that the choice is in the provider's own format.
    """
    if isinstance(tool_choice, str):
        return tool_choice
    function = function_of(tool_choice)
    name = None if function is None else function.get("name")
    return NamedTool(name) if isinstance(name, str) and name else None


def effort_of(effort: str, levels: Mapping[str, T], llm: str) -> T:
    """Return the provider's word or budget for a `reasoning_effort`.

    Args:
        effort: the level, one of `stillhouse.typing.ReasoningEffort`.
        levels: the provider's word or budget for each level that it has.
        llm: the name of the LLM, for the message.

    Raises:
        UnsupportedError: the provider does not have this level; the hint lists its levels. It stops the run.
    """
    try:
        return levels[effort]
    except (KeyError, TypeError):
        raise UnsupportedError(
            f"{llm} has no reasoning_effort {str(effort)[:_MAX_SHOWN]!r}",
            hint=f"choose one of {', '.join(levels)}",
            stops_run=True,
        ) from None
