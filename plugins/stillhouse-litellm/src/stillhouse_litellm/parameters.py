"""The generation parameters; `LiteLLM.agenerate` documents them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from stillhouse import ConfigurationError
from stillhouse.typing import ReasoningEffort

__all__ = ["CONTROLLED", "RENAMED", "LiteLLMParameters", "request_parameters"]


class LiteLLMParameters(TypedDict, total=False):
    """Those of `acompletion` that most providers have; `None` means the provider's default."""

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
    parallel_tool_calls: bool | None
    response_format: dict[str, Any] | None
    reasoning_effort: ReasoningEffort | None
    thinking: dict[str, Any] | None
    service_tier: str | None
    extra_body: dict[str, Any] | None


RENAMED = {"max_new_tokens": "max_tokens"}
"""LiteLLM itself says `max_completion_tokens` to the models that want that."""

CONTROLLED = frozenset({
    "acompletion", "allowed_openai_params", "api_base", "api_key", "base_url", "cache", "caching",
    "drop_params", "extra_headers", "fallbacks", "context_window_fallback_dict", "max_retries", "messages",
    "mock_response", "model", "model_list", "n", "num_retries", "retry_policy", "retry_strategy", "stream",
    "stream_timeout", "timeout",
})  # fmt: skip
"""Arguments of `acompletion` that `extra_body` must not replace: this backend sets them, or does what they
would do."""


def request_parameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return generation parameters as arguments of `acompletion`.

    Raises:
        ConfigurationError: `extra_body` has one that is not a field of the request.
    """
    extra = arguments.get("extra_body") or {}
    for name in extra:
        if name in CONTROLLED:
            raise ConfigurationError(
                f"extra_body cannot set {name}, which LiteLLM does not send to the provider",
                hint="see the fields of the LLM: stillhouse show litellm",
            )
    given = {
        RENAMED.get(name, name): value
        for name, value in arguments.items()
        if value is not None and name != "extra_body"
    }
    return {**given, **extra}
