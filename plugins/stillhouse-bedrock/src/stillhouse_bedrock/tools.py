"""From tools in OpenAI's form to the API's `toolConfig`; those in the API's own form are kept."""

from __future__ import annotations

from typing import Any

from stillhouse import ConfigurationError, UnsupportedError
from stillhouse.http import NamedTool, choice_of, function_of
from stillhouse_bedrock.messages import checked_name

__all__ = ["tool_config"]

_CHOICES = {"required": "any", "any": "any"}


def tool_config(
    tools: list[dict[str, Any]] | None, tool_choice: Any, messages: list[dict[str, Any]], llm: str
) -> dict[str, Any] | None:
    """The `toolConfig` of a request, or `None` if it needs none.

    The API has no choice of no tool: with `none` the tools are left out. But it refuses a history with calls
    without tools. Such a request has the tools that were given, or else those that the history names.

    Raises:
        ConfigurationError, UnsupportedError: the API takes no such tool, or no such choice.
    """
    choice = None if tool_choice is None else choice_of(tool_choice)
    given = [_tool(tool) for tool in tools or ()]
    if choice == "none" or not given:
        if tool_choice is not None and choice not in ("none", "auto"):
            raise ConfigurationError("tool_choice requires tools", hint="add the tools")
        used = _used(messages)
        if not used:
            return None
        return {"tools": given or [_spec(name, {}) for name in used]}
    config: dict[str, Any] = {"tools": given}
    if choice == "auto":
        return config  # it is auto without a choice, and some models take none
    if isinstance(choice, NamedTool):
        config["toolChoice"] = {"tool": {"name": checked_name(choice.name)}}
    elif choice is not None:
        if choice not in _CHOICES:
            raise UnsupportedError(
                f"{llm} does not support tool_choice {choice[:40]!r}",
                hint="choose auto, none, required, or a tool by name",
            )
        config["toolChoice"] = {_CHOICES[choice]: {}}
    elif tool_choice is not None:
        config["toolChoice"] = tool_choice
    return config


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = function_of(tool)
    return tool if function is None else _spec(function.get("name"), function)


def _spec(name: Any, function: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", **(function.get("parameters") or {})}
    spec: dict[str, Any] = {"name": checked_name(name), "inputSchema": {"json": parameters}}
    description, strict = function.get("description"), function.get("strict")
    if isinstance(description, str) and description.strip():
        spec["description"] = description
    if strict is not None:
        spec["strict"] = strict
    return {"toolSpec": spec}


def _used(messages: list[dict[str, Any]]) -> list[str]:
    """The names of the tools that the history calls, each once."""
    blocks = [block for message in messages for block in message["content"]]
    names = [block["toolUse"].get("name") for block in blocks if isinstance(block.get("toolUse"), dict)]
    if not names and any("toolResult" in block for block in blocks):
        return ["tool"]  # of a result whose call is not there
    return list(dict.fromkeys(names))
