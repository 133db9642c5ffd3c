"""From tools in OpenAI's form, which most chats are written in, to the API's; its own form is kept."""

from __future__ import annotations

from typing import Any

from stillhouse.http import NamedTool, choice_of, function_of

__all__ = ["request_tool_config", "request_tools"]

_MODES = {"required": "ANY"}


def request_tools(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tools as the API takes them: all functions in one, and then those in its own form."""
    functions, others = [], []
    for tool in tools:
        function = function_of(tool)
        if function is None:
            others.append(tool)
            continue
        declaration = {"name": function.get("name")}
        for key, name in (("description", "description"), ("parameters", "parametersJsonSchema")):
            if function.get(key) is not None:
                declaration[name] = function[key]
        functions.append(declaration)
    return [{"functionDeclarations": functions}, *others] if functions else others


def request_tool_config(choice: str | dict[str, Any]) -> dict[str, Any]:
    """Return the choice as the API takes it; one in its own form is left as it is."""
    found = choice_of(choice)
    if isinstance(choice, dict) and found is None:
        return choice if "functionCallingConfig" in choice else {"functionCallingConfig": choice}
    if isinstance(found, NamedTool):
        return {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [found.name]}}
    word = str(choice)
    return {"functionCallingConfig": {"mode": _MODES.get(word, word.upper())}}
