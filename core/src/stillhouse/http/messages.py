"""What a backend reads from a chat and its tools, to write them as its API takes them.

Chats come in OpenAI's form, as `ChatItem` has it. A part, a tool or a choice in the provider's own form is
the backend's to pass on. Nothing here changes what it is given.
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
    """An image that a chat has in it.

    Attributes:
        media_type: such as `image/png`, in the one name that APIs know.
        data: its bytes as base64, without white space.
    """

    media_type: str
    data: str


class NamedTool(NamedTuple):
    """A choice of one tool, by the name of its function."""

    name: str


def split_system(chat: Collection[ChatItem]) -> tuple[list[ChatItem], list[ChatItem]]:
    """Return the messages of the roles `system` and `developer`, and all others, each in their order."""
    system = [message for message in chat if message["role"] in _SYSTEM_ROLES]
    return system, [message for message in chat if message["role"] not in _SYSTEM_ROLES] if system else [
        *chat
    ]


def lean_message(given: ChatItem) -> tuple[dict[str, Any], str | None]:
    """Return a new message without what an API would refuse as an unknown field, and its reasoning.

    OpenAI's SDK writes many fields that are null or empty lists: they are left out, but for `content`. The
    role `developer` becomes `system`. The reasoning of an answer is taken out; `None` means that it has none.
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
    """Return a content as one text: the texts of its parts follow each other, and `None` is empty.

    Raises:
        ConfigurationError: a part is not a text, where the API takes nothing else.
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
    """Return the image of an `image_url` part: its bytes, or its address on the web.

    Args:
        part: the part.
        media_types: those that the API takes, such as `image/png`.
        urls: whether the API fetches an image from an address.

    Raises:
        ConfigurationError: the part has no address, or its bytes are not base64 of one of these types, or the
            API fetches none.
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
    """Return the media type of an image as the API names it.

    Raises:
        ConfigurationError: the API does not take it.
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
    """Return the arguments of a tool call in a chat, which are JSON as text, as an object.

    None are `{}`, whether they are missing, an empty text or `null`.

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
    """Return the name of the function that each tool call in a chat calls, by the call's id.

    It is for APIs whose results of tools name the function: a message of the role `tool` has the id only.
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
    """Return the `function` of a tool, or of a call, in OpenAI's form; `None` means it has another form."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else None


def complete_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool as the APIs take it that refuse fields that are null, and want parameters in every tool.

    A tool in the provider's own form is returned as it is.
    """
    function = function_of(tool)
    if function is None:
        return tool
    kept = {key: value for key, value in function.items() if value is not None}
    kept.setdefault("parameters", {"type": "object", "properties": {}})
    return {**tool, "function": kept}


def choice_of(tool_choice: Any) -> str | NamedTool | None:
    """Return which tool is to be called: `auto`, `none`, `required`, one by name, or another word.

    `None` means that the choice is in the provider's own form.
    """
    if isinstance(tool_choice, str):
        return tool_choice
    function = function_of(tool_choice)
    name = None if function is None else function.get("name")
    return NamedTool(name) if isinstance(name, str) and name else None


def effort_of(effort: str, levels: Mapping[str, T], llm: str) -> T:
    """Return what a `reasoning_effort` is to a provider.

    Args:
        effort: the level, as `stillhouse.typing.ReasoningEffort` has them.
        levels: the provider's word or budget for each level that it has.
        llm: the name of the LLM, for the message.

    Raises:
        UnsupportedError: the provider has no such level; the hint lists those that it has. It stops the run.
    """
    try:
        return levels[effort]
    except (KeyError, TypeError):
        raise UnsupportedError(
            f"{llm} has no reasoning_effort {str(effort)[:_MAX_SHOWN]!r}",
            hint=f"choose one of {', '.join(levels)}",
            stops_run=True,
        ) from None
