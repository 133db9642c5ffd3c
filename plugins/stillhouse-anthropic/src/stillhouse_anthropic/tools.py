"""From tools in OpenAI's form, which most chats are written in, to the API's; its own form is kept."""

from __future__ import annotations

from typing import Any

from stillhouse.http import NamedTool, choice_of, function_of

__all__ = ["request_tool_choice", "request_tools"]

_CHOICES = {"required": "any"}


def request_tools(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tools as the API takes them; a tool in its own form, or of its own kinds, is left as it is."""
    return [_tool(tool) for tool in tools]


def request_tool_choice(choice: str | dict[str, Any]) -> dict[str, Any]:
    """The choice as the API takes it; one in its own form is left as it is."""
    wanted = choice_of(choice)
    if isinstance(wanted, NamedTool):
        return {"type": "tool", "name": wanted.name}
    if wanted is not None:
        return {"type": _CHOICES.get(wanted, wanted)}
    assert isinstance(choice, dict)
    return choice


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = function_of(tool)
    if function is None:
        return tool
    extra = {key: value for key, value in tool.items() if key not in ("type", "function")}
    own = {key: value for key, value in function.items() if key != "parameters" and value is not None}
    return {**own, **extra, "input_schema": function.get("parameters") or {"type": "object"}}
