"""The generation parameters of the API; `agenerate` documents them."""

from __future__ import annotations

from typing import Any, TypedDict

from stillhouse.typing import ReasoningEffort

__all__ = ["MistralParameters"]


class MistralParameters(TypedDict, total=False):
    """Those of Mistral's chat completions; `None` means the API's default."""

    max_new_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | list[str] | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    logprobs: bool | None
    top_logprobs: int | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    parallel_tool_calls: bool | None
    response_format: dict[str, Any] | None
    reasoning_effort: ReasoningEffort | None
    prompt_mode: str | None
    prediction: str | dict[str, Any] | None
    safe_prompt: bool | None
    guardrails: list[dict[str, Any]] | None
    prompt_cache_key: str | None
    service_tier: str | None
    extra_body: dict[str, Any] | None
