"""Marking what AWS is to cache: it caches nothing that has no mark behind it."""

from __future__ import annotations

from typing import Any

__all__ = ["add_cache_points"]

_MAX_POINTS = 4
"""How many a request may have; see https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html."""


def add_cache_points(
    system: list[dict[str, Any]], messages: list[dict[str, Any]], tools: dict[str, Any] | None
) -> None:
    """Mark the ends of the last user's message, of the system prompt and of the tools, in that order.

    There may be only so many marks, those of the chat included; what has a mark already keeps it. AWS
    refuses a mark in a conversation that has thoughts in it, whatever message it is in.
    """
    specs = (tools or {}).get("tools", [])
    contents = [message["content"] for message in messages]
    left = _MAX_POINTS - sum(
        "cachePoint" in block for blocks in (system, specs, *contents) for block in blocks
    )
    has_thoughts = any("reasoningContent" in block for blocks in contents for block in blocks)
    last = next((message for message in reversed(messages) if message["role"] == "user"), None)
    for content in ([] if last is None or has_thoughts else last["content"], system, specs):
        if left > 0 and content and "cachePoint" not in content[-1]:
            content.append({"cachePoint": {"type": "default"}})
            left -= 1
