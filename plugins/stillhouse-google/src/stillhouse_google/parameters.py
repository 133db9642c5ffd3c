"""The generation parameters of both APIs; `agenerate` documents them."""

from __future__ import annotations

from typing import Any, TypedDict

from stillhouse.typing import ReasoningEffort

__all__ = ["GenerateContentParameters"]


class GenerateContentParameters(TypedDict, total=False):
    """Those of `generateContent`; `None` means the model's default."""

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | list[str] | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logprobs: bool | None
    top_logprobs: int | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    reasoning_effort: ReasoningEffort | None
    thinking: dict[str, Any] | None
    safety_settings: list[dict[str, Any]] | None
    media_resolution: str | None
    labels: dict[str, str] | None
    cached_content: str | None
    service_tier: str | None
    extra_body: dict[str, Any] | None
