"""From a chat and its tools to what the API takes; it refuses a field that it does not know."""

from __future__ import annotations

from typing import Any

import orjson

from stillhouse import ConfigurationError
from stillhouse.http import (
    NamedTool,
    arguments_of,
    choice_of,
    complete_tool,
    function_of,
    lean_message,
    text_of,
)
from stillhouse.typing import ChatItem

__all__ = ["asks_for_json", "request_messages", "request_tools"]

_CHOICES = {"required": "REQUIRED", "any": "REQUIRED", "none": "NONE"}


def request_messages(chat: list[ChatItem]) -> list[dict[str, Any]]:
    """The messages for a chat.

    Raises:
        ConfigurationError: a message with tool calls has something else than text, or the arguments of a
            call are not a JSON object.
    """
    return [_message(message) for message in chat]


def asks_for_json(chat: list[ChatItem]) -> bool:
    """Whether a message of the chat mentions JSON."""
    for message in chat:
        content = message.get("content")
        for part in content if isinstance(content, list) else (content,):
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str) and "json" in text.lower():
                return True
    return False


def request_tools(tools: list[dict[str, Any]] | None, choice: Any, strict: bool | None) -> dict[str, Any]:
    """The fields for tools and for which of them is to be called.

    The API cannot be told which tool to call: only that tool is offered then.

    Raises:
        ConfigurationError: the tool that is to be called is not among the tools, or the choice is unknown.
    """
    wanted = None if choice is None else choice_of(choice)
    named = wanted.name if isinstance(wanted, NamedTool) else None
    fields: dict[str, Any] = {}
    if named is not None:
        tools = [tool for tool in tools or () if (function_of(tool) or {}).get("name") == named]
        if not tools:
            raise ConfigurationError(
                f"tool_choice names {named!r}, which is not among the tools", hint="add it to tools"
            )
        fields["tool_choice"] = "REQUIRED"
    elif choice is not None and wanted != "auto":
        if not isinstance(wanted, str) or wanted.lower() not in _CHOICES:
            raise ConfigurationError(
                f"the API does not support tool_choice {choice!r}",
                hint="choose auto, none, required, or a tool by name",
            )
        fields["tool_choice"] = _CHOICES[wanted.lower()]
    if not tools:
        return {}
    fields["tools"] = [_tool(tool) for tool in tools]
    if strict is None and all((function_of(tool) or {}).get("strict") for tool in tools):
        strict = True
    if strict is not None:
        fields["strict_tools"] = strict
    return fields


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool without OpenAI's `strict`, which the API has for all tools together."""
    complete = complete_tool(tool)
    if complete is not tool:
        complete["function"].pop("strict", None)
    return complete


def _message(given: ChatItem) -> dict[str, Any]:
    message, reasoning = lean_message(given)
    role = message.get("role")
    if role == "tool":
        message.pop("name", None)  # the id of the call says which tool it was
        message["tool_call_id"] = str(message.get("tool_call_id", ""))
    if message.get("content") is None:
        message.pop("content", None)
        if role == "tool":
            message["content"] = ""
    if role == "assistant":
        if reasoning is not None:
            message["content"] = [
                {"type": "thinking", "thinking": reasoning},
                *_parts(message.get("content")),
            ]
        calls = message.pop("tool_calls", None)
        if calls:
            _add_calls(message, calls)
    return message


def _add_calls(message: dict[str, Any], calls: list[dict[str, Any]]) -> None:
    """Add tool calls. Beside them the API takes no text but the plan; thoughts may stay."""
    content = message.pop("content", None)
    parts = _parts(content)
    thoughts = [part for part in parts if isinstance(part, dict) and part.get("type") == "thinking"]
    text = text_of([part for part in parts if part not in thoughts])
    plan = "\n".join(item for item in (message.get("tool_plan"), text) if item)
    if plan:
        message["tool_plan"] = plan
    if thoughts:
        message["content"] = thoughts
    message["tool_calls"] = [_call(call) for call in calls]


def _parts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content or []


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = function_of(call) or {}
    arguments = function.get("arguments")
    if not isinstance(arguments, str) or not arguments:
        arguments = orjson.dumps(arguments_of(call)).decode()
    made: dict[str, Any] = {"name": function.get("name"), "arguments": arguments}
    return {"id": str(call.get("id", "")), "type": "function", "function": made}
