"""The generation parameters of the API; `agenerate` documents them."""

from __future__ import annotations

from typing import Any, TypedDict

from stillhouse.typing import ReasoningEffort

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
    reasoning_effort: ReasoningEffort | None
    service_tier: str | None
    extra_body: dict[str, Any] | None
