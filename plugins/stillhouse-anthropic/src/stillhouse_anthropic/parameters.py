"""The generation parameters of the API; `agenerate` documents them."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

__all__ = ["MessageParameters"]


class MessageParameters(TypedDict, total=False):
    """Those of the Messages API; `None` means its default."""

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | list[str] | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    thinking: dict[str, Any] | None
    reasoning_effort: Literal["low", "medium", "high", "xhigh", "max"] | None
    extra_body: dict[str, Any] | None
