"""The generation parameters of each API; `agenerate` documents them."""

from __future__ import annotations

from typing import Any, TypedDict

from stillhouse.typing import ReasoningEffort

__all__ = [
    "ChatParameters",
    "DeepSeekParameters",
    "GroqParameters",
    "OpenRouterParameters",
    "ServiceParameters",
    "TogetherParameters",
    "VLLMParameters",
]


class ChatParameters(TypedDict, total=False):
    """Those of OpenAI's APIs; `None` means the server's default."""

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    stop: str | list[str] | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logprobs: bool | None
    top_logprobs: int | None
    logit_bias: dict[str, int | float] | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    response_format: dict[str, Any] | None
    reasoning_effort: ReasoningEffort | None
    extra_body: dict[str, Any] | None


class ServiceParameters(ChatParameters, total=False):
    """Those of a provider with tiers of service."""

    service_tier: str | None


class GroqParameters(TypedDict, total=False):
    """Those of Groq, whose API rejects log probabilities and biases of tokens."""

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    stop: str | list[str] | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    response_format: dict[str, Any] | None
    reasoning_effort: ReasoningEffort | None
    service_tier: str | None
    extra_body: dict[str, Any] | None


class TogetherParameters(ChatParameters, total=False):
    """Those of Together."""

    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None


class VLLMParameters(TogetherParameters, total=False):
    """Those of a vLLM server."""

    min_tokens: int | None
    stop_token_ids: list[int] | None
    include_stop_str_in_output: bool | None
    ignore_eos: bool | None
    skip_special_tokens: bool | None
    bad_words: list[str] | None
    truncate_prompt_tokens: int | None
    priority: int | None
    chat_template_kwargs: dict[str, Any] | None


class OpenRouterParameters(TogetherParameters, total=False):
    """Those of OpenRouter."""

    top_a: float | None
    reasoning: dict[str, Any] | None
    service_tier: str | None
    provider: dict[str, Any] | None
    models: list[str] | None
    plugins: list[dict[str, Any]] | None
    session_id: str | None
    cache_control: dict[str, Any] | None


class DeepSeekParameters(TypedDict, total=False):
    """Those of DeepSeek."""

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    stop: str | list[str] | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logprobs: bool | None
    top_logprobs: int | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    response_format: dict[str, Any] | None
    thinking: dict[str, Any] | None
    reasoning_effort: ReasoningEffort | None
    extra_body: dict[str, Any] | None
