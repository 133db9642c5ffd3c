"""The generation parameters of the API; `agenerate` documents them."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from stillhouse.typing import ReasoningEffort

__all__ = ["OPTIONS", "OllamaParameters"]

OPTIONS = {
    "max_new_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "repetition_penalty": "repeat_penalty",
    "repeat_last_n": "repeat_last_n",
    "num_ctx": "num_ctx",
    "num_keep": "num_keep",
}
"""The names under which parameters stand among the `options` of a request."""


class OllamaParameters(TypedDict, total=False):
    """Those of Ollama; `None` is not sent."""

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    typical_p: float | None
    stop: str | list[str] | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    repeat_last_n: int | None
    num_ctx: int | None
    num_keep: int | None
    logprobs: bool | None
    top_logprobs: int | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    think: bool | Literal["low", "medium", "high", "max"] | None
    reasoning_effort: ReasoningEffort | None
    keep_alive: str | int | float | None
    format: str | dict[str, Any] | None
    options: dict[str, Any] | None
    extra_body: dict[str, Any] | None
