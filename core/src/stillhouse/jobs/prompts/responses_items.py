"""The items of OpenAI's responses API as a chat, and its tools and forms as those of chats."""

from __future__ import annotations

from typing import Any

__all__ = ["chat_of", "choice_of", "form_of", "tool_of"]

_TEXTS = ("input_text", "output_text", "text")


def chat_of(given: Any, instructions: Any = None) -> list[dict[str, Any]]:
    """Return a chat of the input of a request.

    Args:
        given: a text, or a list of items.
        instructions: the system message, if there is one.

    Raises:
        ValueError: an item is none of a chat.
    """
    chat: list[dict[str, Any]] = []
    if isinstance(instructions, str) and instructions:
        chat.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*chat, {"role": "user", "content": given}]
    if not isinstance(given, list):
        raise ValueError("the input in its body is neither a text nor a list of items")
    for item in given:
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "message":
            message = {name: value for name, value in item.items() if name not in ("type", "id", "status")}
            if isinstance(item.get("content"), list):
                message["content"] = [_part(part) for part in item["content"]]
            chat.append(message)
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if chat and chat[-1].get("tool_calls"):  # called beside the one before
                chat[-1]["tool_calls"].append(call)
            else:
                chat.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            chat.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
        else:
            raise ValueError(
                f"the input in its body has an item of the type {kind!r}, which a chat does not have"
            )
    return chat


def _part(part: Any) -> Any:
    """Return a part of a message as chats have it; one that only the responses API has stays as it is."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    return part


def tool_of(tool: Any) -> Any:
    """Return a tool as chats have it; one that only the responses API has stays as it is."""
    if not isinstance(tool, dict) or tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def choice_of(choice: Any) -> Any:
    """Return the choice of a tool as chats have it."""
    if isinstance(choice, dict) and choice.get("type") == "function" and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


def form_of(form: Any) -> Any:
    """Return a `text.format` as the `response_format` of chats."""
    if isinstance(form, dict) and form.get("type") == "json_schema" and "json_schema" not in form:
        rest = {name: value for name, value in form.items() if name != "type"}
        return {"type": "json_schema", "json_schema": rest}
    return form
