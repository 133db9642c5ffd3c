"""Marking what the API is to cache: it caches nothing that has no mark behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["cached"]

_MAX_MARKS = 4
"""How many a request may have; see https://platform.claude.com/docs/en/build-with-claude/prompt-caching."""

_UNMARKED = ("thinking", "redacted_thinking")
"""Blocks that the API caches with those around them, and that may have no mark."""


def cached(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request that change if it is to be cached; the request is not changed.

    Marked are the ends of the last user's message, of the system prompt and of the tools, in that order, as
    far as the API takes so many marks; what has a mark already keeps it.
    """
    messages, system, tools = body["messages"], body.get("system"), body.get("tools")
    left = _MAX_MARKS - _marks([system, tools, *(message.get("content") for message in messages)])
    last = next((at for at in reversed(range(len(messages))) if messages[at]["role"] == "user"), None)
    changed: dict[str, Any] = {}
    if last is not None and left > 0 and (content := _marked(messages[last].get("content"))):
        changed["messages"] = [
            *messages[:last],
            {**messages[last], "content": content},
            *messages[last + 1 :],
        ]
        left -= 1
    for name, blocks in (("system", system), ("tools", tools)):
        if left > 0 and (marked := _marked(blocks)):
            changed[name] = marked
            left -= 1
    return changed


def _marks(contents: list[Any]) -> int:
    """Count the marks in contents, and in the contents of the results of tools that are in them."""
    blocks = [
        block
        for content in contents
        if isinstance(content, list)
        for block in content
        if isinstance(block, dict)
    ]
    inner = [block["content"] for block in blocks if isinstance(block.get("content"), list)]
    return sum(bool(block.get("cache_control")) for block in blocks) + (_marks(inner) if inner else 0)


def _marked(content: Any) -> list[Any] | None:
    """A content with a mark at its end; `None` where there is nothing to mark, or it is marked."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content.strip() else []
    last = content[-1] if isinstance(content, list) and content else None
    if not isinstance(last, dict) or last.get("cache_control") or last.get("type") in _UNMARKED:
        return None
    return [*content[:-1], {**last, "cache_control": {"type": "ephemeral"}}]
