"""The generation parameters of the API, and the fields that they become; `agenerate` documents them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from stillhouse import ConfigurationError
from stillhouse.http import effort_of
from stillhouse.typing import ReasoningEffort
from stillhouse_cohere.messages import request_tools

__all__ = ["CohereParameters", "request_fields"]

_NAMES = {"max_new_tokens": "max_tokens", "top_p": "p", "top_k": "k"}

# What is not sent under its own name, or not at once.
_APART = frozenset({
    "extra_body",
    "reasoning_effort",
    "stop",
    "strict_tools",
    "tool_choice",
    "tools",
})  # fmt: skip

_BUDGETS: dict[str, dict[str, Any]] = {
    "none": {"type": "disabled"},
    "minimal": {"type": "enabled", "token_budget": 512},
    "low": {"type": "enabled", "token_budget": 1024},
    "medium": {"type": "enabled", "token_budget": 4096},
    "high": {"type": "enabled", "token_budget": 16384},
    "max": {"type": "enabled"},
}
"""The API has no levels of effort: each is a budget of tokens."""


class CohereParameters(TypedDict, total=False):
    """Those of Cohere's chat API; `None` means its default."""

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | list[str] | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logprobs: bool | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    strict_tools: bool | None
    response_format: dict[str, Any] | None
    reasoning_effort: ReasoningEffort | None
    thinking: dict[str, Any] | None
    documents: list[str | dict[str, Any]] | None
    citation_options: dict[str, Any] | None
    safety_mode: str | None
    priority: int | None
    extra_body: dict[str, Any] | None


def request_fields(arguments: Mapping[str, Any], llm: str) -> dict[str, Any]:
    """The fields of a request for generation parameters.

    Args:
        arguments: the generation parameters.
        llm: the name of the LLM, for a message.

    Raises:
        ConfigurationError: two of them contradict each other, or `tool_choice` is not a tool's.
    """
    fields = {
        _NAMES.get(name, name): value
        for name, value in arguments.items()
        if value is not None and name not in _APART
    }
    stop = arguments.get("stop")
    if stop is not None:
        fields["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    tools, choice = arguments.get("tools"), arguments.get("tool_choice")
    if tools or choice is not None:
        fields |= request_tools(tools, choice, arguments.get("strict_tools"))
    effort = arguments.get("reasoning_effort")
    if effort is not None:
        if "thinking" in fields:
            raise ConfigurationError(
                "thinking and reasoning_effort set the same thing", hint="set only one of them"
            )
        fields["thinking"] = effort_of(effort, _BUDGETS, llm)
    return fields | (arguments.get("extra_body") or {})
