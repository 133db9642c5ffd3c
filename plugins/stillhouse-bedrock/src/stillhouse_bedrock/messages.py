"""From a chat to the `system` and the `messages` of the API, whose blocks are objects with one key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from stillhouse import ConfigurationError, StandardInput
from stillhouse.http import arguments_of, function_of, image_of, media_type_of, split_system, string_of

__all__ = ["checked_name", "request_messages"]

_FORMATS = {f"image/{name}": name for name in ("png", "jpeg", "gif", "webp")}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")


def request_messages(chat: StandardInput) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The blocks of the system prompt, and the messages, as the API takes them.

    System messages leave the chat, wherever they stand in it. Results of tools are a user's blocks, and
    neighbours of one role become one message, since the API wants the roles to alternate. It refuses blank
    texts: they are left out. A block in the API's own form is left as it is. The chat is not changed.

    Raises:
        ConfigurationError: a part cannot be made into a block, or nothing is left to be answered.
    """
    prompts, others = split_system(chat)
    system = [block for message in prompts for block in _content(message)]
    messages: list[dict[str, Any]] = []
    for message in others:
        role = "user" if message["role"] == "tool" else message["role"]
        blocks = list(_message_blocks(message))
        if messages and messages[-1]["role"] == role:
            before = messages[-1]["content"]
            if message["role"] == "tool":  # results come before everything else in the turn after their calls
                place = sum("toolResult" in block for block in before)
                before[place:place] = blocks[:1]
                blocks = blocks[1:]
            before += blocks
        elif blocks:
            messages.append({"role": role, "content": blocks})
    if not messages:
        raise ConfigurationError(
            "the chat has only system messages and blank texts; the API requires a user message",
            hint="add a user message with text",
        )
    return system, messages


def checked_name(name: Any) -> str:
    """The name of a tool.

    Raises:
        ConfigurationError: it is none that the API takes.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"the API does not accept the tool name {str(name)[:80]!r}",
            hint="use 1 to 64 letters, digits, underscores and hyphens",
        )
    return name


def _message_blocks(message: Any) -> Iterator[dict[str, Any]]:
    if message["role"] == "tool":
        yield from _tool_result(message)
        return
    # A turn's thoughts come before everything else in it, and its calls last.
    for block in message.get("thinking_blocks") or ():
        yield from _block(block)
    yield from _content(message)
    for call in message.get("tool_calls") or ():
        function = function_of(call)
        if function is None:
            yield call  # in the API's own form already
            continue
        name = checked_name(function.get("name"))
        yield {"toolUse": {"toolUseId": _call_id(call.get("id")), "name": name, "input": arguments_of(call)}}


def _tool_result(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The block of a result, and behind it the mark that stands in it, where the API takes none."""
    blocks = list(_content(message))
    marks = [block for block in blocks if "cachePoint" in block]
    result: dict[str, Any] = {
        "toolUseId": _call_id(message.get("tool_call_id")),
        # A tool that returned nothing: the API takes neither a blank text nor no block.
        "content": [block for block in blocks if "cachePoint" not in block] or [{"json": {}}],
    }
    status = "error" if message.get("is_error") else message.get("status")
    if status in ("error", "success"):
        result["status"] = status
    yield {"toolResult": result}
    yield from marks[-1:]


def _call_id(id: Any) -> str:
    """The id of a call; one of another provider that the API would refuse gets another, always the same."""
    if not isinstance(id, str) or not id:
        raise ConfigurationError(
            "a tool call or its result has no id", hint="give the call an id, and its result a tool_call_id"
        )
    return id if _ID.fullmatch(id) else hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()


def _content(message: Any) -> Iterator[dict[str, Any]]:
    """The blocks of a message's content, and the mark that the message has as a whole."""
    blocks = list(_blocks(message.get("content")))
    yield from blocks
    if blocks and message.get("cache_control") and "cachePoint" not in blocks[-1]:
        yield {"cachePoint": {"type": "default"}}


def _blocks(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield from _text(content)
    for part in content if isinstance(content, list) else ():
        yield from _block(part)


def _text(text: str) -> Iterator[dict[str, Any]]:
    if text.strip():
        yield {"text": text}


def _block(part: Any) -> Iterator[dict[str, Any]]:
    """The blocks of a part in OpenAI's form, of a thought in Anthropic's, or the part in the API's own."""
    if isinstance(part, str):
        yield from _text(part)
        return
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        yield from _text(part["text"])
    elif kind == "image_url":
        image = image_of(part, _FORMATS, urls=False)
        assert not isinstance(image, str)
        yield {"image": {"format": _FORMATS[image.media_type], "source": {"bytes": image.data}}}
    elif kind == "thinking" and isinstance(part.get("thinking"), str):
        signature = string_of(part.get("signature"))
        told = {"text": part["thinking"], **({"signature": signature} if signature else {})}
        yield {"reasoningContent": {"reasoningText": told}}
    elif kind == "redacted_thinking":
        yield {"reasoningContent": {"redactedContent": part.get("data")}}
    elif kind is None and isinstance(part, dict) and len(part) == 1:
        yield from _own_block(part)
    else:
        raise ConfigurationError(
            f"the API does not support parts of the type {str(kind)[:40]!r}",
            hint="give text or image_url parts, or blocks in the API's own format, such as {'document': {…}}",
        )
    if kind is not None and part.get("cache_control"):
        yield {"cachePoint": {"type": "default"}}


def _own_block(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "text" in block:
        yield from _text(str(block["text"]))
        return
    image = block.get("image")
    given = image.get("format") if isinstance(image, dict) else None
    if isinstance(given, str) and given not in _FORMATS.values():
        media_type = media_type_of(f"image/{given}", _FORMATS)
        block = {"image": {**block["image"], "format": _FORMATS[media_type]}}
    yield block
